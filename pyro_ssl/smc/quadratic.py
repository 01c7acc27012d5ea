"""log p(x_t | z_t) as a quadratic function of z_t."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["QuadraticEmission"]


class QuadraticEmission(NamedTuple):
    """log p(x_t | z_t) as a quadratic function of z_t, for all t: exact, or about a point.

    .. math:: c + b^\\top (z - m) - \\tfrac12 (z - m)^\\top Λ (z - m)

    ``center`` m and ``linear`` b ``(T, B, D)``, ``constant`` c ``(T, B)``, ``precision`` Λ
    ``(T, B, D, D)``, positive semi-definite.
    """

    center: Tensor
    constant: Tensor
    linear: Tensor
    precision: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        """Return its value at ``(..., T, B, D)``: ``(..., T, B)``."""
        away = z - self.center
        curved = (self.precision @ away.unsqueeze(-1)).squeeze(-1)
        return self.constant + (away * (self.linear - 0.5 * curved)).sum(-1)
