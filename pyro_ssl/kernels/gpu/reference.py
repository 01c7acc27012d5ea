"""The reference path's own ancestor: ``smc/ancestors.py``.

What is left of the reference is replayed for all prefixes at once, since a product of 16 rows takes
as long as that of one: the own prefix, which slot 0 has, is scored beside the proposed one.
"""

import triton
import triton.language as tl

from .cell import advance, log_prior, log_prior_at
from .resampling import cumulate, invert

__all__ = ["redraw"]


@triton.jit
def redraw(cell, size, reference, u, h, c, near, weights, t, b, B, length, lag, power):
    """Draw it from P(a_0 = p | all else), and return it.

    The next L steps propose ∝ w_{t-1}^p p(ref_{t:t+L} | z^p_{1:t-1}); those after them decide.

    :param u: pointer to two uniforms.
    :param near: log p(ref_t | z^p_{1:t-1}), float64 (PP,).
    :param weights: w_{t-1}, 0 past P.
    """
    p = tl.arange(0, size.PP)
    middle = tl.minimum(t + lag, length)
    h, c, near = _follow(cell, size, reference, h, c, near, t + 1, middle, b, B, power)
    near = tl.where(p < size.P, near, float("-inf"))
    weight = tl.exp(near - tl.max(near, 0)) * weights
    proposed = invert(cumulate(weight, size.PP), tl.load(u))
    # Where the own prefix is proposed, nothing is left to be decided.
    stop = tl.where(proposed == 0, middle, length)
    far = tl.zeros((size.PP,), tl.float64)
    h, c, far = _follow(cell, size, reference, h, c, far, middle, stop, b, B, power)
    ratio = tl.sum(tl.where(p == proposed, far, 0.0), 0) - tl.sum(tl.where(p == 0, far, 0.0), 0)
    return tl.where(tl.log(tl.load(u + 1)) < ratio, proposed, 0)


@triton.jit
def _follow(cell, size, reference, h, c, score, start, stop, b, B, power):
    """Add log p(ref_s | ...) of all prefixes for s in start..stop-1, and return their states."""
    for s in range(start, stop):
        sb = s * B + b
        before = tl.zeros((1,), tl.int64) + tl.load(reference + sb - B)
        h, c = advance(cell, size, h, c, before, sb)
        log_p = log_prior(cell, size, h, power)
        score += log_prior_at(size, log_p, tl.load(reference + sb))
    return h, c, score
