r"""Noisy observations of a point that moves on a curve: line, sine, circle, swiss roll.

The synthetic tracking of Zheng et al. 2017 (arXiv 1711.11179, section 5.1). With u even over
[0, 4π], the latent point is

* line: (u / 4π, u / 4π);
* sine: (u / 4π, sin u);
* circle: (cos u, sin u);
* swiss roll: (u / 4π + 1/2) (cos u, sin u);

and x_t = z_t + noise of standard deviation 0.3 in each coordinate.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..exact.kalman import LinearEmission
from ..transitions import LinearGaussianTransition
from .arguments import generator, integer, real

__all__ = ["CURVES", "Curve", "Rotation", "noisy_curve", "noisy_rotation"]

#: names of the curves
CURVES = ("line", "sine", "circle", "swiss roll")


class Curve(NamedTuple):
    """``x`` and ``z``, observations and the point itself, each ``(T, B, 2)``, time first."""

    x: Tensor
    z: Tensor


def noisy_curve(
    kind: str, num_steps: int = 140, num_sequences: int = 1, *, noise: float = 0.3, seed: int = 0
) -> Curve:
    """Draw observations of one curve.

    :param str kind: one of :data:`CURVES`.
    :param int num_steps: T.
    :param int num_sequences: B, each with noise of its own.
    :param float noise: standard deviation of each coordinate.
    :param int seed: of the noise, which has a generator of its own.
    :raises ValueError: on another kind, or if a number is out of range.

    **Example**::

        >>> x, z = noisy_curve("circle", num_steps=50)
        >>> x.shape, bool(z.norm(dim=-1).allclose(torch.ones(50, 1)))
        (torch.Size([50, 1, 2]), True)
    """
    if kind not in CURVES:
        raise ValueError(f'noisy_curve: kind is "{kind}", expected one of {CURVES}.')
    num_steps = integer(num_steps, "num_steps", "noisy_curve")
    num_sequences = integer(num_sequences, "num_sequences", "noisy_curve", least=0)
    noise, draw = real(noise, "noise", "noisy_curve", low=0.0), generator(seed, "noisy_curve")
    dtype = torch.get_default_dtype()
    u = torch.linspace(0.0, 4.0 * math.pi, num_steps, device="cpu", dtype=dtype)
    share, around = u / (4.0 * math.pi), torch.stack([u.cos(), u.sin()], -1)
    z = {
        "line": torch.stack([share, share], -1),
        "sine": torch.stack([share, u.sin()], -1),
        "circle": around,
        "swiss roll": (share + 0.5).unsqueeze(-1) * around,
    }[kind]
    z = z.unsqueeze(1).expand(-1, num_sequences, -1)
    return Curve(z + noise * torch.randn(z.shape, generator=draw, device="cpu", dtype=dtype), z)


class Rotation(NamedTuple):
    """``x`` and ``z``, ``(T, B, 2)``, and the distribution that they were drawn from."""

    x: Tensor
    z: Tensor
    transition: LinearGaussianTransition
    emission: LinearEmission


def noisy_rotation(
    num_steps: int,
    num_sequences: int = 1,
    *,
    angle: float = 0.3,
    damping: float = 0.98,
    scale: float = 0.15,
    noise: float = 0.3,
    seed: int = 0,
) -> Rotation:
    """Draw points that turn about the origin, pushed at random, and noisy observations of them.

    z_t = ρ Rot(angle) z_{t-1} + scale ε with z_1 ~ N(0, 1), x_t = z_t + noise η: a planted model
    whose exact answers :func:`~pyro_ssl.exact.kalman.kalman_filter` knows.

    :param int num_steps: T.
    :param int num_sequences: B.
    :param float angle: of a step, in radians.
    :param float damping: ρ.
    :param int seed: of a generator of its own.
    :raises ValueError: if a number is out of range.

    **Example**::

        >>> data = noisy_rotation(num_steps=50, num_sequences=3)
        >>> data.x.shape, data.transition.dim
        (torch.Size([50, 3, 2]), 2)
    """
    caller = "noisy_rotation"
    num_steps = integer(num_steps, "num_steps", caller)
    num_sequences = integer(num_sequences, "num_sequences", caller, least=0)
    angle, damping = real(angle, "angle", caller), real(damping, "damping", caller)
    scale, noise = (real(v, n, caller, low=0.0) for v, n in ((scale, "scale"), (noise, "noise")))
    draw = generator(seed, caller)
    like: dict[str, Any] = {"device": "cpu", "dtype": torch.get_default_dtype()}
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix = damping * torch.tensor(turn, **like)
    noises = torch.randn(2, num_steps, num_sequences, 2, generator=draw, **like)
    path = [noises[0, 0]]
    for t in range(1, num_steps):
        path.append(path[-1] @ matrix.T + scale * noises[0, t])
    z, zeros, ones = torch.stack(path), torch.zeros(2, **like), torch.ones(2, **like)
    transition = LinearGaussianTransition(
        2,
        matrix=matrix,
        offset=zeros,
        scale=scale * ones,
        initial_mean=zeros,
        initial_scale=ones,
    )
    emission = LinearEmission(torch.eye(2, **like), zeros, noise**2 * torch.eye(2, **like))
    return Rotation(z + noise * noises[1], z, transition, emission)
