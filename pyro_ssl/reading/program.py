"""A user's model bound to its arguments, and one run of it, seen as an SSL.

Every inference class runs the model through :class:`Program`; none of them knows how the loop is
answered (``handlers.py``), and none touches the user's code otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import LatentSiteError
from ..loop import SSLLoop
from ..steps import steps_within
from ..transitions import DiscreteTransition
from .context import TURNS, Given, own_dims
from .handlers import DRAWN, StateGrid
from .model_errors import named_errors
from .paths import PathSites
from .refusals import check_subsamples, several_blocks
from .site import naming_site

__all__ = ["ModelRun", "Program"]


class Program:
    """A Pyro model with one ``ssl_transition``, bound to its arguments.

    :param model: the model.
    :param args: its positional arguments.
    :param kwargs: its keyword arguments.
    :param paths: values of paths that are given, by site.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        paths: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.args, self.kwargs = model, args, dict(kwargs or {})
        self.given_paths = dict(paths or {})

    def given(self, paths: Mapping[str, Tensor]) -> Program:
        """Return the program in which these paths, by site, have values."""
        return Program(self.model, self.args, self.kwargs, paths)

    def run(
        self, values: Mapping[str, Tensor] | None = None, states: Tensor | None = None
    ) -> ModelRun:
        """Run the model with the states of its loop all at once.

        :param values: values for latent sites outside the loop, and indices for subsampling plates.
        :param states: what the body meets in place of ``arange(K)``; see :class:`StateGrid`.
        :raises LatentSiteError: if there is no ``ssl_transition`` whose path is still to be drawn.
        """
        grid = StateGrid(states)
        with poutine.block(), poutine.trace() as tracer:
            self.answer(grid, dict(values or {}))
        if not grid.answered:
            raise LatentSiteError(
                "The model has no ssl_transition whose path is still to be drawn; expected one: "
                'for t, z in ssl_transition("z", transition, T): ... (a path that is conditioned '
                "on, or hidden by poutine.block, cannot be sampled)."
            )
        if len(grid.blocks) > 1:
            raise several_blocks(grid.blocks)
        nodes = tracer.trace.nodes
        sites = {
            name: _given(site)
            for name, site in nodes.items()
            if site["type"] == "sample" and not _is_in_loop(site["infer"])
        }
        params = {name: site for name, site in nodes.items() if site["type"] == "param"}
        run = ModelRun(self, grid, sites, params)
        check_subsamples(run.loop, run.subsamples)
        return run

    def answer(self, grid: StateGrid, values: dict[str, Tensor]) -> None:
        """Run the model once, its loop answered by ``grid``, and gather nothing else."""
        with TURNS, own_dims(), named_errors(grid), grid, Given(values | self.given_paths):
            try:
                self.model(*self.args, **self.kwargs)
            except ZeroDivisionError as error:
                if not _is_pyros(error):
                    raise
                raise ValueError(
                    f"The model has a plate that is empty, or a subsample ({error}), expected one "
                    "sequence at least, as Pyro does; leave an empty batch out: "
                    "if len(index): em.step(data, index)."
                ) from error


class ModelRun(NamedTuple):
    """A model run under the grid of all states. Sequences are flattened to B in every shape here.

    ``grid`` holds the loop and its emission, ``sites`` every sample site outside the loop, as in a
    Pyro trace, and ``params`` the ``pyro.param`` statements.
    """

    program: Program
    grid: StateGrid
    sites: dict[str, dict[str, Any]]
    params: dict[str, dict[str, Any]]

    @property
    def loop(self) -> SSLLoop:
        """The ``ssl_transition`` statement."""
        return self.grid.loop

    @property
    def transition(self) -> Any:
        """p(z_t | z_{1:t-1}), a :class:`DiscreteTransition` or a :class:`GaussianTransition`."""
        return self.grid.transition

    @property
    def is_discrete(self) -> bool:
        """Whether z_t is one of K states, not a vector."""
        return isinstance(self.transition, DiscreteTransition)

    @property
    def num_sequences(self) -> int:
        """B, over all plates around the loop."""
        return self.loop.batch_shape.numel()

    @property
    def inputs(self) -> Tensor | None:
        """Exogenous inputs, time first: ``(T, B, input_size)``."""
        inputs = self.loop.inputs
        if inputs is None:
            return None
        shape = (self.num_sequences, *inputs.shape[-2:])  # without a plate there is no B to flatten
        return inputs.reshape(shape).transpose(0, 1)

    @property
    def subsamples(self) -> dict[str, Tensor]:
        """Indices that the plates drew or were given, by plate."""
        return {
            name: site["value"]
            for name, site in self.sites.items()
            if isinstance(site["fn"], _Subsample)
        }

    @property
    def latents(self) -> dict[str, Tensor]:
        """Values of the latent sites outside the loop, and indices of the plates, by name."""
        return {n: site["value"] for n, site in self.sites.items() if not site["is_observed"]}

    @property
    def subsample_factor(self) -> float:
        """How many sequences of the full data one sequence of this run stands for."""
        factor = 1.0
        for frame in self.loop.plates:
            factor *= (frame.full_size or frame.size) / frame.size
        return factor

    @property
    def full_shape(self) -> torch.Size:
        """Shape of the plates around the loop over the full data."""
        shape = list(self.loop.batch_shape)
        for frame in self.loop.plates:
            shape[frame.dim] = frame.full_size or frame.size
        return torch.Size(shape)

    def again(self, grid: StateGrid) -> None:
        """Run the model once more, with the same values, its loop answered by another grid."""
        with poutine.block():
            self.program.answer(grid, self.latents)

    @property
    def paths(self) -> PathSites:
        """The sites of the paths that are to be drawn."""
        return self.grid.paths

    def flatten(self, path: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Turn a path ``batch_shape + (T, ...)`` into the samplers' ``(T, B, ...)``.

        Or, by site, those of several chains.
        """
        if isinstance(path, Mapping):
            path = self.paths.join(path)
        shape = (-1, self.loop.num_steps, *self.transition.event_shape)
        return path.reshape(shape).transpose(0, 1).contiguous()

    def unflatten(self, path: Tensor) -> Tensor:
        """Turn the samplers' path ``(T, B, ...)`` into the site's, ``batch_shape + (T, ...)``."""
        path = path.transpose(0, 1)
        return path.reshape(self.loop.batch_shape + path.shape[1:])

    def result(self, path: Tensor) -> Any:
        """Return what a user is given of the samplers' path: by site where there are several."""
        return self.paths.result(self.unflatten(path))

    def zero_path(self) -> Tensor:
        """Return a path of zeros, ``(T, B) + event_shape``, of the latents' dtype."""
        shape = (self.loop.num_steps, self.num_sequences, *self.transition.event_shape)
        dtype = torch.long if self.is_discrete else self.transition.like.dtype
        return torch.zeros(shape, dtype=dtype, device=self.loop.device)

    def any_path(self) -> Tensor:
        """Return some path, always the same; a discrete one visits every state."""
        zeros = self.zero_path()
        if self.is_discrete:
            index = torch.arange(zeros.numel(), device=zeros.device)
            return index.reshape(zeros.shape) % self.transition.num_states
        generator = torch.Generator(device="cpu").manual_seed(0)
        noise = torch.randn(zeros.shape, generator=generator, device="cpu", dtype=zeros.dtype)
        return noise.to(zeros)

    def log_transition(self, path: Tensor, only: slice = slice(None)) -> Tensor:
        """Return log p(z) of a path ``(T, B, ...)``, ``(B,)``, or of some sequences of it.

        Differentiable.
        """
        grid, inputs = self.grid, self.inputs
        inputs = None if inputs is None else inputs.transpose(0, 1)[only]
        log_p = grid.transition.log_prob(path.transpose(0, 1)[only], inputs).T  # (T, B)
        if grid.lengths is not None:
            log_p = torch.where(steps_within(grid.lengths[only], len(log_p)), log_p, 0.0)
        scale = grid.transition_scale
        return log_p.sum(0) if scale is None else log_p.sum(0) * scale[only]

    def log_emission(self, path: Tensor) -> Tensor:
        """Return log p(x | z) of a path ``(T, B, ...)``, ``(B,)``; differentiable."""
        if self.is_discrete:
            return self.grid.path(path).sum(0)
        return self.emission_at(path.unsqueeze(0)).squeeze(-1).sum(0)

    def emission_at(self, points: Tensor) -> Tensor:
        """Return log p(x_t | z_t) at vectors ``(S, T, B, D)``: ``(T, B, S)``; differentiable."""
        grid = StateGrid(
            points.reshape(*points.shape[:2], *self.loop.batch_shape, points.shape[-1])
        )
        self.again(grid)
        return grid.table()

    def log_joint(self, path: Tensor) -> Tensor:
        """Return log p of a path ``(T, B, ...)`` and all other sites: a scalar, float64."""
        inside = (self.log_transition(path) + self.log_emission(path)).double().sum()
        return inside + self.log_elsewhere(observed=True) + self.log_elsewhere(observed=False)

    def log_elsewhere(self, *, observed: bool, without: str = "") -> Tensor:
        """Return the log-density of all observed, or all latent, sites outside the loop.

        :param str without: leave out the site of this name.
        A scalar, float64; differentiable.
        """
        total = torch.zeros((), device=self.loop.device, dtype=torch.float64)
        for name, site in self.sites.items():
            if name == without or isinstance(site["fn"], _Subsample):
                continue
            if site["is_observed"] == observed:
                with naming_site(site["name"]):
                    log_p = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
                    log_p = scale_and_mask(log_p, site["scale"], site["mask"])
                total = total + log_p.double().sum()
        return total


def _is_in_loop(infer: Mapping[str, Any]) -> bool:
    """Whether a site is the sweep's to draw, or what the body observed; or no site at all."""
    drawn = infer.get("_ssl_path") == DRAWN
    return drawn or bool(infer.get("_ssl_emission") or infer.get("_deterministic"))


def _given(site: dict[str, Any]) -> dict[str, Any]:
    """A path that ``replay`` gives is as good as observed."""
    return {**site, "is_observed": True} if site["infer"].get("_ssl_path") else site


def _is_pyros(error: Exception) -> bool:
    """Whether an error was raised by Pyro's handlers, not by the user's own code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith("pyro.poutine")
