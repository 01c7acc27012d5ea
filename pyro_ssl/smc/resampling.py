r"""Conditional resampling: ancestors given that slot 0 continues the reference.

A resampling scheme draws ancestors a_0, ..., a_{P-1} with P(a_i = p) = w_p / Σw for every slot.
Its *conditional* form draws the other slots given a_0. For conditional SMC to leave the posterior
invariant, the joint distribution must not change when slots are rotated, and the conditional one
must follow from it (Andrieu, Doucet & Holenstein 2010; Chopin & Singh 2015, "On particle Gibbs
sampling"). Drawing all slots and then overwriting slot 0 is biased for every scheme whose slots
are dependent; so is a systematic draw of the P - 1 others.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["RESAMPLING", "first_above", "invert_cdf", "multinomial", "systematic"]


def invert_cdf(cdf: Tensor, u: Tensor) -> Tensor:
    """Draw by inversion: the first index whose cumulative weight exceeds ``u`` times the total.

    :param cdf: cumulative weights, ``(..., K)``, not normalised.
    :param u: numbers in [0, 1), ``(..., n)``.
    :returns: indices, ``(..., n)``; never one of weight zero, unless the total is zero.
    """
    total = cdf[..., -1:]
    # u < 1, but u * total may round to total, which no cumulative weight exceeds.
    point = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    return first_above(cdf, point)


def first_above(cdf: Tensor, point: Tensor) -> Tensor:
    """The first index whose cumulative weight exceeds each ``point`` ``(..., n)``, or the last."""
    return torch.searchsorted(cdf, point, right=True).clamp_(max=cdf.shape[-1] - 1)


def monotone_cumsum(weights: Tensor, out: Tensor | None = None) -> Tensor:
    """Cumulative sum over the last dimension that never decreases; ``out`` may be the weights.

    A parallel scan may round a later partial sum below an earlier one.
    """
    cdf = torch.cumsum(weights, -1, out=out)
    return cdf if cdf.device.type == "cpu" else cdf.cummax(-1).values


def systematic(weights: Tensor, first: Tensor | int | None, u: Tensor) -> Tensor:
    r"""Conditional systematic resampling, exact.

    Unconditionally, slot i takes the point frac(u_0 + i/P) of the circle on which each particle
    owns an arc of length w_p / Σw, with u_0 uniform. Given a_0, u_0 is uniform inside a_0's arc,
    and all other slots follow from it. Rotating the slots shifts u_0 by a multiple of 1/P, which
    leaves its distribution unchanged.

    :param weights: ``(B, P)``, not normalised.
    :param first: the ancestor of slot 0, ``(B,)`` or one for all; ``None`` to draw it too.
    :param u: uniforms on [0, 1), ``(B, P)``; only the first column is used.
    :returns: ancestors, ``(B, P)``.
    """
    cdf = monotone_cumsum(weights)
    total, u0 = cdf[:, -1:], u[:, :1]
    if isinstance(first, Tensor):
        first = first.unsqueeze(-1)
    if first is None:
        start = u0 * total
    elif isinstance(first, int) and not first:  # whose arc begins at 0
        start = u0 * weights[:, :1]
    else:
        arc, end = (_at(value, first) for value in (weights, cdf))
        start = torch.addcmul(end - arc, u0, arc)
    # The circle is as long as the total: a remainder is exact, and less than the total.
    points = torch.addcmul(start, total, _slots(weights.shape[-1], u.dtype, u.device))
    ancestors = first_above(cdf, points.remainder_(total))
    if first is not None:
        ancestors[:, :1] = first
    return ancestors


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _slots(P: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """i/P of every slot i, ``(P,)``."""
    return torch.arange(P, dtype=dtype, device=device) / P


def _at(value: Tensor, index: Tensor | int) -> Tensor:
    """Entries of each row, ``(B, 1)``."""
    if isinstance(index, int):
        return value[:, index : index + 1]
    return value.gather(-1, index)


def multinomial(weights: Tensor, first: Tensor | int | None, u: Tensor) -> Tensor:
    """Conditional multinomial resampling: the other slots are independent of slot 0.

    Parameters as for :func:`systematic`; column i of ``u`` draws slot i.
    """
    ancestors = invert_cdf(monotone_cumsum(weights), u)
    if first is not None:
        ancestors[:, 0] = first
    return ancestors


RESAMPLING = {"systematic": systematic, "multinomial": multinomial}
