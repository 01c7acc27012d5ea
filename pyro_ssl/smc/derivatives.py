"""log p(x_t | z_t) to second order, and who is asked for it."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from .proposal import Asks
from .quadratic import Quadratic

__all__ = ["EmissionAsks", "Expansion", "TwistedAsks", "derivatives"]


class Expansion(NamedTuple):
    """A function of z ``(..., D)`` about a point: its value, gradient b and curvature Λ = -∇².

    ``value`` ``(...)``, ``linear`` ``(..., D)``, ``precision`` ``(..., D, D)``, which need not be
    positive; NaN where there is no derivative.
    """

    value: Tensor
    linear: Tensor
    precision: Tensor


class EmissionAsks(ABC):
    """log p(x_t | z_t) of particles z ``(B, P, D)``, within a sweep."""

    @abstractmethod
    def value(self, t: int, z: Tensor) -> Asks[Tensor]:
        """Return it, ``(B, P)``."""

    @abstractmethod
    def expansion(self, t: int, z: Tensor) -> Asks[Expansion]:
        """Return its expansion about z."""


class TwistedAsks(EmissionAsks):
    """Those of log p(x_t | z_t) + log β_t(z_t); see ``twist.py``.

    :param EmissionAsks asks: of log p(x_t | z_t).
    :param Quadratic twist: log β_t, of leading dimensions ``(T, B)``.
    """

    def __init__(self, asks: EmissionAsks, twist: Quadratic) -> None:
        self.asks, self.twist = asks, twist

    def value(self, t: int, z: Tensor) -> Asks[Tensor]:
        """Return the sum; see the base class."""
        found = yield from self.asks.value(t, z)
        return found + self._at(t).value(z)

    def expansion(self, t: int, z: Tensor) -> Asks[Expansion]:
        """Return that of the sum; see the base class."""
        value, linear, precision = yield from self.asks.expansion(t, z)
        twist = self._at(t)
        return Expansion(
            value + twist.value(z), linear + twist.gradient(z), precision + twist.precision
        )

    def _at(self, t: int) -> Quadratic:
        return self.twist.each(lambda part: part[t].unsqueeze(1))


def derivatives(values: Tensor, point: Tensor, *, at_once: bool = False) -> Expansion:
    """Return the expansion of ``values`` ``(...)``, computed of ``point`` ``(..., D)``.

    Entries are independent of one another: each is a function of its own point.

    :param bool at_once: take all rows of the curvature in one run over D copies, where autograd
        can, which takes fewer operations.
    """
    D, value = point.shape[-1], values.detach()
    if not values.requires_grad:
        nothing = torch.full_like(value, torch.nan).unsqueeze(-1)
        return Expansion(
            value, nothing.expand(point.shape), nothing.unsqueeze(-1).expand(*point.shape, D)
        )
    (linear,) = torch.autograd.grad(values.sum(), point, create_graph=True, materialize_grads=True)
    hessian = torch.zeros_like(point).unsqueeze(-1).expand(*point.shape, D)
    if linear.requires_grad:
        found = _rows_at_once(linear, point) if at_once else None
        hessian = _rows_in_turn(linear, point) if found is None else found
    return Expansion(value, linear.detach(), -0.5 * (hessian + hessian.mT))


def _rows_in_turn(linear: Tensor, point: Tensor) -> Tensor:
    """Derivatives of a gradient ``(..., D)``: ``(..., D, D)``, a backward run for each of D."""
    rows = [
        torch.autograd.grad(part.sum(), point, retain_graph=True, materialize_grads=True)[0]
        for part in linear.unbind(-1)
    ]
    return torch.stack(rows, -1).detach()


def _rows_at_once(linear: Tensor, point: Tensor) -> Tensor | None:
    """The same, vectorised; ``None`` where some function of the user's own cannot be."""
    D = point.shape[-1]
    each = torch.eye(D, dtype=point.dtype, device=point.device)
    each = each.view(D, *(1 for _ in point.shape[1:]), D).expand(D, *point.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some function is run D times
        try:
            (rows,) = torch.autograd.grad(
                linear,
                point,
                each,
                retain_graph=True,
                is_grads_batched=True,
                materialize_grads=True,
            )
        except RuntimeError:
            return None
    return rows.movedim(0, -1).contiguous().detach()
