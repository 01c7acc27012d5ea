r"""One particle Gibbs update: paths by conditional SMC, then all other latent sites given them.

Alternates (Andrieu, Doucet & Holenstein 2010, section 2.4.3)

1. z | φ, θ, x by one sweep of conditional SMC (``smc/sweep.py``);
2. φ | z, θ, x by its conjugate Dirichlet draw (``dirichlet.py``);
3. θ | z, φ, x, all other latent sites, by Pyro's own kernels (``inner.py``).

Each step leaves p(z, φ, θ | x) invariant. Chains are a batch dimension of one sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer.mcmc import NUTS
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..arguments import at_least
from ..reading.checks import check_reference
from ..reading.context import Before
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import Emission, Surrogate
from . import sharded, shared_twist
from .diagnostics import Diagnostics, of_all_ranks, path_functionals, vector_functionals
from .estep import SMCSettings
from .globals import GlobalSites
from .globals_update import GlobalsUpdate
from .memory import check_sweep_fits
from .told import table, told
from .twisting import Twisting

__all__ = ["Params", "ParticleGibbsKernel"]

#: values by site
Params = dict[str, Tensor]


class ParticleGibbsKernel(MCMCKernel):
    r"""One particle Gibbs update, as a kernel for Pyro's ``MCMC`` and for :class:`ParticleGibbs`.

    :param model: and ``num_particles``, ``resampling``: see :class:`ParticleGibbs`.
    :param int num_chains: C; with more than one, :meth:`sample` takes and returns a leading C.
    :param ancestor_sampling: and ``twist``, ``path_kernel``, ``inner_kernel``: see
        :class:`ParticleGibbs`.

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
        ancestor_sampling: int | None = None,
        num_chains: int = 1,
        twist: Any = "markov",
        path_kernel: str = "conditional",
        inner_kernel: Any = NUTS,
    ) -> None:
        self.model = model
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling, path_kernel)
        self._twisting = Twisting(twist)
        if not at_least(1, num_chains):
            raise ValueError(f"num_chains is {num_chains}, expected at least 1, an integer.")
        self.num_chains = num_chains
        self.transforms: dict[str, Any] = {}  # Pyro's MCMC asks: no site is constrained here
        self._initial_params: Params | None = None
        self._drawn = False  # whether these were drawn here, and not given
        self._before_run: Before | None = None
        self._diagnostics = Diagnostics()
        self._globals = GlobalSites("ParticleGibbs", free=True)
        self._update = GlobalsUpdate(self._globals, inner_kernel)
        self._program = Program(model)
        self._validate = is_validation_enabled()  # Pyro's MCMC turns it off while it runs
        #: paths that are given, by site, chains first; see ``scan.py``
        self.given: Params = {}

    # ------------------------------------------------------------------ Pyro's kernel protocol

    @sharded.together("ParticleGibbsKernel.setup")
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Read the model, check it, and draw a start if none was given.

        Validation is as it was when the kernel was made.
        """
        self._before_run, before = None, Before(self)
        program = Program(self.model, args, kwargs, {n: z[0] for n, z in self.given.items()})
        how = pyro.validation_enabled(self._validate), sharded.current().shared()
        with torch.no_grad(), how[0], how[1]:
            run = program.run()
            sharded.check_holds_all(run)
            check_sweep_fits("ParticleGibbs", run, self.settings.num_particles, self.num_chains)
            read_emission(run, verify=self._validate)
            self._globals.check(run)
        self._program, self._sites = program, run.paths
        self._update.start(run, self.num_chains, warmup_steps)
        self._diagnostics, self._num_sweeps = Diagnostics(), 0
        self._warmup_steps, self._frozen = warmup_steps, False
        self._warming_up = warmup_steps > 0
        if self._initial_params is None or self._drawn:
            self._initial_params, self._drawn = self._draw_start(run), True
        else:
            self._check_start(run, self._initial_params)
        self._before_run = before

    @property
    def initial_params(self) -> Params:
        """The start: other sites from their prior, z by unconditional SMC, unless given."""
        assert self._initial_params is not None, "setup() comes first"
        return self._squeeze(self._initial_params)

    @initial_params.setter
    def initial_params(self, params: Params) -> None:
        self._initial_params, self._drawn = self._unsqueeze(params), False

    def sample(self, params: Params) -> Params:
        """One update of z, then of every other latent site.

        An error ends the run that :meth:`setup` began, and all is as it was before that.
        """
        try:
            params = self.update(params)
        except BaseException:
            if self._before_run is not None:
                self._before_run.put_back()
            raise
        if self._warming_up and self._num_sweeps >= self._warmup_steps:
            self.end_warmup()  # Pyro's MCMC leaves that to its kernels
        return params

    @sharded.together("ParticleGibbsKernel.update")
    def update(self, params: Params) -> Params:
        """Do what :meth:`sample` does; an error undoes this update alone."""
        params, C = self._unsqueeze(params), self.num_chains
        values = {name: params[name] for name in self._globals.names}
        runs, emissions = self._read_chains(values)
        run, z = runs[0], self._sites.join(params)
        z = z.long() if run.is_discrete else z  # Pyro's MCMC keeps all in floats
        reference = torch.cat([run.flatten(chain) for chain in z], 1)
        twisting = self._adapted(run, emissions[0], reference)
        path = self._sweep(runs, emissions, reference, twisting)
        before, paths = (p.unflatten(1, (C, -1)).transpose(0, 1) for p in (reference, path))
        drawn = self._update.draw(runs, paths, values)
        new = self._sites.split(torch.stack([run.unflatten(z) for z in paths])) | drawn
        self._record(runs, before, paths, {name: drawn[name] for name in self._globals.free})
        self._twisting, self._num_sweeps = twisting, self._num_sweeps + 1
        self._frozen = not self._warming_up
        return self._squeeze(new)

    def logging(self) -> dict[str, str]:
        """Return what a progress bar should show: the share of latents that sweeps change."""
        return {"moved": f"{float(self._diagnostics.change_rate.mean()):.3f}"}

    def diagnostics(self) -> dict[str, Any]:
        """Return change rates, ESS and R-hat of label-invariant functionals, and the twist's trial.

        ``sites`` has for each latent site that is drawn in no closed form mean, sd, ``n_eff`` and
        ``r_hat`` of its elements, and, where Pyro's kernels draw it, the least ``step_size`` and
        ``accept_prob`` of the chains and the number of ``divergences`` after warm-up.
        ``twisted`` tells whether sweeps are; ``sd_log_evidence`` and ``effective_share`` are of
        the last trial (:class:`~pyro_ssl.infer.trial.Trial`), of what is in use, where there
        was one.
        """
        return told(self._diagnostics, self._twisting, self._update.report())

    @property
    def surrogate(self) -> Surrogate | None:
        """What twists the sweeps now; ``None``: they are not twisted."""
        return self._twisting.surrogate

    def format(self) -> str:
        """Return the diagnostics as a table."""
        return table(self._diagnostics, self._twisting, self._update.report())

    def end_warmup(self) -> None:
        """Forget what was recorded during warm-up; from here on no surrogate learns from paths."""
        self._diagnostics, self._warming_up = Diagnostics(), False

    # ------------------------------------------------------------------------------- its parts

    def _read_chains(self, values: Params) -> tuple[list[ModelRun], list[Emission]]:
        """Run the model once per chain, under the chain's own values."""
        with torch.no_grad():
            runs = [
                self._program.given({name: z[c] for name, z in self.given.items()}).run(
                    {name: value[c] for name, value in values.items()}
                )
                for c in range(self.num_chains if values or self.given else 1)
            ]
            emissions = [read_emission(run) for run in runs]
        return runs, emissions * (self.num_chains // len(emissions))

    def _adapted(self, run: ModelRun, emission: Emission, path: Tensor) -> Twisting:
        """Choose the twist: before sweeps 1, 2, 4, 8, ... of the warm-up, and after it for good.

        From there on the kernel is one and the same, and leaves the posterior invariant; one whose
        choice went on hanging on earlier draws would not.
        """
        n, twisting = self._num_sweeps + 1, self._twisting
        if self._frozen or self._warming_up and n & (n - 1):
            return twisting
        if self._warming_up:
            N, chain = run.full_shape.numel(), path[:, : run.num_sequences]
            twisting = shared_twist.learned(twisting, run, chain, N, n)
        return shared_twist.chosen(twisting, run, emission, self.settings.num_particles)

    def _sweep(
        self,
        runs: list[ModelRun],
        emissions: list[Emission],
        reference: Tensor | None,
        twisting: Twisting,
    ) -> Tensor:
        """Sweep all chains at once, unless each has a transition or a body of its own."""
        C, first = self.num_chains, emissions[0]
        own_transition = C > 1 and self._globals.reach_transition
        together = None if own_transition else first.beside(emissions[1:])
        settings = twisting.settings(self.settings)
        if together is not None:
            return sharded.sweeping(runs[0], together, settings)(reference)[1]
        references = [None] * C if reference is None else reference.chunk(C, 1)
        each = zip(runs, emissions, references, strict=True)
        return torch.cat([sharded.sweeping(r, e, settings)(z)[1] for r, e, z in each], 1)

    def _check_start(self, run: ModelRun, params: Params) -> None:
        """Check what the user gave as start."""
        for name in (*run.paths.names, *self._globals.names):
            if name not in params:
                raise ValueError(
                    f'Site "{name}": missing from initial_params, which hold {sorted(params)}; '
                    "expected a start for every latent site, or for none."
                )
        event = run.transition.event_shape
        path = (*run.loop.batch_shape, run.loop.num_steps, *event)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(run.paths.names, path)
        sites: dict[str, Any] = self._globals.sites | self._globals.free
        shapes |= {name: tuple(s.shape) for name, s in sites.items()}
        for name, shape in shapes.items():
            if tuple(params[name].shape) != (self.num_chains, *shape):
                found = tuple(params[name].shape[self.num_chains == 1 :])
                lead = () if self.num_chains == 1 else (self.num_chains,)
                raise ValueError(
                    f'Site "{name}": its start has shape {found}, expected {(*lead, *shape)}, '
                    "chains first where there are several."
                )
        for c in range(self.num_chains):
            check_reference(run, {name: params[name][c] for name in run.paths.names})

    def _draw_start(self, run: ModelRun) -> Params:
        values = self._update.prior_draws(run, self.num_chains)
        runs, emissions = self._read_chains(values)
        P = self.settings.num_particles
        self._twisting = shared_twist.chosen(self._twisting, runs[0], emissions[0], P)
        path = self._sweep(runs, emissions, None, self._twisting)
        chains = path.unflatten(1, (self.num_chains, run.num_sequences)).unbind(1)
        return self._sites.split(torch.stack([run.unflatten(z) for z in chains])) | values

    @torch.no_grad()
    def _record(self, runs: list[ModelRun], before: Tensor, after: Tensor, free: Params) -> None:
        run = runs[0]
        each = zip(runs * (self.num_chains // len(runs)), after, strict=True)
        joints = [sharded.share_of_log_joint(r, z) for r, z in each]
        (log_joint,) = of_all_ranks(torch.stack(joints))
        lengths = run.grid.lengths
        if run.is_discrete:
            functionals = path_functionals(after, lengths, run.transition.num_states)
        else:
            functionals = vector_functionals(after, lengths)
        self._diagnostics.add(before, after, lengths, {"log_joint": log_joint, **functionals})
        self._diagnostics.add_sites(free)

    def _squeeze(self, params: Params) -> Params:
        return {n: v[0] for n, v in params.items()} if self.num_chains == 1 else params

    def _unsqueeze(self, params: Params) -> Params:
        return {n: v.unsqueeze(0) for n, v in params.items()} if self.num_chains == 1 else params
