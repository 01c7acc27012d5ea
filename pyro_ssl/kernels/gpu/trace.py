"""Lineages of final slots: ``_trace_back`` of ``smc/sweep.py``."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

__all__ = ["trace_back"]

#: sequences of a program: each waits for its own memory
BLOCK = 32


@triton.jit(do_not_specialize=["T", "B", "P"])
def _trace_back(ancestors, slot, lineage, T, B, P, N: tl.constexpr):
    """lineage[t] = slot of step t; the slot of step t - 1 is its ancestor."""
    b = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    at = tl.load(slot + b, mask=b < B, other=0)
    for back in range(T):
        tb = (T - 1 - back) * B + b
        tl.store(lineage + tb, at, mask=b < B)
        at = tl.load(ancestors + tb * P + at, mask=b < B, other=0)


def trace_back(ancestors: Tensor, slot: Tensor) -> Tensor:
    """Return the particles that each final slot ``(B,)`` descends from: ``(T, B)``."""
    T, B, P = ancestors.shape
    lineage = torch.empty((T, B), dtype=torch.long, device=ancestors.device)
    given: dict[str, Any] = {
        "ancestors": ancestors.contiguous(),
        "slot": slot.contiguous(),
        "lineage": lineage,
    }
    given |= {"T": T, "B": B, "P": P, "N": BLOCK}
    launch(_trace_back, -(-B // BLOCK), lineage, given, num_warps=1)
    return lineage
