"""What the fit of a Gaussian SSL has in closed form: start values, and the M-step of C, b and R.

Next file to read: ``gaussian.py``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..exact import LinearEmission
from ..transitions import Moments, RecurrentGaussianTransition
from .words import active_cells

__all__ = [
    "EmissionRegression",
    "GaussianStart",
    "observed",
    "seen_steps",
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


def observed(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Data with 0 where nothing was observed, and where something was, bool ``(T, B)``."""
    there = x.isfinite().all(-1)
    if mask is not None:
        there = there & mask
    return torch.where(there.unsqueeze(-1), x, 0.0), there


def seen_steps(x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> Tensor:
    """Steps observed within the lengths, bool ``(T, B)``."""
    return observed(x, mask)[1] & active_cells(x, lengths)


@torch.no_grad()
def start_values(
    x: Tensor, seen: Tensor, dim: int, loading: Tensor | None, offset: Tensor | None
) -> GaussianStart:
    """Find start values for D latents behind ``x`` ``(T, B, E)``, with C and b if they are given.

    Of a smooth path x_t = C z_t + b + noise, second differences are noise alone, of variance 6R,
    and E (x_{t+k} - x_t)² = k² v² + 2R, with v the size of its steps.

    :raises ValueError: if too little was observed, or C or b does not fit.
    """
    E = x.shape[-1]
    if int(seen.sum()) < 2 or E < dim and loading is None:
        raise ValueError(
            f"GaussianSSL.fit: x has shape {tuple(x.shape)} with {int(seen.sum())} steps "
            f"observed, expected (T, B, E) with 2 at least and E >= D = {dim}; give loading= to "
            "choose C yourself."
        )
    points = x[seen]  # (N, E)
    mean, spread = points.mean(0), points.std(0).clamp(min=1e-6)
    if loading is None and E == dim:
        loading = torch.diag(spread)
    elif loading is None:
        _, value, vector = torch.linalg.svd(points - mean, full_matrices=False)
        loading = vector[:dim].T * (value[:dim] / math.sqrt(len(points)))
    offset = mean if offset is None else offset
    if loading.shape != (E, dim) or offset.shape != (E,):
        raise ValueError(
            f"GaussianSSL.fit: loading has shape {tuple(loading.shape)} and offset "
            f"{tuple(offset.shape)}, expected {(E, dim)} and {(E,)}."
        )
    triple = seen[2:] & seen[1:-1] & seen[:-2]
    bend = (x[2:] - 2 * x[1:-1] + x[:-2])[triple]
    noise = bend.square().mean(0) / 6.0 if len(bend) else 0.1 * spread.square()
    noise = noise.clamp(min=1e-4 * spread.square(), max=0.5 * spread.square())
    to_latent = torch.linalg.pinv(loading).square()
    # Well below what the noise would move the latents by, so that the first paths are smooth.
    scale = 0.3 * (to_latent @ noise).sqrt().mean()
    k = min(10, max(len(x) // 4, 1))
    apart = (x[k:] - x[:-k])[seen[k:] & seen[:-k]]
    speed = (apart.square().mean(0) - 2 * noise).clamp(min=0.0) / k**2 if len(apart) else noise
    step = (to_latent @ speed).mean().sqrt().clamp(min=scale)
    scale = torch.maximum(scale, 0.3 * step)  # where there is little noise, to follow the path
    begins = seen[:BEGINS].unsqueeze(-1)  # (k, B, 1)
    count = begins.sum(0)
    places = torch.where(begins, x[:BEGINS], 0.0).sum(0) / count.clamp(min=1)  # (B, E)
    places = places[count.squeeze(-1) > 0]
    around = (to_latent @ noise).sqrt()
    first = Moments(torch.zeros_like(around), torch.ones_like(around))
    if len(places):
        at = (places - offset) @ torch.linalg.pinv(loading).T
        apart = at.std(0, correction=0)
        first = Moments(at.mean(0), (apart.square() + around.square()).sqrt())
    return GaussianStart(
        LinearEmission(loading, offset, torch.diag(noise)), float(scale), float(step), first
    )


@torch.no_grad()
def start_transition(transition: RecurrentGaussianTransition, start: GaussianStart) -> None:
    """Let a transition begin with small steps from z_{t-1}."""
    transition.min_scale.fill_(0.3 * start.scale)
    transition.increment_scale.fill_(start.increment_scale)
    # softplus of the bias is the rest of the scale
    transition.head.bias[transition.dim :] = math.log(math.expm1(0.7 * start.scale))
    transition.head.weight.mul_(0.1)
    if transition.residual:
        transition.initial_mean.copy_(start.first.mean)
        transition.log_initial_scale.copy_(start.first.scale.log())


class EmissionRegression:
    """R, and if asked C and b, of the highest likelihood given the paths of the epochs so far.

    :param Tensor x: ``(T, B, E)``.
    :param Tensor seen: which steps were observed, bool ``(T, B)``.
    :param int num_paths: M, paths of each sequence.
    :param bool learn_loading: estimate C and b too.
    :param float averaging: weight of the past, in [0, 1).

    Example::

        >>> z = torch.randn(1, 500, 1)
        >>> regression = EmissionRegression(
        ...     3.0 * z.transpose(0, 1), torch.ones(500, 1).bool(), 1, True, 0.0
        ... )
        >>> start = LinearEmission(torch.ones(1, 1), torch.zeros(1), torch.eye(1))
        >>> round(regression.update(z, start).matrix.item(), 3)
        3.0
    """

    def __init__(
        self, x: Tensor, seen: Tensor, num_paths: int, learn_loading: bool, averaging: float
    ) -> None:
        self._seen = seen.repeat(1, num_paths)  # (T, B M)
        self._target = x.repeat(1, num_paths, 1)[self._seen]  # (N, E)
        self._learn_loading, self._averaging = learn_loading, averaging
        self._moments: Tensor | None = None  # of [x, z, 1], (E + D + 1, E + D + 1)

    @property
    def num_observed(self) -> int:
        """Steps observed, those of each path counted."""
        return len(self._target)

    @torch.no_grad()
    def update(self, paths: Tensor, emission: LinearEmission) -> LinearEmission:
        """Take in an epoch's paths ``(B M, T, D)``; return the estimate.

        :param LinearEmission emission: C and b, where they are fixed.
        """
        x, z = self._target, paths.transpose(0, 1)[self._seen]
        joint = torch.cat([x, z, torch.ones_like(z[:, :1])], -1)
        moments = joint.T @ joint / len(joint)
        if self._moments is not None:
            moments = self._averaging * self._moments + (1 - self._averaging) * moments
        self._moments = moments
        loading, offset, _ = emission
        E = len(offset)
        xx, xz, zz = moments[:E, :E], moments[:E, E:], moments[E:, E:]
        weight = torch.cat([loading, offset.unsqueeze(-1)], -1)
        if self._learn_loading:
            ridge = torch.diag(1e-6 * zz.diagonal())
            weight = torch.linalg.solve(zz + ridge, xz.T).T
            loading, offset = weight[:, :-1], weight[:, -1]
        R = xx - weight @ xz.T - xz @ weight.T + weight @ zz @ weight.T
        return LinearEmission(loading, offset, 0.5 * (R + R.T) + torch.diag(1e-6 * xx.diagonal()))
