"""One run of a user's model, seen as an SSL: the loop's emission table, and all other sites.

Every inference class of this package runs the model through :func:`run_model`; none of them
knows how the loop is answered (``smc/emission.py``), and none touches the user's code otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _DIM_ALLOCATOR
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import LatentSiteError
from ..primitive import SSLLoop
from ..smc import QuadraticEmission
from ..transitions import DiscreteTransition
from .handlers import StateGrid
from .quadratic import fit_quadratic, probe_points

__all__ = ["Given", "ModelRun", "run_model"]


#: How far a top may be from where the body is looked at (points are standard normal about there),
#: and how often it is looked at again.
FAR, LOOKS = 10.0, 4

#: log p(x_t | z_t): see :meth:`ModelRun.emission`
Emission = Tensor | QuadraticEmission | None


class ModelRun(NamedTuple):
    """A model run under the grid of all states. Sequences are flattened to B in every shape here.

    ``grid`` holds the loop and its emission, ``sites`` every sample site outside the loop, as in a
    Pyro trace, and ``params`` the ``pyro.param`` statements. ``again`` runs the model once more,
    with the same values, under another grid.
    """

    grid: StateGrid
    sites: dict[str, dict[str, Any]]
    params: dict[str, dict[str, Any]]
    again: Callable[[StateGrid], None]

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
        if self.loop.inputs is None:
            return None
        return self.loop.inputs.flatten(0, -3).transpose(0, 1)

    @property
    def subsamples(self) -> dict[str, Tensor]:
        """Indices that the plates drew or were given, by plate."""
        return {
            name: site["value"]
            for name, site in self.sites.items()
            if isinstance(site["fn"], _Subsample)
        }

    @property
    def subsample_factor(self) -> float:
        """How many sequences of the full data one sequence of this run stands for."""
        factor = 1.0
        for frame in self.loop.plates:
            factor *= (frame.full_size or frame.size) / frame.size
        return factor

    def flatten(self, path: Tensor) -> Tensor:
        """Turn a path ``batch_shape + (T, ...)`` into the samplers' ``(T, B, ...)``."""
        shape = (-1, self.loop.num_steps, *self.transition.event_shape)
        return path.reshape(shape).transpose(0, 1).contiguous()

    def unflatten(self, path: Tensor) -> Tensor:
        """Turn the samplers' path ``(T, B, ...)`` into the site's, ``batch_shape + (T, ...)``."""
        path = path.transpose(0, 1)
        return path.reshape(self.loop.batch_shape + path.shape[1:])

    def log_transition(self, path: Tensor) -> Tensor:
        """Return log p(z) of a path ``(T, B, ...)``, ``(B,)``; differentiable."""
        loop, grid = self.loop, self.grid
        inputs = None if loop.inputs is None else loop.inputs.flatten(0, -3)
        log_p = grid.transition.log_prob(path.transpose(0, 1), inputs)  # (B, T)
        if grid.lengths is not None:
            steps = torch.arange(loop.num_steps, device=path.device)
            log_p = torch.where(steps < grid.lengths.unsqueeze(-1), log_p, 0.0)
        scale = grid.transition_scale
        return log_p.sum(-1) if scale is None else log_p.sum(-1) * scale

    def log_emission(self, path: Tensor) -> Tensor:
        """Return log p(x | z) of a path ``(T, B, ...)``, ``(B,)``; differentiable."""
        if self.is_discrete:
            return self.grid.path(path).sum(0)
        grid = StateGrid(self._as_states(path.unsqueeze(0)))
        self.again(grid)
        return grid.table().squeeze(-1).sum(0)

    def emission(self, table: Tensor) -> Emission:
        """Return log p(x_t | z_t) as a function of z_t: what a sweep asks for.

        A table over the K states, ``(T, B, K)``; over vectors a quadratic function, or ``None``
        where it is not one, so that the body has to run within the sweep.

        :param Tensor table: what ``grid.table()`` returned.
        """
        if self.is_discrete:
            return table
        points = probe_points(self.transition)
        found = fit_quadratic(table, points)
        if found is None:
            return None
        # Again about the top of each function while that is far: there large numbers cancel, and
        # the first look may not even tell well where the top is.
        eye = torch.eye(points.shape[-1], device=points.device, dtype=points.dtype)
        for _ in range(LOOKS):
            size = found.precision.abs().amax((-2, -1), keepdim=True)
            ridge = torch.finfo(points.dtype).eps * (1.0 + size) * eye
            step = torch.linalg.solve(found.precision + ridge, found.linear)
            if not bool((step.abs() > FAR).any()):
                break
            center = found.center + step
            grid = StateGrid(self._as_states(points[:, None, None] + center))
            self.again(grid)
            closer = fit_quadratic(grid.table(), points, center, known=True)
            if closer is None:
                break
            found = closer
        return found

    def _as_states(self, z: Tensor) -> Tensor:
        """``(S, T, B, D)`` to ``(S, T) + batch_shape + (D,)``."""
        return z.reshape(*z.shape[:2], *self.loop.batch_shape, *z.shape[3:])

    def log_elsewhere(self, only_observed: bool = False) -> Tensor | float:
        """Return the log-density of all sites outside the loop, a scalar; differentiable."""
        total: Tensor | float = 0.0
        for site in self.sites.values():
            if isinstance(site["fn"], _Subsample) or (only_observed and not site["is_observed"]):
                continue
            log_p = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
            total = total + scale_and_mask(log_p, site["scale"], site["mask"]).sum()
        return total


class Given(Messenger):
    """Gives latent sites their current values; they stay latent."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        value = self.values.get(msg["name"])
        if value is not None and not msg["is_observed"] and msg["value"] is None:
            msg["value"], msg["done"] = value, True


@contextmanager
def _own_dims() -> Iterator[None]:
    """Let plates of the model have the dimensions that plates around this run stand on.

    These are hidden from it, but a guide may run the model within ``SVI``'s plate of particles.
    """
    taken = _DIM_ALLOCATOR._stack
    _DIM_ALLOCATOR._stack = []
    try:
        yield
    finally:
        _DIM_ALLOCATOR._stack = taken


def run_model(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    values: Mapping[str, Tensor] | None = None,
    states: Tensor | None = None,
) -> ModelRun:
    """Run a model with the states of its loop all at once, and gather what it says.

    :param values: values for latent sites outside the loop, and indices for subsampling plates.
    :param states: what the body meets in place of ``arange(K)``; see :class:`StateGrid`.
    :raises LatentSiteError: if there is no ``ssl_transition`` whose path is still to be drawn.
    """
    grid = StateGrid(states)
    with _own_dims(), poutine.block(), poutine.trace() as tracer, Given(values or {}), grid:
        model(*args, **kwargs)
    nodes = tracer.trace.nodes
    if not grid.answered:
        raise LatentSiteError(
            "The model has no ssl_transition whose path is still to be drawn; expected one: "
            'for t, z in ssl_transition("z", transition, T): ... (a path that is conditioned on, '
            "or hidden by poutine.block, cannot be sampled)."
        )
    sites = {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample"
        and not site["infer"].get("_ssl_path")
        and not site["infer"].get("_ssl_emission")
        and not site["infer"].get("_deterministic")
    }
    params = {name: site for name, site in nodes.items() if site["type"] == "param"}
    fixed = {n: s["value"] for n, s in sites.items() if not s["is_observed"]}

    def again(other: StateGrid) -> None:
        # Not traced: the body may run once for each step.
        with _own_dims(), poutine.block(), Given(fixed), other:
            model(*args, **kwargs)

    return ModelRun(grid, sites, params, again)
