"""Forecasts of a fitted Gaussian SSL: its particles rolled on, under the weights of several epochs.

Next file to read: ``gaussian_outputs.py``, which scores them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..infer import ParticleFilter
from ..reading.context import private_store
from .gaussian_data import Series
from .gaussian_iterates import shares, weights_of, with_weights
from .gaussian_results import GaussianForecast
from .gaussian_tracking import Tracker
from .settings import checked

__all__ = ["Forecaster"]


class Forecaster(Tracker):
    """A tracker that goes on after the data."""

    @checked
    @torch.no_grad()
    def forecast(
        self,
        x: Tensor,
        horizon: int,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
        num_particles: int = 1000,
    ) -> GaussianForecast:
        """Return the S steps after each series' end, a mixture over particles that are rolled out.

        Draws are of the model's emission: flags, counts or numbers.

        The particles go by the weights of several epochs of the fit, which were kept: by how these
        differ the forecast knows how unsure they are.

        :param int horizon: S.
        :param Tensor lengths: where each series ends, ``(B,)``; by default after T steps.
        :param Tensor inputs: those of the steps to come too, ``(T + S, B, U)``; a series uses those
            up to its length + S.
        """
        data = self._take("forecast", x, lengths, mask, inputs, horizon=horizon)
        ends = data.ends
        each: list[tuple[Tensor, GaussianForecast]] = []
        for end in ends.unique().tolist():  # those of one length together
            which = (ends == end).nonzero().squeeze(-1)
            past = data.select(which, end, horizon)._replace(lengths=None)
            each.append((which, self._forecast_from(past, end, horizon, num_particles)))
        labels = None if data.labels is None else data.labels.moved(ends.tolist(), horizon)
        return GaussianForecast.together(each, labels)

    def _forecast_from(
        self, past: Series, end: int, horizon: int, num_particles: int
    ) -> GaussianForecast:
        """Forecast from one step of all series; inputs are those of the steps to come too."""
        later = torch.nn.functional.pad
        x = later(past.x, (0, 0, 0, 0, 0, horizon), value=torch.nan)
        mask = past.mask
        if mask is not None:
            mask = later(mask, (0, 0) * (mask.dim() - 1) + (0, horizon))
        given = Series(x, None, mask, past.inputs).arguments
        own = weights_of(self.transition).unsqueeze(0)
        several = own if self.iterates is None else self.iterates
        paths = []
        for P, weights in zip(shares(num_particles, len(several)), several, strict=True):
            if P:
                with private_store(), with_weights(self.transition, weights):
                    paths.append(self._rolled_on(ParticleFilter(self.model, P), given, end))
        z = torch.cat(paths)  # (P, S, B, D)
        moved, offset = self._moved(z)
        zero = torch.zeros_like(offset)
        drawn = self.family.sample(moved, zero, self.emission.covariance)
        shift = self._shift_of_draws(drawn, offset, past)
        if shift is not None:
            moved, drawn = moved + shift, drawn + shift
        found = GaussianForecast.of_paths(moved, offset, drawn + offset, z)
        found.shift = shift
        if self.region is not None:
            found.outside = self.region.outside(z)
        return found

    def _shift_of_draws(self, draws: Tensor, offset: Tensor, past: Series | None) -> Tensor | None:
        """What draws ``(P, S, B, E)``, less b, that follow the data add to those after them."""
        lag = self.autoregression
        if lag is None:
            return None
        last = torch.zeros_like(draws[0, 0]) if past is None else lag.lags(past)[-1]
        return lag.shifts_of_draws(draws, offset, last)

    def _rolled_on(self, particles: ParticleFilter, given: tuple[Any, ...], end: int) -> Tensor:
        """Draws of z after the first steps, ``(P, S, B, D)``; none of the later x is there."""
        if self.family.gaussian:
            return particles.forecast(*given, start=end).paths.transpose(1, 2)
        # Where nothing is observed a particle's next step is a draw, and all weigh the same.
        return particles.sweep(*given).z[end:].movedim(2, 0)
