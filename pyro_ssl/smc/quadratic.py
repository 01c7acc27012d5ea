"""A quadratic function of z: what a linear-Gaussian emission is, and any other is expanded to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

__all__ = ["Quadratic"]


class Quadratic(NamedTuple):
    r"""A quadratic function of z in R^D about a point m.

    .. math:: c + b^\top (z - m) - \tfrac12 (z - m)^\top Λ (z - m)

    ``center`` m and ``linear`` b ``(..., D)``, ``constant`` c ``(...)``, ``precision`` Λ
    ``(..., D, D)``, positive semi-definite.
    """

    center: Tensor
    constant: Tensor
    linear: Tensor
    precision: Tensor

    def value(self, z: Tensor) -> Tensor:
        """Return its value at ``(..., D)``: ``(...)``."""
        away = z - self.center
        curved = (self.precision @ away.unsqueeze(-1)).squeeze(-1)
        return self.constant + (away * (self.linear - 0.5 * curved)).sum(-1)

    def gradient(self, z: Tensor) -> Tensor:
        """Return its gradient at ``(..., D)``, of that shape."""
        return self.linear - (self.precision @ (z - self.center).unsqueeze(-1)).squeeze(-1)

    def plus(self, other: Quadratic) -> Quadratic:
        """Return the sum of two, about the center of this one."""
        away = self.center - other.center
        curved = (other.precision @ away.unsqueeze(-1)).squeeze(-1)
        return Quadratic(
            self.center,
            self.constant + other.value(self.center),
            self.linear + other.linear - curved,
            self.precision + other.precision,
        )

    def each(self, function: Callable[[Tensor], Tensor]) -> Quadratic:
        """Apply a function to its four tensors."""
        return Quadratic(*map(function, self))
