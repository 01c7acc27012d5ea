r"""Scores and forecasts by unconditional SMC.

In the fully adapted order p̂(x_t | x_{1:t-1}) = mean_p α_t^p, and the product over t is unbiased for
p(x_{1:T}). Its logarithm lies below log p(x) on average, by about half its variance, which vanishes
as P grows: perplexities are, if anything, too high.

A twist (``smc/twist.py``) takes most of that variance away, but its particles know the future: only
the evidence of whole sequences means anything then. So a continuation is scored by two runs,
log p̂(x_{s+1:T} | x_{1:s}) = log Ẑ(x_{1:T}) - log Ẑ(x_{1:s}), of which the second ends at s; and
one-step-ahead figures come from a filter that is not twisted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..arguments import at_least
from ..reading.checks import require_no_latents
from ..reading.context import all_or_nothing
from ..reading.emission import read_emission
from ..reading.paths import future_inputs as joined_future
from ..reading.program import ModelRun, Program
from ..smc import Emission, Filtered, Sweep
from .blocks import Batches, programs_of
from .estep import SMCSettings, draw_paths, filter_paths
from .filter_mixture import Evidence, Forecast, conditioned, mean_exp, mixed_forecast, mixed_steps
from .forecasting import check_forecast, forecast
from .memory import check_sweep_fits
from .online import FiltersOnline
from .scores import scored_cells
from .sharded import current, together, with_shared_seed
from .twisting import Twisting

__all__ = ["Evidence", "Forecast", "ParticleFilter"]


class ParticleFilter(FiltersOnline):
    r"""Unconditional SMC on a model whose parameters are known.

    :param model: a Pyro model with one ``ssl_transition``; give its other latent sites by
        ``pyro.condition(model, values)`` (as ``StochasticEM.fitted_model`` does), or by draws.
    :param int num_particles: P.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param twist: lets the particles of :meth:`log_evidence`, :meth:`evidence`, :meth:`perplexity`
        and :meth:`forecast` look ahead; see :class:`ParticleGibbs`.
    :param int seed: of the sweeps' random numbers, from 0 to 2⁶² - 1; by default they come from
        torch's generator. With one, what is said of a sequence depends on its place in the plates
        and not on the batch around it: data may come in batches of any size.
    :param posterior_samples: draws of the other latent sites, by name, a leading S, as
        ``ParticleGibbs.get_samples`` gives them, paths left out. What is said of a sequence is then
        averaged over them (``filter_mixture.py``).
    :param bool store_history: keep particles and ancestors of all steps while a sweep runs, as
        :meth:`sweep` returns them. Without them memory for particles does not grow with T, and all
        scores are the same, to the last bit.

    Observations that come one after the other are for :meth:`start` and :meth:`update`.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ParticleFilter, ssl_transition
        >>> transition, phi = LSTMTransition(3, 8), torch.ones(3, 6) / 6
        >>> def model(words):
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> words = torch.randint(6, (7, 4))
        >>> round(ParticleFilter(model, 20).perplexity(words), 3)
        6.0
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int,
        *,
        resampling: str = "systematic",
        twist: Any = "markov",
        seed: int | None = None,
        posterior_samples: Mapping[str, Tensor] | None = None,
        store_history: bool = True,
    ) -> None:
        if not isinstance(store_history, bool):
            raise TypeError(
                f"ParticleFilter: store_history is {store_history!r}, expected True or False; "
                "write store_history=False."
            )
        self.model, self.seed = model, seed
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling=0, seed=seed)
        self._twisting = Twisting(twist)
        self._verified = False
        self.store_history = store_history
        how: Any = {"resampling": resampling, "twist": twist, "seed": seed}
        how["store_history"] = store_history
        self._mixture = [
            ParticleFilter(given, num_particles, **how)
            for given in conditioned(model, posterior_samples)
        ]

    def log_likelihood(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log p̂(x_t | x_{1:t-1}), float64 ``(T,) + batch_shape``; 0 past the lengths.

        Not twisted: each step's particles know the observations before it, and no others.
        """
        if self._mixture:
            return mixed_steps([f.log_likelihood(*args, **kwargs) for f in self._mixture])
        run, sweep = self._filter(args, kwargs)
        return sweep.log_likelihood.reshape((-1,) + run.loop.batch_shape)

    def sweep(self, *args: Any, **kwargs: Any) -> Sweep:
        """Return the sweep itself, not twisted: particles, ancestors, and the cell's last state.

        Of several chains: of their ``ProductTransition``, whose ``split`` gives each one's states.

        :raises ValueError: if there are posterior samples, or no history is kept.
        """
        if not self.store_history:
            raise ValueError(
                "ParticleFilter.sweep: the filter keeps no history, expected one that does: a "
                "sweep is the particles and ancestors of all steps, from which paths are traced. "
                "Write ParticleFilter(model, num_particles) for it, or pf.start(x) for where the "
                "particles stand at the end."
            )
        if self._mixture:
            raise ValueError(
                f"ParticleFilter.sweep: found {len(self._mixture)} posterior samples, expected "
                "none; write pyro.condition(model, draw) with one of them."
            )
        return self._filter(args, kwargs)[1]

    def log_evidence(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log Ẑ of each sequence, float64 ``batch_shape``; Ẑ is unbiased for p(x)."""
        return self._runs(args, kwargs, 1)[0]

    def evidence(self, *args: Any, num_runs: int = 5, **kwargs: Any) -> Evidence:
        """Return log of the mean of Ẑ over ``num_runs``, at least 2, with its standard error."""
        if not at_least(2, num_runs):
            raise ValueError(f"num_runs is {num_runs}, expected at least 2; or use log_evidence.")
        log_z = self._runs(args, kwargs, num_runs)
        mean = log_z.logsumexp(0) - math.log(num_runs)
        return Evidence(mean, (log_z - mean).exp().std(0) / math.sqrt(num_runs))

    def spread(self, *args: Any, num_runs: int = 5, **kwargs: Any) -> float:
        """Return the standard deviation of log Ẑ of a sequence: the root mean square over them.

        :param int num_runs: from which it is taken, at least 2.
        """
        if not at_least(2, num_runs):
            raise ValueError(f"num_runs is {num_runs}, expected at least 2.")
        return float(self._runs(args, kwargs, num_runs).var(0).mean().sqrt())

    @together("ParticleFilter.perplexity")
    def perplexity(
        self, *args: Any, start: int = 0, batches: Batches = None, **kwargs: Any
    ) -> float:
        """Return exp(-log p̂(x_{s+1:T} | x_{1:s}) / n), n the number of observed cells after s.

        :param int start: s; the first so many steps of every sequence are only conditioned on.
        :param batches: see :meth:`MarkovEM.epoch`; one is in memory at a time.
        :raises ValueError: if nothing is left to score.
        """
        total, num_cells, filters = 0.0, 0, [*map(with_shared_seed, self._mixture or [self])]
        for program in programs_of(self.model, args, kwargs, batches):
            runs = [f._run(program.args, kwargs) for f in filters]
            cells = scored_cells(runs[0], start, at_least_one=batches is None)
            each = [f._log_p(run, start) for f, run in zip(filters, runs, strict=True)]
            whole, before = (mean_exp(torch.stack(log_p)) for log_p in zip(*each, strict=True))
            total += float((whole - before)[cells.any(0)].sum())
            num_cells += int(cells.sum())
        total, num_cells = current().totals("scores", total, num_cells)
        if not num_cells:
            scored_cells(runs[0], start)  # says so
        return math.exp(-total / num_cells)

    @torch.no_grad()
    def _log_p(self, run: ModelRun, start: int) -> tuple[Tensor, Tensor]:
        """log Ẑ of whole sequences, and of their first steps, both ``(B,)``."""
        emission = self._emission(run)
        settings = self._twisted(run, emission)
        log_p = self._swept(run, emission, settings).log_likelihood
        if settings.surrogate is None or not start:
            return log_p.sum(0), log_p[:start].sum(0)
        before = emission.split(start)[0]
        sweep = self._swept(run, before, self._seeded(settings, 1))
        return log_p.sum(0), sweep.log_likelihood.sum(0)

    @all_or_nothing
    def forecast(
        self,
        *args: Any,
        start: int | None = None,
        horizon: int = 0,
        future_inputs: Any = None,
        **kwargs: Any,
    ) -> Forecast:
        """Return the distribution of all steps after the first ``start``, given those.

        Particles that filtered x_{1:start} are rolled out; later observations are only scored.

        :param int start: s, from 0 to T; by default T, the end of the data.
        :param int horizon: how many steps to go on beyond the data.
        :param Tensor future_inputs: exogenous inputs of these, ``(horizon, B, input_size)``; of
            several chains as the loop's.
        :returns: :class:`Forecast` of the T - s + horizon later steps.
        :raises TypeError: if latents are vectors whose emission is not linear-Gaussian.
        :raises ValueError: if there is no later step, or the inputs do not fit.
        """
        filters = self._mixture or [self]
        each = [f._forecast(f._run(args, kwargs), start, horizon, future_inputs) for f in filters]
        return each[0][0] if not self._mixture else mixed_forecast(each)

    @torch.no_grad()
    def _forecast(
        self, run: ModelRun, start: int | None, horizon: int, future_inputs: Tensor | None
    ) -> tuple[Forecast, Tensor]:
        """One under known parameters, and log Ẑ(x_{1:s}) of each sequence, ``batch_shape``."""
        T = run.loop.num_steps
        start = T if start is None else start
        inputs = check_forecast(run, start, horizon, joined_future(run.loop, future_inputs))
        before, after = self._emission(run).split(start)
        settings = self._twisted(run, before) if start else self.settings
        found = filter_paths(run, before, settings)
        evidence = found.log_likelihood.sum(0).reshape(run.loop.batch_shape)
        how: dict[str, Any] = {"start": start, "horizon": horizon, "inputs": inputs}
        P = self.settings.num_particles
        return forecast(run, after, found.standing, P, **how), evidence

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelRun:
        with torch.no_grad(), poutine.block():
            run = Program(self.model, args, kwargs).run()
        require_no_latents(run, "ParticleFilter scores data under known parameters")
        return run

    def _emission(self, run: ModelRun, expanded: bool = False) -> Emission:
        """The emission of a run, the first one verified."""
        P = self.settings.num_particles
        check_sweep_fits("ParticleFilter", run, P, history=self.store_history)
        verify = is_validation_enabled() and not self._verified
        emission = read_emission(run, verify=verify, expanded=expanded)
        self._verified = True
        return emission

    def _twisted(self, run: ModelRun, emission: Emission) -> SMCSettings:
        P = self.settings.num_particles
        self._twisting = self._twisting.chosen(run, emission, P, for_scores=True)
        return self._twisting.settings(self.settings)

    def _seeded(self, settings: SMCSettings, run: int) -> SMCSettings:
        """Settings of one of several runs, each with random numbers of its own."""
        return settings if self.seed is None else replace(settings, seed=self.seed + run)

    @all_or_nothing
    @torch.no_grad()
    def _runs(self, args: tuple[Any, ...], kwargs: dict[str, Any], num_runs: int) -> Tensor:
        """log Ẑ of several runs, ``(num_runs,) + batch_shape``."""
        if self._mixture:
            return mean_exp(torch.stack([f._runs(args, kwargs, num_runs) for f in self._mixture]))
        run = self._run(args, kwargs)
        emission = self._emission(run)
        settings = self._twisted(run, emission)
        each = [
            self._swept(run, emission, self._seeded(settings, i)).log_likelihood
            for i in range(num_runs)
        ]
        return torch.stack(each).sum(1).reshape((-1,) + run.loop.batch_shape)

    @all_or_nothing
    @torch.no_grad()
    def _filter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ModelRun, Any]:
        run = self._run(args, kwargs)
        return run, self._swept(run, self._emission(run), self.settings)

    def _swept(self, run: ModelRun, emission: Emission, settings: SMCSettings) -> Sweep | Filtered:
        if self.store_history:
            return draw_paths(run, emission, None, settings)[0]
        return filter_paths(run, emission, settings)
