"""The mixture of normals that an IMV-LSTM forecasts with: mean, quantiles, intervals, log-score."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...arguments import check_level

__all__ = ["IMVForecast", "evidence", "joint", "mean_of"]

_HALVINGS = 60  # of a bracket: below float64's precision


class IMVForecast(NamedTuple):
    r"""p(y | X) = Σ_n π_n N(y; μ_n, σ_n²) of M windows, in the units of the data that were given.

    ``mean`` is Σ π_n μ_n, ``(M, Y)``; ``weights`` (π) ``(M, N)``, ``means`` and ``scales``
    ``(M, N, Y)``. The Y targets are independent given the variable n, which they share; where each
    has a variable of its own, ``weights`` are ``(M, N, Y)``.

    Example::

        >>> weights, means = torch.tensor([[0.5, 0.5]]), torch.tensor([[[-1.0], [1.0]]])
        >>> forecast = IMVForecast(torch.zeros(1, 1), weights, means, torch.ones(1, 2, 1))
        >>> low, high = forecast.interval(0.9)
        >>> torch.allclose(low, -high), forecast.log_prob(torch.zeros(1, 1)).shape
        (True, torch.Size([1]))
    """

    mean: Tensor
    weights: Tensor
    means: Tensor
    scales: Tensor

    def cdf(self, y: Tensor) -> Tensor:
        """Return P(y_i <= y) of each target by itself: ``(..., M, Y)`` to the same shape."""
        z = (y.unsqueeze(-2) - self.means) / self.scales  # (..., M, N, Y)
        shared = self.weights.dim() < self.means.dim()
        weights = self.weights.unsqueeze(-1) if shared else self.weights
        return (weights * torch.special.ndtr(z)).sum(-2)

    def quantile(self, q: float | Tensor) -> Tensor:
        """Return quantiles of each target by itself, by bisection.

        :param q: in (0, 1), a number or a tensor of them.
        :returns: ``q.shape + (M, Y)``.
        :raises ValueError: if q is not strictly between 0 and 1.
        """
        level = torch.as_tensor(q, dtype=self.means.dtype, device=self.means.device)
        if not bool(((level > 0) & (level < 1)).all()):
            raise ValueError(
                f"quantile: found q = {q}, expected numbers strictly between 0 and 1; write "
                "quantile(0.05) for the 5 % quantile."
            )
        level = level[..., None, None]
        # A mixture's quantile lies between the least and the greatest of its components'.
        own = self.means + self.scales * torch.special.ndtri(level.unsqueeze(-1))
        low, high = own.amin(-2), own.amax(-2)  # (..., M, Y)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval of each target, each ``(M, Y)``."""
        check_level("interval", level)
        tail = (1.0 - level) / 2.0
        return self.quantile(tail), self.quantile(1.0 - tail)

    def log_prob(self, y: Tensor) -> Tensor:
        """Return log p(y | X) over all targets together, ``(M, Y)`` to ``(M,)``."""
        return evidence(self.log_joint(y))

    def log_joint(self, y: Tensor) -> Tensor:
        """Return log π_n + log N(y; μ_n, σ_n²), ``(M, Y)`` to ``(M, N)``; its softmax is q.

        Where each target has a variable of its own it is ``(M, N, Y)``, and the softmax over N.
        """
        return joint(self.weights.log(), self.means, self.scales, y)


def mean_of(weights: Tensor, means: Tensor) -> Tensor:
    """Return Σ π_n μ_n, ``(M, Y)``, of ``(M, N)`` or ``(M, N, Y)`` and ``(M, N, Y)``."""
    return ((weights if weights.dim() == means.dim() else weights.unsqueeze(-1)) * means).sum(1)


def joint(log_weights: Tensor, means: Tensor, scales: Tensor, y: Tensor) -> Tensor:
    """Return log p(z = n, y) as :meth:`IMVForecast.log_joint` does."""
    z = (y.unsqueeze(-2) - means) / scales
    density = -0.5 * z.square() - scales.log() - 0.5 * math.log(2.0 * math.pi)
    return log_weights + (density.sum(-1) if log_weights.dim() < means.dim() else density)


def evidence(log_joint: Tensor) -> Tensor:
    """Return log p(y), ``(M,)``, of log p(z = n, y), ``(M, N)`` or ``(M, N, Y)``."""
    log_p = log_joint.logsumexp(1)
    return log_p if log_p.dim() == 1 else log_p.sum(-1)
