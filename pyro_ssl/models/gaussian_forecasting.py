"""Forecasts of a fitted Gaussian SSL: its particles rolled on, under the weights of several epochs.

Where x_t reads x_{t-1}, of which something is missing, a filter does not know where to go on from.
The forecast then goes on from draws of (z_{1:T}, x_{1:T}) given what was observed
(``gaussian_pasts.py``): a path under the transition from z_T, and sensors from x_T, both drawn.

Next file to read: ``gaussian_outputs.py``, which scores them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..infer import ParticleFilter
from ..reading.context import all_or_nothing, private_store
from ..smc import Standing
from ..smc.roll_out import roll_on
from ..transitions import map_state
from .gaussian_data import Series
from .gaussian_iterates import shares, weights_of, with_weights
from .gaussian_pasts import Pasts
from .gaussian_results import GaussianForecast
from .gaussian_tracking import Tracker
from .settings import checked

__all__ = ["Forecaster"]

#: futures of each draw of the past, which costs far more than they do
FUTURES = 8


class Forecaster(Tracker):
    """A tracker that goes on after the data."""

    @checked
    @all_or_nothing
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

        With ``autoregressive``, where anything of x is missing, they go on from draws of the path
        and of what was missing, eight from each: of ``num_particles=1000`` 125 draws or so, of
        short chains, which take many times as long as particles do, but no longer than
        :meth:`smooth`.

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
        lag = self.autoregression
        pasts = None
        if lag is not None and not past.is_whole:
            pasts = Pasts(self.model, self.emission, lag, past)
        own = weights_of(self.transition).unsqueeze(0)
        several = own if self.iterates is None else self.iterates
        parts = []
        for P, weights in zip(shares(num_particles, len(several)), several, strict=True):
            if P:
                with with_weights(self.transition, weights):
                    if pasts is None:
                        parts.append(self._from_particles(past, end, horizon, P))
                    else:
                        parts.append(self._from_draws(pasts, horizon, P))
        paths, lasts = zip(*parts, strict=True)
        z = torch.cat(paths)  # (P, S, B, D)
        last = lasts[0] if pasts is None else torch.cat(lasts)
        moved, offset = self._moved(z)
        zero = torch.zeros_like(offset)
        drawn = self.family.sample(moved, zero, self.emission.covariance)
        shift = self._shift_of_draws(drawn, offset, last)
        if shift is not None:
            moved, drawn = moved + shift, drawn + shift
        found = GaussianForecast.of_paths(moved, offset, drawn + offset, z)
        found.shift = shift
        if self.region is not None:
            found.outside = self.region.outside(z)
        return found

    def _shift_of_draws(self, draws: Tensor, offset: Tensor, last: Tensor) -> Tensor | None:
        """What draws ``(P, S, B, E)``, less b, add to those after them.

        :param Tensor last: u - m of the first of the steps, ``(B, E)`` or one for each draw.
        """
        lag = self.autoregression
        return None if lag is None else lag.shifts_of_draws(draws, offset, last)

    def _from_particles(
        self, past: Series, end: int, horizon: int, num_particles: int
    ) -> tuple[Tensor, Tensor]:
        """Draws of z after the first steps, ``(P, S, B, D)``, and x there less m, ``(B, E)``."""
        later = torch.nn.functional.pad
        x = later(past.x, (0, 0, 0, 0, 0, horizon), value=torch.nan)
        mask = past.mask
        if mask is not None:
            mask = later(mask, (0, 0) * (mask.dim() - 1) + (0, horizon))
        given = Series(x, None, mask, past.inputs).arguments
        lag = self.autoregression
        last = past.x.new_zeros(past.x.shape[1:]) if lag is None else lag.lags(past)[-1]
        particles = ParticleFilter(self.model, num_particles)
        with private_store():
            if self.family.gaussian:
                return particles.forecast(*given, start=end).paths.transpose(1, 2), last
            # Where nothing is observed a particle's next step is a draw, and all weigh the same.
            return particles.sweep(*given).z[end:].movedim(2, 0), last

    def _from_draws(self, pasts: Pasts, horizon: int, num_particles: int) -> tuple[Tensor, Tensor]:
        """The same where something is missing: x less m is drawn too, ``(P, B, E)``."""
        num_draws = -(-num_particles // FUTURES)
        z, y = pasts.draw(num_draws)
        (end, B), inputs = z.shape[1:3], self._standard_inputs(pasts.data.inputs)
        rows = z.transpose(0, 2).transpose(1, 2).flatten(0, 1)  # (B N, T, D)
        u = None if inputs is None else inputs[:end].transpose(0, 1).repeat_interleave(num_draws, 0)
        start = self.transition.initial_state((len(rows),))
        state = self.transition._replay_on(rows, None, start, u)[1]
        of = torch.arange(num_particles, device=z.device) % num_draws
        row = torch.arange(B, device=z.device).unsqueeze(-1) * num_draws + of  # (B, P)
        state = map_state(lambda part: part.index_select(0, row.flatten()), state)
        standing = Standing(rows[row, -1], state, None)
        later, sizes = None if inputs is None else inputs[end:], (B, num_particles)
        paths = roll_on(self.transition, standing, horizon, sizes, later).paths
        return paths.movedim(2, 0), y[of, -1]
