"""Weights of particles, where they are not all equal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .compiled import compiled_normalised

__all__ = ["normalised"]


def normalised(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights ``(B, P)`` of mean 1, float64, and log of the mean that they had, ``(B,)``."""
    found = compiled_normalised(log_w)
    if found is not None:
        return found
    log_w = log_w.double()
    P = log_w.shape[-1]
    return torch.softmax(log_w, -1).mul_(P), log_w.logsumexp(-1).sub_(math.log(P))
