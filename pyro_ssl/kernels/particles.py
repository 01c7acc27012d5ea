"""Weights of a sweep's step, compiled: ``src/particles.cpp``."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

__all__ = ["ancestors_of", "normalised"]


def ancestors_of(
    library: Any, systematic: bool, weights: Tensor, first: Tensor | int | None, u: Tensor
) -> Tensor:
    """Draw ancestors ``(B, P)``; see ``smc/resampling.py``.

    :param Tensor weights: ``(B, P)``, float64.
    :param first: the ancestor of slot 0, int64 ``(B,)``, or 0; ``None`` to draw it too.
    :param Tensor u: uniforms on [0, 1), ``(B, 1 if systematic, else P)``, float64.
    """
    (B, P), weights, u = weights.shape, weights.contiguous(), u.contiguous()
    slots = first.contiguous() if isinstance(first, Tensor) else None
    ancestors = torch.empty(B, P, dtype=torch.long, device="cpu")
    cdf = torch.empty(P, dtype=torch.float64, device="cpu")
    sizes = (B, P, int(systematic), int(first is not None))
    arrays = (weights, slots, u, cdf, ancestors)
    library.ancestors_of(
        *map(ctypes.c_int64, sizes),
        *(ctypes.c_void_p(None if v is None else v.data_ptr()) for v in arrays),
    )
    return ancestors


def normalised(library: Any, log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(B, P)`` of mean 1, float64, and log of the mean that they had, ``(B,)``."""
    weights = torch.empty(log_w.shape, dtype=torch.float64, device="cpu").copy_(log_w)
    log_mean = torch.empty(len(log_w), dtype=torch.float64, device="cpu")
    sizes = (ctypes.c_int64(n) for n in log_w.shape)
    arrays = (ctypes.c_void_p(value.data_ptr()) for value in (weights, log_mean))
    library.normalise_all(*sizes, *arrays)
    return weights, log_mean
