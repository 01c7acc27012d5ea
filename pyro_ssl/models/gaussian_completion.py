r"""A linear Gaussian chain some entries of which are seen, without noise: draws of the others.

.. math:: y_t = q_t + A y_{t-1} + e_t, \qquad e_t \sim \mathrm{N}(0, S), \quad y_0 = 0

All at once, by the simulation smoother of Durbin & Koopman, "A simple and efficient simulation
smoother for state space time series analysis", 2002: a series of the chain, plus the smoother's
mean of what it lacks.

Next file to read: ``gaussian_turns.py``, for which sensors are such a chain.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Completion"]


class Completion:
    """Draws of y_{1:T} given q and the entries that were seen.

    The smoother's gains depend on which entries these are alone, so all draws share them.

    :param Tensor matrix: A, ``(E, E)``.
    :param Tensor covariance: S, ``(E, E)``.
    :param Tensor seen: bool ``(T, B, E)``.
    :param Tensor first: the covariance of e_1, by default S.

    Example::

        >>> seen = torch.tensor([True, False, True]).view(3, 1, 1)
        >>> walk = Completion(torch.eye(1), torch.eye(1), seen)
        >>> y = torch.tensor([0.0, torch.nan, 2.0]).view(3, 1, 1)
        >>> found = walk.draw(torch.zeros(4000, 3, 1, 1), y)[:, 1]
        >>> bool((found.mean() - 1).abs() < 0.1), bool((found.var() - 0.5).abs() < 0.1)
        (True, True)
    """

    def __init__(
        self, matrix: Tensor, covariance: Tensor, seen: Tensor, first: Tensor | None = None
    ) -> None:
        first = covariance if first is None else first
        self.seen, self.matrix = seen, matrix
        self._root, self._first_root = map(torch.linalg.cholesky, (covariance, first))
        found = _gains(matrix.double(), covariance.double(), first.double(), seen)
        self._correct, self._look_back, self._precision = (value.to(matrix) for value in found)

    def draw(self, place: Tensor, y: Tensor) -> Tensor:
        """Return y, drawn where it was not seen, ``(S, T, B, E)``.

        :param Tensor place: q of each draw, of that shape.
        :param Tensor y: ``(T, B, E)`` or of that shape, anything where it was not seen.
        """
        noise = torch.randn_like(place)
        first = noise[:, :1] @ self._first_root.T
        noise = torch.cat([first, noise[:, 1:] @ self._root.T], 1)
        other = torch.empty_like(place)
        last = torch.zeros_like(place[:, 0])
        for t in range(place.shape[1]):
            last = other[:, t] = noise[:, t] + last @ self.matrix.T
        return torch.where(self.seen, y, other + self._smoothed(place, y - other))

    def score(self, place: Tensor, y: Tensor) -> Tensor:
        """Return log p of what was seen, up to a constant for each series: ``(S, B)``."""
        ahead, _ = self._filtered(place, y)
        away = torch.where(self.seen, y - ahead, 0.0)
        each = away * (self._precision @ away.unsqueeze(-1)).squeeze(-1)
        return -0.5 * each.sum((1, 3))

    def _smoothed(self, place: Tensor, y: Tensor) -> Tensor:
        """E[y_t | all that was seen], ``(S, T, B, E)``."""
        ahead, mean = self._filtered(place, y)
        for t in range(place.shape[1] - 2, -1, -1):
            mean[:, t] += _apply(self._look_back[t + 1], mean[:, t + 1] - ahead[:, t + 1])
        return mean

    def _filtered(self, place: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """E[y_t | what was seen before t], and with what was seen at t: ``(S, T, B, E)``."""
        ahead, mean = torch.empty_like(place), torch.empty_like(place)
        last = torch.zeros_like(place[:, 0])
        for t in range(place.shape[1]):
            ahead[:, t] = place[:, t] + last @ self.matrix.T
            away = torch.where(self.seen[t], y[..., t, :, :] - ahead[:, t], 0.0)
            last = mean[:, t] = ahead[:, t] + _apply(self._correct[t], away)
        return ahead, mean


def _gains(A: Tensor, S: Tensor, first: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return gains of a step on what is seen of it, and of the step before on it, ``(T, B, E, E)``.

    With V_t = Cov[y_t | seen to t], 0 where y_t was seen, and W_t = A V_{t-1} Aᵀ + S, the first are
    W_t[:, o] W_t[o, o]⁻¹ in the columns o that were seen, the others V_{t-1} Aᵀ W_t⁻¹. The third
    are W_t[o, o]⁻¹, 0 elsewhere.
    """
    own = torch.eye(len(S), dtype=torch.bool, device=S.device)
    V = torch.zeros_like(S).expand(seen.shape[1], -1, -1)
    correct, look_back, precision = [], [], []
    for t, there in enumerate(seen):
        AV = A @ V
        W = AV @ A.T + (S if t else first)
        pair = there.unsqueeze(-1) & there.unsqueeze(-2)
        inverse = torch.linalg.inv(torch.where(pair, W, own.to(W)))
        precision.append(torch.where(pair, inverse, 0.0))
        gain = W @ precision[-1]
        rest = own.to(W) - gain
        V = rest @ W @ rest.mT
        correct.append(gain)
        look_back.append(torch.linalg.solve(W, AV).mT)
    return torch.stack(correct), torch.stack(look_back), torch.stack(precision)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """``(B, E, E)`` and ``(S, B, E)`` to ``(S, B, E)``."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
