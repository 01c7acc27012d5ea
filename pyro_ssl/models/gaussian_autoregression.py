r"""An emission that reads what the sensors said a step ago: x_t about C z_t + b + G (u_t - m).

u_t is x_{t-1}, m a fixed origin, the mean of each sensor over the data of the fit; the entry of
u_t - m is 0 where that sensor was not observed a step ago, and before the first step. So this is a
model of what was observed, given which of it was missing, in which what is missing has no effect
later: paths, and the likelihood, are those of the same model without G for the residuals
x_t - G (u_t - m), as the Jacobian of x_{1:T} to these is 1. Paths are found of residuals; G
(u_t - m) comes back where sensors are told of. That is what a fit, a filter and the likelihood
take; smoothers and forecasts draw what is missing too, and then nothing is
(``gaussian_completion.py``).

Next file to read: ``gaussian_lag_regression.py``, the M-step of G.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..exact.standard import unit_of
from ..steps import lagged
from .gaussian_data import Series

__all__ = ["RIDGE", "Autoregression", "check_autoregressive", "first_autoregression"]

#: share of the VAR(1) that G starts from. It explains what latents would too: where it starts from
#: all of it, they find white noise left, and EM does not come away from there.
SHARE = 0.5
#: numbers per sensor that speak for G = 0: the ridge, in units of standardised sensors
RIDGE = 1.0


class Autoregression(NamedTuple):
    """G ``(E, E)``, of a sensor's row by the sensors a step ago, and m ``(E,)``.

    Example::

        >>> lag = Autoregression(0.5 * torch.eye(1), torch.tensor([1.0]))
        >>> x = torch.tensor([3.0, 5.0, torch.nan, 4.0]).view(4, 1, 1)
        >>> lag.shifts(Series(x)).flatten()
        tensor([0., 1., 2., 0.])
        >>> lag.residuals(Series(x)).x.flatten()
        tensor([3., 4., nan, 4.])
    """

    matrix: Tensor
    origin: Tensor

    def lags(self, data: Series) -> Tensor:
        """u_t - m of all steps and of the one after the last, ``(T + 1, B, E)``."""
        pair, one_more = (data.x - self.origin, data.seen), (0, 0, 0, 0, 0, 1)
        away, seen = (torch.nn.functional.pad(value, one_more) for value in pair)
        return lagged(away, seen).values

    def shifts(self, data: Series) -> Tensor:
        """G (u_t - m), ``(T, B, E)``."""
        return self.lags(data)[:-1] @ self.matrix.T

    def pulls(self, away: Tensor) -> Tensor:
        """G (u_t - m) of draws of all sensors, given these less m, ``(S, T, B, E)``."""
        return torch.cat([torch.zeros_like(away[:, :1]), away[:, :-1] @ self.matrix.T], 1)

    def residuals(self, data: Series) -> Series:
        """Return data whose x is x_t - G (u_t - m)."""
        return data._replace(x=data.x - self.shifts(data))

    def shifts_of_draws(self, draws: Tensor, offset: Tensor, last: Tensor) -> Tensor:
        """G (u_t - m) of draws that feed one another, ``(P, S, B, E)``.

        :param Tensor draws: of C z_t and noise, of that shape.
        :param Tensor offset: b, ``(E,)``, which they lack.
        :param Tensor last: u - m of the first of the steps, ``(B, E)``.
        """
        shifts, away = torch.empty_like(draws), offset - self.origin
        before = last.expand_as(draws[:, 0])
        for s in range(draws.shape[1]):
            shifts[:, s] = before @ self.matrix.T
            before = draws[:, s] + shifts[:, s] + away
        return shifts

    def refitted(self, data: Series, place: Tensor) -> Autoregression:
        """Return the ridge regression of x_t less a place on u_t - m, each sensor where it is seen.

        :param Tensor place: C z_t + b as expected, ``(T, B, E)``.
        """
        seen, x = data.seen, data.x.double()
        _, unit = unit_of(x, seen)
        u = self._replace(origin=self.origin.double()).lags(data._replace(x=x))[:-1]
        y, u = ((v / unit).flatten(0, 1) for v in (x - place, u))
        rows = []
        for e, there in enumerate(seen.flatten(0, 1).T):
            gram = u[there].T @ u[there]
            gram.diagonal().add_(RIDGE)
            rows.append(torch.linalg.solve(gram, u[there].T @ y[there, e]))
        matrix = unit.unsqueeze(-1) * torch.stack(rows) / unit
        return self._replace(matrix=matrix.to(self.origin))


def first_autoregression(data: Series) -> Autoregression:
    """Return half of the ridge regression of x_t on x_{t-1} alone, a VAR(1), and m."""
    origin = unit_of(data.x, data.seen)[0].to(data.x)
    none = Autoregression(torch.zeros_like(origin.diag()), origin)
    whole = none.refitted(data, origin.expand_as(data.x))
    return whole._replace(matrix=SHARE * whole.matrix)


def check_autoregressive(autoregressive: bool, emission: str) -> None:
    """Check that the emission can read x_{t-1}.

    :raises ValueError: of flags, counts and Student-t noise.
    """
    if autoregressive and emission != "gaussian":
        raise ValueError(
            f'autoregressive is True beside emission="{emission}", expected "gaussian", whose '
            "residuals are of the same model; write "
            f'GaussianSSL(..., emission="{emission}") without it, or give x_{{t-1}} as inputs.'
        )
