"""A recurrent cell and its output layer over the particles of one sequence.

    LSTM:   c' = σ(f) c + σ(i) tanh(g),  h' = σ(o) tanh(c'),  [i f g o] = x + W h
    mLSTM:  the same of m = x_m * (W_m h) in place of h, and [g i f o]; or, with squash="output",
            c' = σ(f) c + σ(i) g,  h' = tanh(σ(o) c' + b_h)

x, the projected input, is z's row of a table, and what exogenous inputs add at a step.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["CellArrays", "Sizes", "advance", "log_prior", "log_prior_at"]

LSTM = tl.constexpr(0)
MLSTM_OUTPUT = tl.constexpr(2)


class Sizes(NamedTuple):
    """Known when a kernel is compiled, each as ``tl.constexpr``."""

    P: Any
    K: Any
    H: Any
    #: G, how long a projected input is: 4H or 5H
    G: Any
    #: places of P, K and H in a block
    PP: Any
    KP: Any
    HP: Any
    #: of the cell, as ``kernels/weights.py`` numbers them
    KIND: Any
    #: how products with the weights are made
    PRECISION: Any


class CellArrays(NamedTuple):
    """The weights, as :class:`~pyro_ssl.kernels.weights.CellWeights` has them."""

    table: Tensor
    #: what exogenous inputs add, ``(T, B, G)``, or ``None``
    exogenous: Tensor | None
    recurrent: Tensor
    to_m: Tensor | None
    bias_h: Tensor | None
    head: Tensor
    head_bias: Tensor


@triton.jit
def advance(cell, size, h, c, z, tb):
    """Read z (PP,), or one z (1,) for all rows, into states (PP, HP)."""
    if size.KIND == LSTM:
        i = tl.sigmoid(_gate(cell, size, h, z, tb, 0, 0))
        f = tl.sigmoid(_gate(cell, size, h, z, tb, 1, 1))
        g = _tanh(_gate(cell, size, h, z, tb, 2, 2))
        o = tl.sigmoid(_gate(cell, size, h, z, tb, 3, 3))
    else:
        m = _times(h, cell.to_m, size.H, size.HP, size) * _projected(cell, size, z, tb, 0)
        g = _gate(cell, size, m, z, tb, 0, 1)
        i = tl.sigmoid(_gate(cell, size, m, z, tb, 1, 2))
        f = tl.sigmoid(_gate(cell, size, m, z, tb, 2, 3))
        o = tl.sigmoid(_gate(cell, size, m, z, tb, 3, 4))
        if size.KIND != MLSTM_OUTPUT:
            g = _tanh(g)
    c = f * c + i * g
    if size.KIND == MLSTM_OUTPUT:
        j = tl.arange(0, size.HP)
        h = _tanh(o * c + tl.load(cell.bias_h + j, mask=j < size.H, other=0.0)[None, :])
    else:
        h = o * _tanh(c)
    return h, c


@triton.jit
def log_prior(cell, size, h, power):
    """log p(z_t = k | z_{1:t-1}) of each row, to a power, (PP, KP); hardly anything past K."""
    k = tl.arange(0, size.KP)
    bias = tl.load(cell.head_bias + k, mask=k < size.K, other=-1e30)
    x = _times(h, cell.head, size.K, size.KP, size) + bias[None, :]
    x = x - tl.max(x, 1)[:, None]
    return power * (x - tl.log(tl.sum(tl.exp(x), 1))[:, None])


@triton.jit
def log_prior_at(size, log_p, z):
    """That of one z for all rows, float64 (PP,)."""
    k = tl.arange(0, size.KP)
    return tl.sum(tl.where(k[None, :] == z, log_p, 0.0), 1).to(tl.float64)


@triton.jit
def _gate(cell, size, h, z, tb, block: tl.constexpr, part: tl.constexpr):
    """W h + x of a gate: a block of W, and a part of x."""
    weight = cell.recurrent + block * size.H * size.H
    return _times(h, weight, size.H, size.HP, size) + _projected(cell, size, z, tb, part)


@triton.jit
def _projected(cell, size, z, tb, part: tl.constexpr):
    j = tl.arange(0, size.HP)[None, :]
    at, within = part * size.H + j, j < size.H
    x = tl.load(cell.table + z[:, None] * size.G + at, mask=within, other=0.0)
    if cell.exogenous is not None:
        x += tl.load(cell.exogenous + tb * size.G + at, mask=within, other=0.0)
    return x


@triton.jit
def _times(x, weight, n: tl.constexpr, places: tl.constexpr, size):
    """x Wᵀ of rows x (PP, HP) and W (n, H)."""
    j, i = tl.arange(0, places)[None, :], tl.arange(0, size.HP)[:, None]
    w = tl.load(weight + j * size.H + i, mask=(j < n) & (i < size.H), other=0.0)
    return tl.dot(x, w, input_precision=size.PRECISION)


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0
