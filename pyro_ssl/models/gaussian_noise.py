"""The form of R, the noise that sensors share: any covariance, one by sensor, or of low rank.

Next file to read: ``gaussian_regression.py``, which estimates it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..arguments import whole

__all__ = ["NOISES", "check_rank", "form_of", "low_rank"]

NOISES = ("full", "diagonal", "low-rank")
STEPS = 50
#: least share of a sensor's variance that is its own
OWN = 1e-3


def check_rank(noise: str, rank: int | None) -> int | None:
    """Return the rank of the noise that sensors share, where it has one; 1 by default.

    :raises ValueError: if it is not 1 at least, or the noise has none.
    """
    if noise != "low-rank":
        if rank is not None:
            raise ValueError(
                f'noise_rank is {rank} beside noise="{noise}", expected none; write '
                f'GaussianSSL(..., noise="low-rank", noise_rank={rank}).'
            )
        return None
    return whole("GaussianSSL", "noise_rank", 1 if rank is None else rank, 1)


def form_of(noise: str, rank: int | None) -> Callable[[Tensor], Tensor]:
    """Return what makes a covariance of any kind, ``(E, E)``, one of a form."""
    if noise == "diagonal":
        return lambda R: R.diagonal().diag()
    if noise == "low-rank":
        assert rank is not None
        return lambda R: low_rank(R, rank)
    return lambda R: R


def low_rank(R: Tensor, rank: int) -> Tensor:
    r"""Return L Lᵀ + Ψ with L ``(E, r)`` and Ψ diagonal, as likely as can be where R was found.

    That is factor analysis of maximum likelihood: given Ψ, L are the first eigenvectors of
    Ψ^{-1/2} R Ψ^{-1/2}, each times the root of its eigenvalue less 1; given L, Ψ is what of each
    sensor's variance they leave. Sensors keep the variance that they have in R.

    *Reference*: Jöreskog, "Some contributions to maximum likelihood factor analysis", 1967.

    Example::

        >>> a = torch.tensor([1.0, -2.0, 0.5, 1.5])
        >>> R = torch.outer(a, a) + torch.eye(4)
        >>> bool((low_rank(R, 1) - R).abs().max() < 1e-3)
        True
    """
    variance = R.diagonal()
    own = 0.5 * variance
    shared = torch.zeros_like(R)
    for _ in range(STEPS):
        root = own.sqrt()
        values, vectors = torch.linalg.eigh(R / root / root.unsqueeze(-1))
        size = (values[-rank:] - 1.0).clamp(min=0.0).sqrt()
        loading = root.unsqueeze(-1) * vectors[:, -rank:] * size
        shared = loading @ loading.T
        own = torch.maximum(variance - shared.diagonal(), OWN * variance)
    return shared + torch.diag(own)
