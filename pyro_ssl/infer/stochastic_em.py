r"""Stochastic EM: learning with paths drawn from their joint posterior.

Zheng et al. 2017 (arXiv 1711.11179, eqs. 5-8): the E-step draws z ~ p(z | x; ω, φ) by one or more
sweeps of conditional SMC from the last paths; the M-step raises log p(z; ω) + log p(x | z; φ), for
Dirichlet sites in closed form and for all else by a gradient step.

With ``conditional=False`` the E-step is unconditional SMC, which has no memory of the last paths
and is biased at finite P: at P=1 it is the left-to-right E-step of Latent LSTM Allocation (Zaheer,
Ahmed & Smola 2017), which ignores what later observations say of earlier latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Dirichlet
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..errors import NonFiniteError
from ..reading.checks import check_transition_learns, latent_dirichlets
from ..reading.program import Emission, ModelRun, run_model
from .dirichlet import (
    Counts,
    dirichlet_counts,
    dirichlet_point,
    draw_dirichlet,
    reaches_transition,
)
from .estep import SMCSettings, draw_paths, read_emission
from .markov_em import MarkovEM
from .path_memory import PathMemory

__all__ = ["StochasticEM"]


class StochasticEM:
    r"""Fit an SSL by stochastic EM: the counterpart of Pyro's ``SVI``.

    :param model: a Pyro model with one ``ssl_transition``. Besides its path, only Dirichlet sites
        may be latent; their point estimates are in :attr:`values`.
    :param optim: a Pyro optimiser for ``pyro.param`` and module parameters.
    :param int num_particles: P.
    :param bool conditional: draw from the exact posterior by conditional SMC, from the last path;
        ``False``: unconditional SMC, biased (P=1: the LLA baseline).
    :param int num_sweeps: sweeps per step, each from the last one's path.
    :param int num_gradient_steps: gradient steps per step, on the paths that the sweeps drew.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param int ancestor_sampling: redraw the reference's ancestor every so many steps; 0: never.
    :param str dirichlet: point estimate of a Dirichlet site from its counts: ``"mode"`` (MAP; with
        a flat prior the MLE) or ``"mean"`` of its posterior.
    :param float averaging: weight, in [0, 1), of the past in the counts that the estimates come
        from: n ← averaging · n + (1 - averaging) · n_now (Delyon, Lavielle & Moulines 1999,
        "Convergence of a stochastic approximation version of the EM algorithm").
    :param bool draw_dirichlet: let the E-step see a *draw* of each Dirichlet site from its
        posterior given the last paths, in place of the point estimate. Paths and sites then form
        a particle Gibbs chain, and only the other parameters are estimated by EM. Point estimates
        let the paths, and the transition that learns from them, settle on one explanation of a
        small corpus; draws keep both moving.

    Paths are kept per sequence, by the indices of the plates around the loop: with
    ``pyro.plate("documents", N, subsample=index)`` each minibatch goes on from its own. Dirichlet
    counts are then kept over all sequences seen, the minibatch's old ones replaced by its new ones
    (Neal & Hinton 1998).

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
        ancestor_sampling: int = 10,
        dirichlet: str = "mode",
        averaging: float = 0.0,
        draw_dirichlet: bool = False,
    ) -> None:
        if dirichlet not in ("mode", "mean"):
            raise ValueError(f'dirichlet is "{dirichlet}", expected "mode" or "mean".')
        if not 0.0 <= averaging < 1.0:
            raise ValueError(f"averaging is {averaging}, expected a weight in [0, 1).")
        if num_sweeps < 1 or num_gradient_steps < 1:
            raise ValueError(
                f"num_sweeps is {num_sweeps} and num_gradient_steps {num_gradient_steps}, expected "
                "at least 1 of each."
            )
        self.model, self.optim = model, optim
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling)
        self.conditional, self.num_sweeps = conditional, num_sweeps
        self.num_gradient_steps = num_gradient_steps
        self.dirichlet, self.averaging = dirichlet, averaging
        self.draw_dirichlet = draw_dirichlet
        #: point estimates of the Dirichlet sites
        self.values: dict[str, Tensor] = {}
        self._current: dict[str, Tensor] = {}  # what the E-step sees: the estimates, or draws
        #: share of latents that the last step changed, over the sequences seen before
        self.change_rate: float = float("nan")
        self._memory = PathMemory()
        self._counts: Counts = {}  # what the estimates come from
        self._path_counts: Counts = {}  # of the paths in memory
        self._in_transition: bool | None = None  # whether the transition has Dirichlet parameters

    @property
    def fitted_model(self) -> Callable[..., Any]:
        """The model with its Dirichlet sites given: what ``ParticleFilter`` takes."""
        return poutine.condition(self.model, data=dict(self.values))

    @poutine.block()
    def step(self, *args: Any, **kwargs: Any) -> float:
        r"""One E-step and one M-step; arguments go to the model.

        :returns: -log p(z, x) of the drawn paths under the parameters before the M-step, scaled to
            the full data where a plate is subsampled.
        """
        run, emission, dirichlets = self._read(args, kwargs)
        old, known = self._memory.recall(run)
        fresh = not self._memory
        path = self._draw(run, emission, old, known)
        given = {**run.subsamples, **self._current}
        loss = self._ascend(args, kwargs, given, path)
        for _ in range(self.num_gradient_steps - 1):
            self._ascend(args, kwargs, given, path)
        if bool(known.any()):
            seen = run.grid.observed() & known
            moved = (path != old).reshape(*seen.shape, -1).any(-1)
            self.change_rate = float((moved & seen).sum() / seen.sum().clamp(min=1))
        self._memory.store(run, path)
        if dirichlets:
            if fresh:
                self._path_counts = {}
            self._estimate(args, kwargs, run, dirichlets, path, old, known)
        return loss

    @poutine.block()
    def warm_start(
        self, *args: Any, num_steps: int = 50, transition_steps: int = 100, **kwargs: Any
    ) -> MarkovEM:
        r"""Start from the exact Markov fit, away from the symmetric plateau.

        Fits the HMM that the model is with a Markov chain as transition, takes over its Dirichlet
        sites and their expected counts (which ``averaging`` goes on from), and trains the
        transition on fresh draws of its paths.

        :param int num_steps: EM iterations of the HMM.
        :param int transition_steps: gradient steps of the transition.
        :returns: the fitted :class:`MarkovEM`, which is also a baseline.
        """
        hmm = MarkovEM(self.model, dirichlet=self.dirichlet)
        for _ in range(num_steps):
            hmm.step(*args, **kwargs)
        self.start_from(hmm, *args, transition_steps=transition_steps, **kwargs)
        return hmm

    @poutine.block()
    def start_from(
        self, hmm: MarkovEM, *args: Any, transition_steps: int = 100, **kwargs: Any
    ) -> None:
        """Start from a fitted HMM of the same model; see :meth:`warm_start`."""
        with torch.no_grad():
            run = run_model(self.model, args, kwargs, hmm.values)
        if run.subsample_factor != 1.0:
            raise ValueError(
                f'Site "{run.loop.name}": a warm start takes all sequences at once, but a plate '
                "around the loop is subsampled; write em.warm_start on a model and data of one "
                "subset, without subsample, then go on with minibatches."
            )
        self.values, self._current = dict(hmm.values), dict(hmm.values)
        self._counts, self._memory = dict(hmm.counts), PathMemory()
        dirichlets = self._read(args, kwargs)[2]
        for _ in range(transition_steps):
            path = run.flatten(hmm.sample_paths(*args, **kwargs))
            self._ascend(args, kwargs, self._current, path)
        path = run.flatten(hmm.sample_paths(*args, **kwargs))
        self._memory.store(run, path)
        if dirichlets:
            self._in_transition = reaches_transition(self.model, args, kwargs, dirichlets)
            verify = is_validation_enabled()
            none = torch.zeros(run.num_sequences, dtype=torch.bool, device=path.device)
            self._path_counts = self._count(
                args, kwargs, run, dirichlets, path, path, none, verify=verify
            )[1]

    @property
    def counts(self) -> Counts:
        """The Dirichlet sites' counts in the drawn paths, averaged over steps if asked."""
        return dict(self._counts)

    @property
    def paths(self) -> Tensor:
        """The last path of every sequence, int64, full batch shape ``+ (T,)``."""
        return self._memory.paths

    def _read(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ModelRun, Emission, dict[str, Dirichlet]]:
        """Run the model for the E-step; the first time, check it and draw start values."""
        with torch.no_grad():
            run = run_model(self.model, args, kwargs, self._current)
            dirichlets = latent_dirichlets(run, purpose="StochasticEM")
            verify = is_validation_enabled() and not self._memory
            emission = read_emission(run, verify=verify)
            if not self._memory:
                if verify:
                    check_transition_learns(run)
                for name in dirichlets:
                    self._current.setdefault(name, run.sites[name]["value"])
                    self.values.setdefault(name, self._current[name])
        return run, emission, dirichlets

    def _draw(self, run: ModelRun, emission: Emission, old: Tensor, known: Tensor) -> Tensor:
        """The E-step: a path for each sequence, ``(T, B, ...)``."""
        if not self.conditional:
            return draw_paths(run, emission, None, self.settings)[1]
        path = old
        if not bool(known.all()):  # sequences not met before start unconditionally
            fresh = draw_paths(run, emission, None, self.settings)[1]
            path = torch.where(_like_path(known, old), old, fresh)
        for _ in range(self.num_sweeps):
            path = draw_paths(run, emission, path, self.settings, on_failure="keep")[1]
        return path

    def _ascend(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        values: dict[str, Tensor],
        path: Tensor,
    ) -> float:
        """One gradient step on all parameters, paths and Dirichlet sites given."""
        with torch.enable_grad():
            run = run_model(self.model, args, kwargs, values)
            log_p = (run.log_transition(path) + run.log_emission(path)).sum()
            loss = -(log_p * run.subsample_factor + run.log_elsewhere())
        parameters = {site["value"].unconstrained() for site in run.params.values()}
        if not bool(loss.isfinite()):
            raise NonFiniteError(
                f'Site "{run.loop.name}": log p(z, x) of the drawn paths is {-loss.item()}, '
                "expected a finite number; check parameters and data for NaN. Nothing was updated."
            )
        if parameters and loss.requires_grad:
            loss.backward()
            self.optim([p for p in parameters if p.grad is not None])
            for parameter in parameters:
                parameter.grad = None
        return float(loss.detach())

    def _estimate(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: ModelRun,
        dirichlets: dict[str, Dirichlet],
        path: Tensor,
        old: Tensor,
        known: Tensor,
    ) -> None:
        """Closed-form estimates of the Dirichlet sites from counts over all sequences seen."""
        first = self._in_transition is None
        if self._in_transition is None:
            self._in_transition = reaches_transition(self.model, args, kwargs, dirichlets)
        minibatch = run.subsample_factor != 1.0
        if not minibatch:
            known = torch.zeros_like(known)  # all sequences are here: count them anew
        elsewhere, change = self._count(
            args,
            kwargs,
            run,
            dirichlets,
            path,
            old,
            known,
            verify=first and is_validation_enabled(),
        )
        # Scaled to all sequences while some were not met yet.
        share = self._memory.num_known / self._memory.num_sequences
        for name, fn in dirichlets.items():
            past = self._path_counts.get(name) if minibatch else None
            self._path_counts[name] = change[name] if past is None else past + change[name]
            now = average = self._path_counts[name] / share + elsewhere[name]
            if name in self._counts:
                average = self.averaging * self._counts[name] + (1.0 - self.averaging) * now
            self._counts[name] = average
            self.values[name] = dirichlet_point(fn, average, self.dirichlet)
            self._current[name] = (
                draw_dirichlet(fn, now) if self.draw_dirichlet else self.values[name]
            )

    def _count(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: ModelRun,
        dirichlets: dict[str, Dirichlet],
        path: Tensor,
        old: Tensor,
        known: Tensor,
        verify: bool = False,
    ) -> tuple[Counts, Counts]:
        """Counts outside the loop, and those of ``path`` less those of known sequences' ``old``."""

        def in_loop(probe: ModelRun, z: Tensor) -> Tensor:
            log_p = probe.log_emission(z)
            return log_p + probe.log_transition(z) if self._in_transition else log_p

        def objective(probe: ModelRun) -> tuple[Tensor, Tensor]:
            change = in_loop(probe, path)
            if bool(known.any()):
                change = change - torch.where(known, in_loop(probe, old), 0.0)
            elsewhere = probe.log_elsewhere(only_observed=True)
            return (
                torch.as_tensor(elsewhere, device=change.device, dtype=change.dtype),
                change.sum(),
            )

        elsewhere, change = dirichlet_counts(
            self.model, args, kwargs, run.subsamples, dirichlets, objective, verify=verify
        )
        return elsewhere, change


def _like_path(flag: Tensor, path: Tensor) -> Tensor:
    """Lay a flag per sequence ``(B,)`` out to broadcast against a path ``(T, B, ...)``."""
    return flag.reshape(-1, *(1 for _ in path.shape[2:]))
