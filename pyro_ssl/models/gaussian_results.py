"""What a Gaussian SSL finds: where a path is, and where it goes."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["GaussianForecast", "Tracked"]


class Tracked(NamedTuple):
    """``mean`` and ``scale`` (standard deviation) of C z_t + b, each ``(T, B, E)``.

    An observation there varies by R more: its variance is ``scale``² plus R's diagonal.
    """

    mean: Tensor
    scale: Tensor


class GaussianForecast(NamedTuple):
    """Later observations: draws, ``samples`` ``(P, S, B, E)``, and their ``mean`` ``(S, B, E)``.

    ``covariance`` ``(S, B, E, E)`` is that of C z_t + b, the path without the noise.
    """

    samples: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of_paths(cls, place: Tensor, noise: Tensor) -> GaussianForecast:
        """Return the forecast of paths C z_t + b, ``(P, S, B, E)``, under noise of covariance R."""
        mean = place.mean(0)
        draws = dist.MultivariateNormal(torch.zeros_like(place), noise).sample()
        away = place - mean
        covariance = torch.einsum("psbe,psbf->sbef", away, away) / len(away)
        return cls(place + draws, mean, covariance)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval, each ``(S, B, E)``."""
        tail = (1.0 - level) / 2.0
        return self.samples.quantile(tail, 0), self.samples.quantile(1.0 - tail, 0)
