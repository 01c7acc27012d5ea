"""Backward messages of a Markov chain, each of maximum 1: ``smc/surrogate.py``."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch, places

__all__ = ["MOST_STATES", "backward_messages"]

#: A holds so many states on the chip.
MOST_STATES = 128
#: sequences of a program, which share the loads of A
LANES = 16


@triton.jit(do_not_specialize=["T", "B"])
def _messages(
    back, emission, lengths, beta, T, B, K: tl.constexpr, KP: tl.constexpr, N: tl.constexpr
):
    """β_{t-1}(j) ∝ Σ_k A(j, k) p(x_t | k) β_t(k)."""
    b = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    k = tl.arange(0, KP)
    mask = (b < B)[:, None] & (k < K)[None, :]
    square = (k < K)[:, None] & (k < K)[None, :]
    length = tl.zeros((N,), tl.int64) + T
    if lengths is not None:
        length = tl.load(lengths + b, mask=b < B, other=0)
    now = tl.full((N, KP), 1.0, tl.float32)
    for i in range(T):
        t = T - 1 - i
        place = (t * B + b)[:, None] * K + k[None, :]
        tl.store(beta + place, now, mask=mask)
        joint = tl.load(emission + place, mask=mask, other=0.0) * now
        a = tl.load(back + k[:, None] * K + k[None, :], mask=square, other=0.0)
        sums = tl.dot(joint, a, input_precision="ieee")
        greatest = tl.max(sums, 1)
        # Past the length there is nothing to say; where no path explains x_t, the sweep says so.
        possible = (greatest > 0.0) & (t < length)
        scaled = sums / tl.where(possible, greatest, 1.0)[:, None]
        now = tl.where(possible[:, None], scaled, 1.0)


def backward_messages(back: Tensor, emission: Tensor, lengths: Tensor | None) -> Tensor:
    """Return β_t(k), ``(T, B, K)``; see :func:`~pyro_ssl.kernels.messages.compiled_messages`."""
    T, B, K = emission.shape
    beta = torch.empty_like(emission, memory_format=torch.contiguous_format)
    given: dict[str, Any] = {
        "back": back.contiguous(),
        "emission": emission.contiguous(),
        "beta": beta,
    }
    given |= {"lengths": None if lengths is None else lengths.contiguous()}
    given |= {"T": T, "B": B, "K": K, "KP": places(K), "N": LANES}
    launch(_messages, -(-B // LANES), beta, given, num_warps=8, num_stages=2)
    return beta
