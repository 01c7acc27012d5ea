"""Start values of a Gaussian SSL, found of the data alone.

Next files to read: ``gaussian_regression.py``, the M-step of C, b and R; ``gaussian.py``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..exact import LinearEmission
from ..exact.standard import never_observed, unit_of
from ..transitions import Moments, RecurrentGaussianTransition

__all__ = [
    "GaussianStart",
    "start_transition",
    "start_values",
]

BEGINS = 3  # first steps of a sequence, whose mean is taken for where it begins


class GaussianStart(NamedTuple):
    """Start values; ``scale`` and ``increment_scale`` are in units of the latents."""

    emission: LinearEmission
    #: standard deviation of a step of the path
    scale: float
    #: size of a step of the path
    increment_scale: float
    #: mean and standard deviation of the first latent, each ``(D,)``
    first: Moments


@torch.no_grad()
def start_values(
    x: Tensor, seen: Tensor, dim: int, loading: Tensor | None, offset: Tensor | None
) -> GaussianStart:
    """Find start values for D latents behind ``x`` ``(T, B, E)``, with C and b if they are given.

    ``seen``, of that shape, tells what was observed.

    Of a smooth path x_t = C z_t + b + noise, second differences are noise alone, of variance 6R,
    and E (x_{t+k} - x_t)² = k² v² + 2R, with v the size of its steps. All is found of x in its own
    units, about its own origin, so that neither matters.

    :raises ValueError: if too little was observed, or C or b does not fit.
    """
    E, N = x.shape[-1], int(seen.any(-1).sum())
    if (missing := never_observed(seen)) and N:
        raise ValueError(f"GaussianSSL.fit: {missing}")
    if N < max(2, 0 if loading is not None else dim) or E < dim and loading is None:
        raise ValueError(
            f"GaussianSSL.fit: x has shape {tuple(x.shape)} with {N} steps "
            f"observed, expected (T, B, E) with {max(2, dim)} at least and E >= D = {dim}; give "
            "loading= to choose C yourself."
        )
    mean, unit = unit_of(x, seen)
    y = torch.where(seen, (x.double() - mean) / unit, 0.0)
    if loading is not None:
        C = loading.double() / unit.unsqueeze(-1)
    elif E == dim:
        C = torch.eye(E, dtype=y.dtype, device=y.device)
    else:
        _, value, vector = torch.linalg.svd(y[seen.any(-1)], full_matrices=False)
        C = vector[:dim].T * (value[:dim] / math.sqrt(N))
    b = torch.zeros_like(mean) if offset is None else (offset.double() - mean) / unit
    noise, speed = _noise_and_speed(y, seen)
    to_latent = torch.linalg.pinv(C).square()
    # Well below what the noise would move the latents by, so that the first paths are smooth.
    scale = 0.3 * (to_latent @ noise).sqrt().mean()
    if not bool(scale > 0):
        raise ValueError(
            "GaussianSSL.fit: no latent moves x, as loading is 0; expected a C of rank D; write "
            "loading=torch.eye(E, D), or leave it out."
        )
    step = (to_latent @ speed).mean().sqrt().clamp(min=scale)
    scale = torch.maximum(scale, 0.3 * step)  # where there is little noise, to follow the path
    emission = LinearEmission(
        C * unit.unsqueeze(-1) if loading is None else loading,
        mean if offset is None else offset,
        torch.diag(noise * unit.square()),
    )
    first = _first(y, seen, C, b, (to_latent @ noise).sqrt().clamp(min=scale))
    return GaussianStart(
        LinearEmission(*(value.to(x) for value in emission)),
        float(scale),
        float(step),
        Moments(*(value.to(x) for value in first)),
    )


def _noise_and_speed(y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """R's diagonal and v² of standardised data, each ``(E,)``."""
    bend = y[2:] - 2 * y[1:-1] + y[:-2]
    noise = _mean_square(bend, seen[2:] & seen[1:-1] & seen[:-2], 0.6) / 6.0
    noise = noise.clamp(min=1e-4, max=0.5)
    k = min(10, max(len(y) // 4, 1))
    # Where no two steps are so far apart, the path moves by as much as its noise.
    apart = _mean_square(y[k:] - y[:-k], seen[k:] & seen[:-k], torch.nan)
    speed = (apart - 2 * noise).clamp(min=0.0) / k**2
    return noise, torch.where(apart.isnan(), noise, speed)


def _mean_square(values: Tensor, seen: Tensor, otherwise: float) -> Tensor:
    """Mean square of each sensor over what was observed, ``(E,)``."""
    count = seen.sum((0, 1))
    total = torch.where(seen, values, 0.0).square().sum((0, 1))
    return torch.where(count > 0, total / count.clamp(min=1), otherwise)


def _first(y: Tensor, seen: Tensor, C: Tensor, b: Tensor, around: Tensor) -> Moments:
    """Where the first latent is: of standardised data, emission and noise."""
    count = seen[:BEGINS].sum(0)  # (B, E)
    places = torch.where(seen[:BEGINS], y[:BEGINS], 0.0).sum(0) / count.clamp(min=1)
    whole = (count > 0).all(-1)
    if not bool(whole.any()):
        return Moments(torch.zeros_like(around), torch.ones_like(around))
    at = (places[whole] - b) @ torch.linalg.pinv(C).T
    apart = at.std(0, correction=0)
    return Moments(at.mean(0), (apart.square() + around.square()).sqrt())


@torch.no_grad()
def start_transition(transition: RecurrentGaussianTransition, start: GaussianStart) -> None:
    """Let a transition begin with small steps from z_{t-1}."""
    transition.min_scale.fill_(0.3 * start.scale)
    transition.increment_scale.fill_(start.increment_scale)
    rest = 0.7 * start.scale  # softplus of the bias; its inverse, which large ones do not overflow
    transition.head.bias[transition.dim :] = rest + math.log(-math.expm1(-rest))
    transition.head.weight.mul_(0.1)
    if transition.residual:
        transition.initial_mean.copy_(start.first.mean)
        transition.log_initial_scale.copy_(start.first.scale.log())
