r"""Stochastic EM: learning with paths drawn from their joint posterior.

Zheng et al. 2017 (arXiv 1711.11179, eqs. 5-8): the E-step draws z ~ p(z | x; ω, φ) by one or more
sweeps of conditional SMC from the last paths; the M-step raises log p(z; ω) + log p(x | z; φ), for
Dirichlet sites in closed form and for all else, other latent sites among it (``point.py``), by a
gradient step.

With ``conditional=False`` the E-step is unconditional SMC, which has no memory of the last paths
and is biased at finite P: at P=1 it is the left-to-right E-step of Latent LSTM Allocation (Zaheer,
Ahmed & Smola 2017), which ignores the information of later observations on earlier latents.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..arguments import at_least
from ..reading.checks import check_transition_learns
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import Emission
from . import sharded, shared_twist
from .blocks import programs_of
from .dirichlet import Counts
from .estep import SMCSettings, next_paths
from .globals import GlobalSites, HasEstimates
from .markov_em import MarkovEM
from .memory import check_sweep_fits
from .mstep import gradient_step
from .path_memory import PathMemory
from .point import PointSites
from .saved_em import SavesEM
from .scan_em import ScansPaths
from .twisting import Twisting
from .undo import pyro_optimiser, undone_on_error
from .warm_start import all_sequences, check_steps, draw_all, teach_transition

__all__ = ["StochasticEM"]

#: steps between two choices of the twist
REFIT_EVERY = 16


class StochasticEM(ScansPaths, SavesEM, HasEstimates):
    r"""Fit an SSL by stochastic EM: the counterpart of Pyro's ``SVI``.

    :param model: a Pyro model with one ``ssl_transition``. Point estimates of its other latent
        sites are in :attr:`values`: Dirichlet sites in closed form, continuous ones by MAP. Of
        several chains or loops see :class:`ParticleGibbs`.
    :param optim: a Pyro optimiser for ``pyro.param`` and module parameters, and the latter sites.
    :param int num_particles: P.
    :param bool conditional: draw from the exact posterior by conditional SMC, from the last path;
        ``False``: unconditional SMC, biased (P=1: the LLA baseline).
    :param int num_sweeps: sweeps per step, each from the last one's path.
    :param twist: lets particles look ahead; see :class:`ParticleGibbs`. ``"markov"`` is fitted
        along the paths as they are learned.
    :param int num_gradient_steps: gradient steps per step, on the paths that the sweeps drew.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param ancestor_sampling: and ``path_kernel``: see :class:`ParticleGibbs`.
    :param str dirichlet: point estimate of a Dirichlet site from its counts: ``"mean"`` of its
        posterior, or ``"mode"`` (MAP); below a prior of 1 the mode gives what was never seen
        probability 0, so held-out data may have none.
    :param float averaging: weight, in [0, 1), of the past in the counts that the estimates come
        from: n ← averaging · n + (1 - averaging) · n_now (Delyon, Lavielle & Moulines 1999,
        "Convergence of a stochastic approximation version of the EM algorithm").
    :param bool draw_dirichlet: let the E-step see a *draw* of each Dirichlet site from its
        posterior given the last paths, in place of the point estimate: paths and sites then form a
        particle Gibbs chain. Point estimates let the paths, and the transition that learns from
        them, settle on one explanation of a small corpus; draws keep both moving.
    :param bool draw_transition: likewise a draw of the transition's weights in each step, by its
        ``draw_weights()``: a recurrent one's dropout, as a distribution over its output layer.
    :param paths_folder: where the last paths are kept, in a file without a name that is mapped; by
        default in memory. It changes no result.

    Paths are kept per sequence, by the indices of the plates around the loop: with
    ``pyro.plate("documents", N, subsample=index)`` each minibatch goes on from its own, and takes
    its own counts out of those that are kept over all sequences (Neal & Hinton 1998). Several
    processes may share the sequences, each with paths of its own: :mod:`pyro_ssl.distributed`.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro.optim import Adam
        >>> from pyro_ssl import LSTMTransition, StochasticEM, ssl_transition
        >>> transition = LSTMTransition(3, 8)
        >>> def model(words):
        ...     pyro.module("transition", transition)
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3, 6)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> em = StochasticEM(model, Adam({"lr": 1e-2}), num_particles=5)
        >>> words = torch.randint(6, (7, 4))
        >>> losses = [em.step(words) for _ in range(3)]
        >>> em.values["phi"].shape
        torch.Size([3, 6])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        optim: Callable[..., Any],
        num_particles: int = 10,
        *,
        conditional: bool = True,
        num_sweeps: int = 1,
        num_gradient_steps: int = 1,
        resampling: str = "systematic",
        ancestor_sampling: int | None = None,
        twist: Any = "markov",
        path_kernel: str = "conditional",
        dirichlet: str = "mean",
        averaging: float = 0.0,
        draw_dirichlet: bool = False,
        draw_transition: bool = False,
        paths_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if not at_least(1, num_sweeps, num_gradient_steps):
            found = f"num_sweeps is {num_sweeps} and num_gradient_steps {num_gradient_steps}"
            raise ValueError(f"{found}, expected at least 1 of each.")
        self.model, self.optim = model, pyro_optimiser(optim)
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling, path_kernel)
        self._twisting, self._num_steps = Twisting(twist), 0
        self.conditional, self.num_sweeps = conditional, num_sweeps
        self.num_gradient_steps = num_gradient_steps
        self.draw_dirichlet, self.draw_transition = draw_dirichlet, draw_transition
        #: share of latents that the last step changed, over the sequences seen before
        self.change_rate: float = float("nan")
        points, how = PointSites(), (dirichlet, averaging)
        self._globals, self._model = GlobalSites("StochasticEM", *how, points), points.within(model)
        self._current: dict[str, Tensor] = {}  # what the E-step sees: the estimates, or draws
        self._memory = PathMemory(paths_folder)
        self._path_counts: Counts = {}  # of the paths in memory
        self._told = False  # of parameters that nothing trains
        self._named: tuple[str, ...] = ()  # parameters of the model

    def _step(self, program: Program) -> float:
        run, emission = self._read(program)
        old, known = self._memory.recall(run)
        fresh = not self._memory or self._memory.is_stale(run)
        whole, twisting = sharded.union(run, self._memory, known), self._twist(run, emission)
        settings = twisting.settings(self.settings)
        draw = sharded.sweeping(run, emission, settings, drawn=self.draw_transition)
        if self.conditional:
            path = next_paths(draw, old, known, self.num_sweeps, whole.fresh)
        else:
            path = draw(reference=None)[1]
        given = {**run.subsamples, **self._current}
        parameters = [site["value"].unconstrained() for site in run.params.values()]
        minibatch = run.subsample_factor != 1.0
        with undone_on_error(parameters, self.optim):
            losses = [self._ascend(program, given, path) for _ in range(self.num_gradient_steps)]
            # Without minibatches all sequences are here, and counted anew.
            counts = self._count(run, path, old, known & minibatch) if self._globals else None
            self._memory.store(run, path)
            counts = sharded.counts_over_ranks(run, counts)
        self.change_rate = sharded.change_rate(run, old, path, known, self.change_rate)
        self._twisting = shared_twist.learned(
            twisting, run, path, whole.num_sequences, self._num_steps
        )
        self._num_steps += 1
        if counts is not None:
            past = self._path_counts if minibatch and not fresh else {}
            self._estimate(counts[0], counts[1], past)
        return losses[0]

    @sharded.together("StochasticEM.warm_start")
    @poutine.block()
    def warm_start(
        self,
        *args: Any,
        num_steps: int = 50,
        transition_steps: int = 100,
        batches: Sequence[Sequence[Any]] | None = None,
        **kwargs: Any,
    ) -> MarkovEM:
        r"""Start from the exact Markov fit, away from the symmetric plateau.

        Fits the HMM that the model is with a Markov chain as transition, takes over its Dirichlet
        sites and expected counts, and trains the transition on fresh draws of its paths.

        :param int num_steps: EM iterations of the HMM.
        :param int transition_steps: gradient steps of the transition.
        :param batches: see :meth:`MarkovEM.epoch`; one is in memory at a time.
        :returns: the fitted :class:`MarkovEM`, which is also a baseline.
        """
        check_steps("warm_start", num_steps, transition_steps)
        hmm = MarkovEM(self._model, dirichlet=self._globals.kind, free=self._globals.points)
        for _ in range(num_steps):
            hmm.epoch([()] if batches is None else batches, *args, **kwargs)
        self.start_from(hmm, *args, transition_steps=transition_steps, batches=batches, **kwargs)
        return hmm

    @sharded.together("StochasticEM.start_from")
    @poutine.block()
    def start_from(
        self,
        hmm: MarkovEM,
        *args: Any,
        transition_steps: int = 100,
        batches: Sequence[Sequence[Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Start from a fitted HMM of the same model; see :meth:`warm_start`."""
        programs = list(programs_of(self._model, args, kwargs, batches))
        first, _ = self._read(programs[0], hmm.values)
        rest = (program.run(hmm.values) for program in programs[1:])
        given, paths = all_sequences(chain([first], rest)), partial(draw_all, hmm, programs)
        self._globals.values, self._globals.counts = dict(hmm.values), dict(hmm.counts)
        self._current, self._memory, counts = dict(hmm.values), self._memory.anew(), Counts()
        with undone_on_error(first.transition.parameters(), self.optim):
            teach_transition(first.transition, paths, transition_steps, self.optim, **given)
            for program in programs:
                run = program.run(hmm.values)
                path = run.flatten(hmm.sample_paths(*program.args, **program.kwargs))
                counts = self._keep(run, path, counts)
            counts = sharded.sum_counts(counts)
        self._path_counts, self._num_steps = counts, 0

    def _keep(self, run: ModelRun, path: Tensor, counts: Counts) -> Counts:
        """Keep paths of sequences that have none; return ``counts`` and those of the paths."""
        change = self._count(run, path)[1] if self._globals else {}
        self._memory.store(run, path)
        N, n = run.full_shape.numel(), self._num_steps
        self._twisting = shared_twist.learned(self._twisting, run, path, N, n)
        return {name: counts.get(name, 0.0) + n for name, n in change.items()}

    def _read(
        self, program: Program, values: dict[str, Tensor] | None = None
    ) -> tuple[ModelRun, Emission]:
        """Run the model for the E-step; the first time, check it and take its start values.

        :param values: of the Dirichlet sites, for a start; then the run is checked in any case.
        """
        first = not self._memory or values is not None
        with torch.no_grad():
            with sharded.current().shared(first):
                run = program.run(self._current if values is None else values)
            self._named = tuple(run.params)
            if first:
                check_sweep_fits("StochasticEM", run, self.settings.num_particles, learns=True)
            emission = read_emission(run, verify=is_validation_enabled() and first)
            if not first:
                self._globals.find(run)
                return run, emission
            if is_validation_enabled():
                check_transition_learns(run)
            if self._globals.check(run):
                return self._read(program, values)
            if values is None:
                for name in self._globals.sites:
                    self._current.setdefault(name, run.sites[name]["value"])
                    self._globals.values.setdefault(name, self._current[name])
        return run, emission

    def _twist(self, run: ModelRun, emission: Emission) -> Twisting:
        """Choose the twist anew after 0, 1, 2, 4, 8 steps, and then every :data:`REFIT_EVERY`."""
        n = self._num_steps
        if n % REFIT_EVERY and n & (n - 1):
            return self._twisting
        return shared_twist.chosen(self._twisting, run, emission, self.settings.num_particles)

    def _ascend(self, program: Program, values: dict[str, Tensor], path: Tensor) -> float:
        """One gradient step on all parameters, paths and Dirichlet sites given."""
        tell, self._told = is_validation_enabled() and not self._told, True
        return gradient_step(program, values, path, self.optim, tell=tell)

    def _estimate(self, elsewhere: Counts, change: Counts, past: Counts) -> None:
        """Closed-form estimates of the Dirichlet sites from counts over all sequences seen."""
        self._path_counts = {name: past.get(name, 0.0) + n for name, n in change.items()}
        # Scaled to all sequences while some were not met yet.
        share = sharded.known_share(self._memory)
        now = {name: n / share + elsewhere[name] for name, n in self._path_counts.items()}
        self._globals.estimate(now)
        with sharded.current().shared():
            self._current = self._globals.draw(now) if self.draw_dirichlet else self.values

    def _count(
        self, run: ModelRun, path: Tensor, old: Tensor | None = None, known: Any = False
    ) -> list[Counts]:
        """Counts outside the loop, and those of ``path`` less those of known sequences' ``old``."""
        once = self._memory.last_of_each(run)

        def objective(probe: ModelRun) -> tuple[Tensor, Tensor]:
            change = self._globals.log_path(probe, path)
            if old is not None and bool(known.any()):
                change = change - torch.where(known, self._globals.log_path(probe, old), 0.0)
            return probe.log_elsewhere(observed=True), torch.where(once, change, 0.0).sum()

        return self._globals.statistics(run, objective)
