r"""Filtering as observations come: a state, and what the next steps make of it.

The model is run on the new steps alone, and what it says of a step must not depend on the steps
beside it in a call. Then filtering in parts is the filter on all data, with the same draws.

Read ``smc/filtering.py`` first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..reading.context import all_or_nothing
from ..reading.paths import future_inputs as joined_future
from ..reading.program import ModelRun
from ..reading.steps_apart import check_steps_apart
from ..smc import Emission
from ..smc.randomness import fresh_seed
from ..smc.roll_out import even
from .estep import SMCSettings, filter_paths, places
from .filter_mixture import Forecast, mean_exp, mixed_forecast
from .filter_state import FilterState, Track, leaves_of
from .forecasting import check_forecast, forecast

__all__ = ["FiltersOnline"]


class FiltersOnline:
    """What a :class:`~pyro_ssl.ParticleFilter` does with observations as they come."""

    model: Callable[..., Any]
    settings: SMCSettings
    seed: int | None
    _mixture: Sequence[Any]
    _run: Callable[..., ModelRun]
    _emission: Callable[..., Emission]

    @all_or_nothing
    @torch.no_grad()
    def start(self, *args: Any, **kwargs: Any) -> FilterState:
        """Filter the first steps of a stream, and return where the filter stands.

        :param args: of the model, as ``kwargs`` are: the first steps of the data, one at least.
        :returns: :class:`~pyro_ssl.infer.FilterState`.
        :raises EmissionNotLocalError: if what the model says of a step changes with the steps that
            are given beside it, or with how many came before.
        """
        return self._go_on(None, args, kwargs)

    @all_or_nothing
    @torch.no_grad()
    def update(self, state: FilterState, *args: Any, **kwargs: Any) -> FilterState:
        """Filter the next steps, and return where the filter stands then.

        With the same seed the draws are those of :meth:`log_likelihood` on all data at once,
        whatever the parts; without one, of the seed that :meth:`start` drew. Memory and time are
        those of the new steps. ``t`` is counted within these, so that data are written ``x[t]``
        with the new steps as ``x``, as are all else that differs from step to step: inputs, hours,
        the observation before. What was not observed is masked in the loop.

        :param FilterState state: what :meth:`start` or :meth:`update` returned; it stays as it is.
        :param args: of the model, as ``kwargs`` are: the new steps, in as many sequences.
        :returns: :class:`~pyro_ssl.infer.FilterState`.
        :raises TypeError: if the state is none.
        :raises ValueError: if the steps are of other sequences, or the state of another filter.
        :raises SMCFailed: if all particles of a sequence die; the state before is as it was.

        Example::

            >>> import pyro, pyro.distributions as dist
            >>> from pyro_ssl import LSTMTransition, ParticleFilter, ssl_transition
            >>> transition, loc = LSTMTransition(3, 8), torch.tensor([-1.0, 0.0, 1.0])
            >>> def model(x):
            ...     with pyro.plate("series", x.shape[1]):
            ...         for t, z in ssl_transition("z", transition, len(x)):
            ...             pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x[t])
            >>> x, pf = torch.randn(9, 4), ParticleFilter(model, 20, seed=0)
            >>> state = pf.start(x[:3])
            >>> for t in range(3, 9):
            ...     state = pf.update(state, x[t : t + 1])
            >>> bool(state.log_likelihood.equal(pf.log_likelihood(x)[-1:]))
            True
        """
        _check_state("update", state)
        return self._go_on(state, args, kwargs)

    @all_or_nothing
    @torch.no_grad()
    def forecast_from(
        self,
        state: FilterState,
        *args: Any,
        horizon: int = 0,
        future_inputs: Any = None,
        **kwargs: Any,
    ) -> Forecast:
        """Return the distribution of the steps after those that a state has seen.

        :param args: of the model, as ``kwargs`` are, with steps after the state's: values to be
            scored, each given x_{1:t} alone; the state does not learn from them. Where only paths
            and states are asked for, any values will do.
        :param int horizon: how many steps to go on beyond these.
        :param Tensor future_inputs: exogenous inputs of those, as for :meth:`forecast`.
        :returns: :class:`Forecast`; its ``log_prob`` is of the steps in ``args``.
        :raises TypeError: if the state is none.
        :raises ValueError: if there is no step to forecast, or steps, state or inputs do not fit.
        """
        _check_state("forecast_from", state)
        each = []
        for i, one in enumerate(self._mixture or [self]):
            run = one._run(args, kwargs)
            state.check(run, one._about(run, len(state.tracks)), places(run))
            future = joined_future(run.loop, future_inputs)
            how: dict[str, Any] = {"start": 0, "horizon": horizon}
            how["inputs"] = check_forecast(run, 0, horizon, future)
            track = state.tracks[i]
            emission = one._emission(run, expanded=track.expanded)
            standing = even(track.standing(run.transition))
            found = forecast(run, emission, standing, one.settings.num_particles, **how)
            each.append((found, track.log_evidence))
        if not self._mixture:
            return each[0][0]
        shape = state.batch_shape
        return mixed_forecast([(found, log_p.reshape(shape)) for found, log_p in each])

    def _go_on(
        self, state: FilterState | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> FilterState:
        tracks, steps = [], []
        filters = self._mixture or [self]
        for i, one in enumerate(filters):
            run = one._run(args, kwargs)
            about, sequences = one._about(run, len(filters)), places(run)
            if state is not None:
                state.check(run, about, sequences)
            elif is_validation_enabled():
                check_steps_apart(run)
            before = None if state is None else state.tracks[i]
            track, log_p = one._next(run, before, 0 if state is None else state.num_steps)
            tracks.append(track)
            steps.append(log_p)
        shape, T = run.loop.batch_shape, run.loop.num_steps
        lengths, seen = run.grid.lengths, 0 if state is None else state.num_steps
        ended = torch.zeros_like(sequences, dtype=torch.bool) if state is None else state.ended
        evidence, log_p = tracks[0].log_evidence, steps[0]
        if self._mixture:
            evidence, log_p = _mixed(tracks, steps, state)
        return FilterState(
            num_steps=seen + T,
            batch_shape=shape,
            sequences=sequences,
            ended=ended if lengths is None else ended | (lengths < T),
            tracks=tuple(tracks),
            log_evidence=evidence.reshape(shape),
            log_likelihood=log_p.reshape((-1,) + shape),
            about=about,
        )

    def _next(self, run: ModelRun, before: Track | None, first_step: int) -> tuple[Track, Tensor]:
        """Filter the steps of a run; return where it stands, and their log p̂, ``(S, B)``."""
        emission = self._emission(run, expanded=before is not None and before.expanded)
        if before is None:
            seed = fresh_seed() if self.seed is None else self.seed
            like: dict[str, Any] = {"dtype": torch.float64, "device": run.loop.device}
            standing, so_far = None, torch.zeros(run.num_sequences, **like)
        else:
            seed, standing = before.seed, before.standing(run.transition)
            so_far = before.log_evidence
        settings = replace(self.settings, seed=seed)
        found = filter_paths(run, emission, settings, start=standing, first_step=first_step)
        z, state, weights = found.standing
        # One step after the other, so that the sum does not depend on the parts.
        evidence = torch.cat([so_far.unsqueeze(0), found.log_likelihood]).cumsum(0)[-1]
        expanded = not run.is_discrete and not emission.can_be_split
        assert z is not None
        return Track(seed, z, leaves_of(state), weights, evidence, expanded), found.log_likelihood

    def _about(self, run: ModelRun, num_filters: int) -> dict[str, Any]:
        """What a state has to be of."""
        return {
            "num_particles": self.settings.num_particles,
            "resampling": self.settings.resampling,
            "posterior samples": num_filters if num_filters > 1 else 0,
            "transition": type(run.transition).__name__,
        }


def _mixed(
    tracks: Sequence[Track], steps: Sequence[Tensor], before: FilterState | None
) -> tuple[Tensor, Tensor]:
    """log p̂ of all steps so far, ``(B,)``, and of the new ones, averaged over posterior samples."""
    if before is None:
        so_far = [torch.zeros_like(track.log_evidence) for track in tracks]
    else:
        so_far = [track.log_evidence for track in before.tracks]
    pairs = zip(so_far, steps, strict=True)
    each = [torch.cat([log_p.unsqueeze(0), more]).cumsum(0) for log_p, more in pairs]
    total = mean_exp(torch.stack(each))
    if before is None:
        total[0] = 0.0
    return total[-1], total.diff(dim=0)


def _check_state(method: str, state: Any) -> None:
    if not isinstance(state, FilterState):
        raise TypeError(
            f"ParticleFilter.{method}: state is a {type(state).__name__}, expected where the "
            f"filter stands; write state = pf.start(x), then pf.{method}(state, more)."
        )
