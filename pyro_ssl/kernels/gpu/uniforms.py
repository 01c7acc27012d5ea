"""Random numbers by counter: ``smc/randomness.py``, bit for bit."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

__all__ = ["uniforms"]

#: counters of a program
BLOCK = 256


@triton.jit(do_not_specialize=["seed", "purpose", "first", "total", "B", "n", "blocks"])
def _uniforms(
    sequences, out, seed, purpose, first, total, B, n, blocks, WIDE: tl.constexpr, N: tl.constexpr
):
    """Fill out (T, B, n) from counters (block, step, sequence), of four words each."""
    i = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    tb, block = i // blocks, i % blocks
    sequence = tl.load(sequences + tb % B, mask=i < total, other=0)
    low = (sequence & 0xFFFFFFFF).to(tl.uint32)
    high = ((sequence >> 32) & 0xFFFFFFFF).to(tl.uint32)
    counter = (block + (purpose.to(tl.int64) << 28)).to(tl.uint32)
    step = (first + tb // B).to(tl.uint32)
    a, b, c, d = tl.philox(seed, counter, step, low, high)
    to = out + tb * n
    if WIDE:
        _put(to, 2 * block, n, i < total, _double(a, b))
        _put(to, 2 * block + 1, n, i < total, _double(c, d))
    else:
        _put(to, 4 * block, n, i < total, _single(a))
        _put(to, 4 * block + 1, n, i < total, _single(b))
        _put(to, 4 * block + 2, n, i < total, _single(c))
        _put(to, 4 * block + 3, n, i < total, _single(d))


@triton.jit
def _single(word):
    """24 bits of a word, in [0, 1)."""
    return (word >> 8).to(tl.float32) * (1.0 / 16777216.0)


@triton.jit
def _double(high, low):
    """53 bits of two words, in [0, 1)."""
    bits = ((high >> 5).to(tl.int64) << 26) + (low >> 6).to(tl.int64)
    return bits.to(tl.float64) * (1.0 / 9007199254740992.0)


@triton.jit
def _put(row, at, n, within, value):
    tl.store(row + at, value, mask=within & (at < n))


def uniforms(
    seed: int,
    purpose: int,
    first: int,
    shape: tuple[int, int, int],
    sequences: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Return numbers in [0, 1) of a shape (T, B, n), of the steps from ``first`` on.

    See :class:`pyro_ssl.smc.randomness.Randomness`.
    """
    T, B, n = shape
    out = torch.empty(shape, dtype=dtype, device=sequences.device)
    wide = dtype == torch.float64
    blocks = -(-n // (2 if wide else 4))
    total = T * B * blocks
    if total:
        given = {"sequences": sequences.contiguous(), "out": out, "seed": seed, "purpose": purpose}
        given |= {
            "first": first,
            "total": total,
            "B": B,
            "n": n,
            "blocks": blocks,
            "WIDE": wide,
            "N": BLOCK,
        }
        launch(_uniforms, -(-total // BLOCK), out, given)
    return out
