r"""One particle Gibbs update: paths by conditional SMC, Dirichlet sites by conjugate draws.

Alternates (Andrieu, Doucet & Holenstein 2010, section 2.4.3)

1. z | φ, x by one sweep of conditional SMC (``smc/sweep.py``);
2. φ | z, x by its conjugate Dirichlet draw (``conjugate.py``).

Both steps leave p(z, φ | x) invariant. Chains are a batch dimension of one sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..reading.checks import latent_dirichlets
from ..reading.program import Emission, ModelRun, run_model
from ..smc import QuadraticEmission
from .diagnostics import Diagnostics, path_functionals, vector_functionals
from .dirichlet import dirichlet_counts, draw_dirichlet, reaches_transition
from .estep import SMCSettings, draw_paths, read_emission

__all__ = ["Params", "ParticleGibbsKernel", "check_reference"]

#: values by site
Params = dict[str, Tensor]


class ParticleGibbsKernel(MCMCKernel):
    r"""One particle Gibbs update, as a kernel for Pyro's ``MCMC`` and for :class:`ParticleGibbs`.

    :param model: a Pyro model with one ``ssl_transition``. Besides its path, only Dirichlet sites
        may be latent; ``pyro.param`` and module parameters stay as they are.
    :param int num_particles: P.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param int ancestor_sampling: redraw the reference's ancestor every so many steps; 0: never.
    :param int num_chains: C; with more than one, :meth:`sample` takes and returns a leading C.

    Example::

        >>> from pyro.infer import MCMC
        >>> mcmc = MCMC(ParticleGibbsKernel(model), num_samples=100)        # doctest: +SKIP
        >>> mcmc.run(words)                                                 # doctest: +SKIP
        >>> z = mcmc.get_samples()["z"].long()  # MCMC keeps all in floats  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int = 10,
        *,
        resampling: str = "systematic",
        ancestor_sampling: int = 10,
        num_chains: int = 1,
    ) -> None:
        self.model = model
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling)
        self.num_chains = num_chains
        self.transforms: dict[str, Any] = {}  # Pyro's MCMC asks: no site is constrained here
        self._initial_params: Params | None = None
        self._diagnostics = Diagnostics()
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}

    # ------------------------------------------------------------------ Pyro's kernel protocol

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Read the model, check it, and draw a start if none was given."""
        self._args, self._kwargs = args, kwargs
        self._diagnostics = Diagnostics()
        with torch.no_grad():
            run = run_model(self.model, args, kwargs)
            self._site = run.loop.name
            self._dirichlets = latent_dirichlets(run, purpose="ParticleGibbs")
            if run.subsample_factor != 1.0:
                raise ValueError(
                    f'Site "{self._site}": its plate is subsampled, but particle Gibbs draws from '
                    "the posterior given all data; expected subsample_size=None. For learning on "
                    "minibatches use StochasticEM."
                )
            read_emission(run, verify=is_validation_enabled())
        self._in_transition = reaches_transition(self.model, args, kwargs, self._dirichlets)
        if self._dirichlets and is_validation_enabled():
            self._counts(_any_path(run), verify=True)
        if self._initial_params is None:
            self._initial_params = self._draw_start(run)
        else:
            self._check_start(run, self._initial_params)

    @property
    def initial_params(self) -> Params:
        """The start: φ from its prior, z by unconditional SMC, unless given."""
        assert self._initial_params is not None, "setup() comes first"
        return self._squeeze(self._initial_params)

    @initial_params.setter
    def initial_params(self, params: Params) -> None:
        self._initial_params = self._unsqueeze(params)

    def sample(self, params: Params) -> Params:
        """One update of z, then of every Dirichlet site."""
        params = self._unsqueeze(params)
        values = {name: params[name] for name in self._dirichlets}
        runs, emissions = self._emissions(values)
        run, z = runs[0], params[self._site]
        z = z.long() if run.is_discrete else z  # Pyro's MCMC keeps all in floats
        reference = torch.cat([run.flatten(chain) for chain in z], 1)
        path = self._sweep(runs, emissions, reference)
        paths = path.unflatten(1, (self.num_chains, run.num_sequences)).transpose(0, 1)  # (C, T, B)
        new = {self._site: torch.stack([run.unflatten(z) for z in paths])}
        for name in self._dirichlets:
            new[name] = torch.empty_like(params[name])
        for c, z in enumerate(paths if self._dirichlets else ()):
            for name, counts in self._counts(z).items():
                new[name][c] = draw_dirichlet(self._dirichlets[name], counts)
        before = reference.unflatten(1, (self.num_chains, -1)).transpose(0, 1)
        self._record(runs, before, paths)
        return self._squeeze(new)

    def logging(self) -> dict[str, str]:
        """Return what a progress bar should show: the share of latents that sweeps change."""
        return {"moved": f"{float(self._diagnostics.change_rate.mean()):.3f}"}

    def diagnostics(self) -> dict[str, Any]:
        """Return change rates, and ESS and R-hat of label-invariant functionals."""
        return self._diagnostics.report()

    def end_warmup(self) -> None:
        """Forget what was recorded during warm-up."""
        self._diagnostics = Diagnostics()

    # ------------------------------------------------------------------------------- its parts

    def _emissions(self, values: Params) -> tuple[list[ModelRun], list[Emission]]:
        """Run the model once per chain, under the chain's own values."""
        with torch.no_grad():
            runs = [
                run_model(
                    self.model, self._args, self._kwargs, {n: v[c] for n, v in values.items()}
                )
                for c in range(self.num_chains if values else 1)
            ]
            emissions = [run.emission(run.grid.table()) for run in runs]
        return runs, emissions * (self.num_chains // len(emissions))

    def _sweep(
        self, runs: list[ModelRun], emissions: list[Emission], reference: Tensor | None
    ) -> Tensor:
        """Sweep all chains at once, unless each has a transition or a body of its own."""
        C, run = self.num_chains, runs[0]
        own_body = len(runs) > 1 and any(emission is None for emission in emissions)
        if C == 1 or not (self._in_transition or own_body):
            emission = _side_by_side(emissions)
            return draw_paths(run, emission, reference, self.settings, num_chains=C)[1]
        references = [None] * C if reference is None else reference.chunk(C, 1)
        return torch.cat(
            [
                draw_paths(r, emission, ref, self.settings)[1]
                for r, emission, ref in zip(runs, emissions, references, strict=True)
            ],
            1,
        )

    def _counts(self, path: Tensor, verify: bool = False) -> dict[str, Tensor]:
        """Count tables of the Dirichlet sites for one chain's path, ``(T, B)``."""

        def objective(run: ModelRun) -> tuple[Tensor]:
            log_p = run.log_emission(path).sum() + run.log_elsewhere(only_observed=True)
            return (log_p + run.log_transition(path).sum() if self._in_transition else log_p,)

        return dirichlet_counts(
            self.model, self._args, self._kwargs, {}, self._dirichlets, objective, verify=verify
        )[0]

    def _check_start(self, run: ModelRun, params: Params) -> None:
        """Check what the user gave as start."""
        for name in (self._site, *self._dirichlets):
            if name not in params:
                raise ValueError(
                    f'Site "{name}": missing from initial_params, which hold {sorted(params)}; '
                    "expected a start for every latent site, or for none."
                )
        event = run.transition.event_shape
        shapes = {self._site: (*run.loop.batch_shape, run.loop.num_steps, *event)}
        shapes |= {name: tuple(fn.shape()) for name, fn in self._dirichlets.items()}
        for name, shape in shapes.items():
            if tuple(params[name].shape) != (self.num_chains, *shape):
                found = tuple(params[name].shape[self.num_chains == 1 :])
                lead = () if self.num_chains == 1 else (self.num_chains,)
                raise ValueError(
                    f'Site "{name}": its start has shape {found}, expected {(*lead, *shape)}, '
                    "chains first where there are several."
                )
        for z in params[self._site]:
            check_reference(run, z)

    def _draw_start(self, run: ModelRun) -> Params:
        values = {
            name: fn.sample((self.num_chains,)).clamp(min=1e-30)
            for name, fn in self._dirichlets.items()
        }
        runs, emissions = self._emissions(values)
        path = self._sweep(runs, emissions, None)
        chains = path.unflatten(1, (self.num_chains, run.num_sequences)).unbind(1)
        return {self._site: torch.stack([run.unflatten(z) for z in chains]), **values}

    @torch.no_grad()
    def _record(self, runs: list[ModelRun], before: Tensor, after: Tensor) -> None:
        run = runs[0]
        log_joint = torch.stack(
            [
                r.log_transition(z).sum() + r.log_emission(z).sum() + r.log_elsewhere()
                for r, z in zip(runs * (self.num_chains // len(runs)), after, strict=True)
            ]
        )
        lengths = run.grid.lengths
        if run.is_discrete:
            functionals = path_functionals(after, lengths, run.transition.num_states)
        else:
            functionals = vector_functionals(after, lengths)
        self._diagnostics.add(before, after, lengths, {"log_joint": log_joint, **functionals})

    def _squeeze(self, params: Params) -> Params:
        return {n: v[0] for n, v in params.items()} if self.num_chains == 1 else params

    def _unsqueeze(self, params: Params) -> Params:
        return {n: v.unsqueeze(0) for n, v in params.items()} if self.num_chains == 1 else params


def check_reference(run: ModelRun, reference: Tensor) -> Tensor:
    """Check a user's path ``(B, T, ...)``, and lay it out as the sampler's ``(T, B, ...)``."""
    loop = run.loop
    shape = (*loop.batch_shape, loop.num_steps, *run.transition.event_shape)
    if not run.is_discrete:
        if tuple(reference.shape) != shape or not bool(reference.isfinite().all()):
            raise ValueError(
                f'Site "{loop.name}": the reference has shape {tuple(reference.shape)}, expected '
                f"finite numbers {shape}: sequences first, then time, then the vector."
            )
        return run.flatten(reference)
    K = run.transition.num_states
    integer = not reference.is_floating_point() and reference.dtype != torch.bool
    if tuple(reference.shape) != shape or not integer:
        raise ValueError(
            f'Site "{loop.name}": the reference has shape {tuple(reference.shape)} and dtype '
            f"{reference.dtype}, expected int64 {shape}, sequences first and time last."
        )
    if reference.numel() and (int(reference.min()) < 0 or int(reference.max()) >= K):
        raise ValueError(
            f'Site "{loop.name}": the reference holds states from {int(reference.min())} to '
            f"{int(reference.max())}, expected 0 to {K - 1}."
        )
    return run.flatten(reference.long())


def _any_path(run: ModelRun) -> Tensor:
    """A path that visits every state, or that is nowhere special: ``(T, B, ...)``."""
    T, B, device = run.loop.num_steps, run.num_sequences, run.loop.device
    if run.is_discrete:
        return torch.arange(T * B, device=device).reshape(T, B) % run.transition.num_states
    like = next(iter(run.transition.parameters()))
    return torch.randn((T, B, *run.transition.event_shape), device=device, dtype=like.dtype)


def _side_by_side(emissions: list[Emission]) -> Emission:
    """Emissions of several chains as one of as many sequences in all."""
    first = emissions[0]
    if len(emissions) == 1 or first is None:
        return first
    if isinstance(first, Tensor):
        return torch.cat(emissions, 1)  # type: ignore[arg-type]
    return QuadraticEmission(*(torch.cat(parts, 1) for parts in zip(*emissions, strict=True)))
