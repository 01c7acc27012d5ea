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
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CURVES", "Curve", "noisy_curve"]

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
    :raises ValueError: on another kind.

    **Example**::

        >>> x, z = noisy_curve("circle", num_steps=50)
        >>> x.shape, bool(z.norm(dim=-1).allclose(torch.ones(50, 1)))
        (torch.Size([50, 1, 2]), True)
    """
    if kind not in CURVES:
        raise ValueError(f'noisy_curve: kind is "{kind}", expected one of {CURVES}.')
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
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return Curve(
        z + noise * torch.randn(z.shape, generator=generator, device="cpu", dtype=dtype), z
    )
