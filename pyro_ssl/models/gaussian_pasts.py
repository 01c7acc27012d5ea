"""Where forecasts go on from that read x_T, of which something may be missing: draws of the past.

Next file to read: ``gaussian_forecasting.py``, which rolls them on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import poutine

from ..exact.measurements import LinearEmission
from ..reading.context import private_store
from .gaussian_autoregression import Autoregression
from .gaussian_data import Series
from .gaussian_turns import Both, Turns

__all__ = ["Pasts"]

#: turns until a draw, from one that is exact where the transition is linear; and from one under
#: other weights of the same fit. Of LSTMs that were fitted, means are off by a tenth of the spread
FIRST, LATER = 7, 3
#: particles of a turn
PARTICLES = 10


class Pasts:
    """Draws of z_{1:T} and x_{1:T} given what was observed, under one or more weights.

    As many chains as draws, one draw of each: these are independent, and a turn of many chains
    takes little longer than that of one.

    :param model: the Pyro model of the data.
    :param LinearEmission emission: C, b and R.
    :param Autoregression lag: G and m.
    :param Series data: of which something is missing.
    """

    def __init__(
        self,
        model: Callable[..., None],
        emission: LinearEmission,
        lag: Autoregression,
        data: Series,
    ) -> None:
        self.data, self._given = data, (model, emission, lag, data)
        self._last: Both | None = None

    def draw(self, num_draws: int) -> Both:
        """Return z and x - m, ``(N, T, B, .)``, under the weights that the transition has."""
        with private_store(), poutine.block():
            turns = Turns(*self._given, num_draws, PARTICLES)
            now, num_turns = turns.first, FIRST
            if self._last is not None:
                z, y = self._last
                of = torch.arange(num_draws, device=z.device) % len(z)
                now, num_turns = Both(z[of], y[of]), LATER
            for _ in range(num_turns):
                now = turns.turn(now)
        self._last = now
        return now
