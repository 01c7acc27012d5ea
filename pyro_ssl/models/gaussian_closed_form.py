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

__all__ = [
    "EmissionRegression",
    "GaussianStart",
    "start_transition",
    "start_values",
    "unit_of",
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


def unit_of(x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return origin and unit of each sensor, mean and standard deviation, float64 ``(E,)`` each.

    A sensor that is constant, as far as its dtype can tell, has none of its own: it is given the
    typical one of the others.
    """
    points = x[seen].double()  # (N, E)
    mean, spread, level = points.mean(0), points.std(0), points.abs().amax(0)
    flat = ~(spread > 4 * torch.finfo(x.dtype).eps * level)
    if bool(flat.all()):
        return mean, torch.where(level > 0, level, 1.0)
    return mean, torch.where(flat, spread[~flat].log().mean().exp(), spread)


@torch.no_grad()
def start_values(
    x: Tensor, seen: Tensor, dim: int, loading: Tensor | None, offset: Tensor | None
) -> GaussianStart:
    """Find start values for D latents behind ``x`` ``(T, B, E)``, with C and b if they are given.

    Of a smooth path x_t = C z_t + b + noise, second differences are noise alone, of variance 6R,
    and E (x_{t+k} - x_t)² = k² v² + 2R, with v the size of its steps. All is found of x in its own
    units, about its own origin, so that neither matters.

    :raises ValueError: if too little was observed, or C or b does not fit.
    """
    E, N = x.shape[-1], int(seen.sum())
    if N < max(2, 0 if loading is not None else dim) or E < dim and loading is None:
        raise ValueError(
            f"GaussianSSL.fit: x has shape {tuple(x.shape)} with {N} steps "
            f"observed, expected (T, B, E) with {max(2, dim)} at least and E >= D = {dim}; give "
            "loading= to choose C yourself." + _missing(x)
        )
    mean, unit = unit_of(x, seen)
    y = (x.double() - mean) / unit
    if loading is not None:
        C = loading.double() / unit.unsqueeze(-1)
    elif E == dim:
        C = torch.eye(E, dtype=y.dtype, device=y.device)
    else:
        _, value, vector = torch.linalg.svd(y[seen], full_matrices=False)
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
    triple = seen[2:] & seen[1:-1] & seen[:-2]
    bend = (y[2:] - 2 * y[1:-1] + y[:-2])[triple]
    noise = bend.square().mean(0) / 6.0 if len(bend) else torch.full_like(y[0, 0], 0.1)
    noise = noise.clamp(min=1e-4, max=0.5)
    k = min(10, max(len(y) // 4, 1))
    apart = (y[k:] - y[:-k])[seen[k:] & seen[:-k]]
    speed = (apart.square().mean(0) - 2 * noise).clamp(min=0.0) / k**2 if len(apart) else noise
    return noise, speed


def _first(y: Tensor, seen: Tensor, C: Tensor, b: Tensor, around: Tensor) -> Moments:
    """Where the first latent is: of standardised data, emission and noise."""
    begins = seen[:BEGINS].unsqueeze(-1)  # (k, B, 1)
    count = begins.sum(0)
    places = torch.where(begins, y[:BEGINS], 0.0).sum(0) / count.clamp(min=1)  # (B, E)
    places = places[count.squeeze(-1) > 0]
    if not len(places):
        return Moments(torch.zeros_like(around), torch.ones_like(around))
    at = (places - b) @ torch.linalg.pinv(C).T
    apart = at.std(0, correction=0)
    return Moments(at.mean(0), (apart.square() + around.square()).sqrt())


def _missing(x: Tensor) -> str:
    """A sentence on sensors that were never observed, if there are any."""
    never = (~x.isfinite()).all(0).all(0)
    if not x.numel() or not bool(never.any()) or bool(never.all()):
        return ""
    keep = (~never).nonzero().squeeze(-1).tolist()
    return (
        f" A step counts where all its sensors were observed, and {int(never.sum())} of them never "
        f"was: write x[..., {keep if len(keep) < 20 else 'kept'}]."
    )


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
        self._origin, self._unit = unit_of(x, seen)
        self._seen = seen.repeat(1, num_paths)  # (T, B M)
        standard = (x.double() - self._origin) / self._unit
        self._target = standard.repeat(1, num_paths, 1)[self._seen]  # (N, E)
        self._learn_loading, self._averaging = learn_loading, averaging
        self._z_origin: Tensor | None = None  # (D,)
        self._moments: Tensor | None = None  # of [x, z, 1], (E + D + 1, E + D + 1)

    @property
    def state(self) -> tuple[Tensor | None, Tensor | None]:
        """What of the epochs so far is kept; to be set, to go on from there."""
        return self._z_origin, self._moments

    @state.setter
    def state(self, state: tuple[Tensor | None, Tensor | None]) -> None:
        self._z_origin, self._moments = state

    @property
    def num_observed(self) -> int:
        """Steps observed, those of each path counted."""
        return len(self._target)

    @torch.no_grad()
    def update(self, paths: Tensor, emission: LinearEmission) -> LinearEmission:
        """Take in an epoch's paths ``(B M, T, D)``; return the estimate.

        :param LinearEmission emission: C and b, where they are fixed.
        """
        z = paths.transpose(0, 1)[self._seen].double()
        # Moments about where x and z are: about 0 they would drown what they are for.
        at = self._z_origin = z.mean(0) if self._z_origin is None else self._z_origin
        joint = torch.cat([self._target, z - at, torch.ones_like(z[:, :1])], -1)
        moments = joint.T @ joint / len(joint)
        if self._moments is not None:
            moments = self._averaging * self._moments + (1 - self._averaging) * moments
        self._moments = moments
        unit, like = self._unit.unsqueeze(-1), emission.offset
        E = len(unit)
        xx, xz, zz = moments[:E, :E], moments[:E, E:], moments[E:, E:]
        if self._learn_loading:
            x_mean, z_mean = xz[:, -1:], zz[:-1, -1:]
            spread = zz[:-1, :-1] - z_mean @ z_mean.T
            ridge = torch.diag(1e-6 * spread.diagonal())
            C = (xz[:, :-1] - x_mean @ z_mean.T) @ torch.linalg.pinv(spread + ridge)
            b = x_mean - C @ z_mean
            offset = self._origin + (unit * (b - C @ at.unsqueeze(-1))).squeeze(-1)
            emission = LinearEmission((unit * C).to(like), offset.to(like), emission.covariance)
        else:
            C = emission.matrix.double() / unit
            b = (emission.offset.double() - self._origin).unsqueeze(-1) / unit
            b = b + C @ at.unsqueeze(-1)
        weight = torch.cat([C, b], -1)
        R = xx - weight @ xz.T - xz @ weight.T + weight @ zz @ weight.T
        R = 0.5 * (R + R.T) + 1e-6 * torch.eye(E, dtype=R.dtype, device=R.device)
        return LinearEmission(emission.matrix, emission.offset, (unit * R * unit.T).to(like))
