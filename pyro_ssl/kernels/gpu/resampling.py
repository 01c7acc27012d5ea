"""Ancestors and latents by inversion: ``smc/resampling.py``.

Weights of particles are float64 (PP,), and 0 past P.
"""

import triton
import triton.language as tl

__all__ = ["ancestors_of", "cumulate", "draw_state", "invert", "normalise"]


@triton.jit
def cumulate(weights, PP: tl.constexpr):
    """Cumulative sums. Terms are added in one order for all, so that no sum falls below another."""
    p = tl.arange(0, PP)
    return tl.sum(tl.where(p[:, None] <= p[None, :], weights[:, None], 0.0), 0)


@triton.jit
def first_above(cdf, points):
    """The first of the cumulative weights that exceeds each point (N,).

    None reaches the total, although u times the total may be rounded to it.
    """
    below = (cdf[None, :] <= points[:, None]) & (cdf < tl.max(cdf, 0))[None, :]
    return tl.sum(below.to(tl.int32), 1)


@triton.jit
def invert(cdf, u):
    """The same of one point, u times the total."""
    total = tl.max(cdf, 0)
    return tl.sum(((cdf <= u * total) & (cdf < total)).to(tl.int32), 0)


@triton.jit
def ancestors_of(
    weights,
    first,
    u,
    P,
    PP: tl.constexpr,
    SYSTEMATIC: tl.constexpr,
    CONDITIONAL: tl.constexpr,
):
    """Conditional resampling: ancestors of all slots given that of slot 0, int32 (PP,).

    :param u: pointer to the uniforms of the step.
    """
    p = tl.arange(0, PP)
    cdf = cumulate(weights, PP)
    total = tl.max(cdf, 0)
    if SYSTEMATIC:  # slot i at u0 + i / P of the circle, u0 inside the arc of `first`
        if CONDITIONAL:
            arc = tl.sum(tl.where(p == first, weights, 0.0), 0)
            end = tl.sum(tl.where(p == first, cdf, 0.0), 0)
            start = (end - arc) + tl.load(u) * arc
        else:
            start = tl.load(u) * total
        points = start + total * (p.to(tl.float64) / P)
        points = tl.where(points < total, points, points - total)
    else:
        points = tl.load(u + p, mask=p < P, other=0.0) * total
    ancestors = first_above(cdf, points)
    if CONDITIONAL:
        ancestors = tl.where(p == 0, first, ancestors)
    return ancestors


@triton.jit
def draw_state(weights, u, KP: tl.constexpr):
    """A state of each row (PP, KP) by its weights: never one of weight 0, int32 (PP,).

    A parallel sum may round one sum below another, or above it where the weight is 0.
    """
    k = tl.arange(0, KP)
    cdf = tl.where(weights > 0.0, tl.cumsum(weights, 1), -1.0)
    total = tl.max(cdf, 1)
    # u Σ < Σ also when rounded
    point = tl.minimum(u, 1.0 - 1.1920928955078125e-07) * total
    return tl.min(tl.where(cdf > point[:, None], k[None, :], KP), 1)


@triton.jit
def normalise(log_w, live, P):
    """Weights of mean 1 of log-weights (PP,), 0 past P, and the log of the mean that they had."""
    log_w = tl.where(live, log_w, float("-inf"))
    greatest = tl.maximum(tl.max(log_w, 0), -1.7976931348623157e308)
    w = tl.exp(log_w - greatest)
    mean = tl.sum(w, 0) / P
    return w / mean, tl.log(mean) + greatest
