"""The M-step of an emission that reads x_{t-1}: G beside C, b and R, by running moments.

Next file to read: ``gaussian_regression.py``, the same without G.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..exact import LinearEmission
from .gaussian_autoregression import RIDGE, Autoregression
from .gaussian_data import Series
from .gaussian_regression import EmissionRegression

__all__ = ["AutoregressiveRegression"]


class AutoregressiveRegression(EmissionRegression):
    r"""C, b and R as in the base class, each of residuals, and G.

    The steps of an epoch are conditional (ECM, Meng & Rubin 1993): C and b, if they are learned,
    given G; G given these; R given all. Missing x count with their expectations given the path and
    what the sensors said a step ago. With y_t what C z_t + b leave of x_t, G is

    .. math:: G = \sum_t y_t (u_t - m)^\top \Big(\sum_t (u_t - m)(u_t - m)^\top + λ 1\Big)^{-1}

    in units of the sensors, whatever R is, as all sensors have the same regressors: the highest
    log-likelihood less ½ λ tr(Gᵀ R⁻¹ G), which R maximises too.

    :param Autoregression start: G, and m.
    :param LinearEmission emission: ``start`` of the base class, as are all others.

    Example::

        >>> x = torch.zeros(500, 1, 1)
        >>> for t in range(1, 500):
        ...     x[t] = 0.8 * x[t - 1] + torch.randn(1)
        >>> none = Autoregression(torch.zeros(1, 1), torch.zeros(1))
        >>> none_yet = LinearEmission(torch.zeros(1, 1), torch.zeros(1), torch.eye(1))
        >>> how = x, torch.ones(500, 1, 1).bool(), 1, none_yet, False, 0.0
        >>> regression = AutoregressiveRegression(none, *how)
        >>> R = regression.update(torch.zeros(1, 500, 1), none_yet).covariance
        >>> bool((regression.autoregression.matrix - 0.8).abs() < 0.15), bool((R - 1).abs() < 0.3)
        (True, True)
    """

    def __init__(
        self,
        start: Autoregression,
        x: Tensor,
        seen: Tensor,
        num_paths: int,
        emission: LinearEmission,
        learn_loading: bool,
        averaging: float,
        form: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(x, seen, num_paths, emission, learn_loading, averaging, form)
        wide = Autoregression(start.matrix.double(), start.origin.double())
        lags = wide.lags(Series(x.double(), mask=seen))[:-1] / self._unit
        self._lags = lags.repeat(1, num_paths, 1)[self._seen]  # (N, E)
        self._matrix = wide.matrix * self._unit / self._unit.unsqueeze(-1)
        self._origin_of_lags = start.origin.clone()
        self._ridge = RIDGE / max(len(self._lags) / num_paths, 1.0)

    @property
    def autoregression(self) -> Autoregression:
        """The estimate of G, and m."""
        G = self._matrix * self._unit.unsqueeze(-1) / self._unit
        return Autoregression(G.to(self._origin_of_lags), self._origin_of_lags)

    @property
    def state(self) -> tuple[Tensor | None, ...]:
        """What of the epochs so far is kept; to be set, to go on from there."""
        return self._z_origin, self._moments, self._matrix

    @state.setter
    def state(self, state: tuple[Tensor | None, ...]) -> None:
        self._z_origin, self._moments = state[:2]
        assert state[2] is not None
        self._matrix = state[2]

    def _expected(self, z: Tensor, emission: LinearEmission) -> Tensor:
        return super()._expected(z, emission) + self._lags @ self._matrix.T

    def _row(self, z: Tensor) -> Tensor:
        return torch.cat([super()._row(z), self._lags], -1)

    def _maximised(self, moments: Tensor, emission: LinearEmission) -> tuple[Tensor, Tensor]:
        E = len(self._unit)
        n = len(moments) - E
        weight, _ = super()._maximised(self._of_residuals(moments), emission)
        left = moments[:E, n:] - weight @ moments[E:n, n:]
        gram = moments[n:, n:].clone()
        gram.diagonal().add_(self._ridge)
        self._matrix = torch.linalg.solve(gram, left.T).T
        R = self._noise(self._of_residuals(moments), weight)
        return weight, R + self._ridge * self._matrix @ self._matrix.T

    def _of_residuals(self, moments: Tensor) -> Tensor:
        """Moments of [x - G (u - m), z, 1], given those of [x, z, 1, u - m]."""
        E = len(self._unit)
        n = len(moments) - E
        move = torch.eye(n, n + E, dtype=moments.dtype, device=moments.device)
        move[:E, n:] = -self._matrix
        return move @ moments @ move.T
