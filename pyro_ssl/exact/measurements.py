r"""What a linear emission measures of z_t, sensors that were not observed left out.

With L Lᵀ the covariance of the noise of the sensors that were observed, y = L⁻¹ (x - d) measures
H z, H = L⁻¹ C, with noise N(0, 1). Where there are more sensors than latents, H = Q U with Q
orthonormal, and the D numbers Qᵀ y say all that y says of z: a step then costs by D, not by E.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import may_read

__all__ = ["LinearEmission", "Measurements", "measurements"]


class LinearEmission(NamedTuple):
    """x_t ~ N(C z_t + d, R).

    ``matrix`` C, ``(E, D)``; ``offset`` d, ``(E,)``; ``covariance`` R, ``(E, E)``, positive
    definite.
    """

    matrix: Tensor
    offset: Tensor
    covariance: Tensor


class Measurements(NamedTuple):
    """y_t ~ N(H_t z_t, 1), of M numbers: E, or D where these are fewer.

    ``matrix`` H, ``(T, B, M, D)``; ``value`` y, ``(T, B, M)``; ``constant`` is log p(x_t | z_t)
    less log N(y_t; H_t z_t, 1) without its 2π, ``(T, B)``. What was not observed has H = 0, y = 0.
    """

    matrix: Tensor
    value: Tensor
    constant: Tensor


def measurements(emission: LinearEmission, x: Tensor, seen: Tensor) -> Measurements:
    """Return what ``x`` ``(T, B, E)`` measures, of which ``seen`` tells what was observed."""
    C, d, R = emission
    T, B, E = x.shape
    D = C.shape[1]
    patterns, index = _patterns(seen)
    pair = patterns.unsqueeze(-1) & patterns.unsqueeze(-2)
    own = torch.eye(E, dtype=torch.bool, device=x.device)
    root = torch.linalg.cholesky(torch.where(pair | own, R, 0.0))  # (N, E, E)
    H = torch.linalg.solve_triangular(
        root, torch.where(patterns.unsqueeze(-1), C, 0.0), upper=False
    )
    log_det = torch.where(patterns, root.diagonal(dim1=-2, dim2=-1).log(), 0.0).sum(-1)
    constant = -log_det - 0.5 * math.log(2.0 * math.pi) * patterns.sum(-1).to(log_det)
    # Selected, not multiplied by 0: data that are not observed may be NaN.
    away = torch.where(seen, x - d, 0.0)
    y = torch.linalg.solve_triangular(_each(root, index, T, B), away.unsqueeze(-1), upper=False)
    rest = torch.zeros_like(y[..., 0, 0])
    # QR has no gradient where a frame has fewer sensors than D.
    if E > D and not (torch.is_grad_enabled() and H.requires_grad):
        Q, H = torch.linalg.qr(H)  # (N, E, D), (N, D, D)
        Q = _each(Q, index, T, B)
        short = Q.mT @ y
        rest = (y - Q @ short).square().sum((-2, -1))
        y = short
    constant = _each(constant, index, T, B) - 0.5 * rest
    return Measurements(_each(H, index, T, B), y.squeeze(-1), constant)


def _patterns(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The sets of sensors that were observed together, ``(N, E)``, and that of each frame."""
    frames = seen.flatten(0, 1)
    if may_read(seen) and frames.numel():
        patterns, index = frames.unique(dim=0, return_inverse=True)
        return patterns, index
    return frames, torch.arange(len(frames), device=seen.device)


def _each(values: Tensor, index: Tensor, T: int, B: int) -> Tensor:
    """Lay values by pattern, ``(N, ...)``, out by frame: ``(T, B, ...)``."""
    if len(values) == 1:  # all frames are alike: one in memory
        return values.unsqueeze(0).expand(T, B, *values.shape[1:])
    return values[index].unflatten(0, (T, B))
