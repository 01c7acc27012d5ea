"""Sensors in units of their own: what is fitted depends on neither origin nor unit of the data."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["never_observed", "unit_of"]


def unit_of(x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return origin and unit of each sensor, mean and standard deviation, float64 ``(E,)`` each.

    A sensor that is constant, as far as its dtype can tell, has none of its own: it is given the
    typical one of the others.

    :param Tensor x: ``(..., E)``.
    :param Tensor seen: what was observed, bool ``(..., E)``.
    """
    points, there = x.double().flatten(0, -2), seen.flatten(0, -2)
    count = there.sum(0).double()
    mean = torch.where(there, points, 0.0).sum(0) / count.clamp(min=1.0)
    away = torch.where(there, points - mean, 0.0)
    spread = (away.square().sum(0) / (count - 1.0).clamp(min=1.0)).sqrt()
    level = torch.where(there, points.abs(), 0.0).amax(0)
    flat = ~(spread > 4 * torch.finfo(x.dtype).eps * level)
    if bool(flat.all()):
        return mean, torch.where(level > 0, level, 1.0)
    return mean, torch.where(flat, spread[~flat].log().mean().exp(), spread)


def never_observed(seen: Tensor) -> str:
    """Return a sentence on sensors that were never observed; empty if there are none.

    :param Tensor seen: bool ``(T, B, E)``.
    """
    never = ~seen.flatten(0, -2).any(0)
    if not bool(never.any()):
        return ""
    keep = (~never).nonzero().squeeze(-1).tolist()
    return (
        f"{int(never.sum())} of {len(never)} sensors were never observed; write "
        f"x[..., {keep if len(keep) < 20 else 'kept'}]."
    )
