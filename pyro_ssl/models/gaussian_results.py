"""What a Gaussian SSL finds: where a path is, and where it goes."""

from __future__ import annotations

from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["GaussianForecast", "Tracked"]


class Tracked(NamedTuple):
    """``mean`` and ``scale`` (standard deviation) of C z_t + b, each ``(T, B, E)``.

    An observation there varies by R too: its variance is R's diagonal more than ``scale`` squared.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of_paths(cls, moved: Tensor, offset: Tensor) -> Tracked:
        """Return where draws of C z, ``(S, T, B, E)``, are; one alone has the scale 0."""
        return cls(moved.mean(0) + offset, moved.std(0, correction=min(1, len(moved) - 1)))


class GaussianForecast(NamedTuple):
    """Later observations: draws, ``samples`` ``(P, S, B, E)``, and their ``mean`` ``(S, B, E)``.

    ``covariance`` ``(S, B, E, E)`` is that of C z_t + b, the path without the noise.
    """

    samples: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of_paths(cls, moved: Tensor, offset: Tensor, noise: Tensor) -> GaussianForecast:
        """Return the forecast of C z_t, ``(P, S, B, E)``, and b, under noise of covariance R."""
        mean = moved.mean(0)
        draws = dist.MultivariateNormal(torch.zeros_like(moved), noise).sample()
        away = moved - mean
        covariance = torch.einsum("psbe,psbf->sbef", away, away) / len(away)
        return cls(moved + draws + offset, mean + offset, covariance)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval, each ``(S, B, E)``."""
        if not 0.0 < level < 1.0:
            raise ValueError(
                f"interval: found level={level}, expected a probability strictly between 0 and 1; "
                "write interval(0.9) for 90 %."
            )
        tail = (1.0 - level) / 2.0
        return self.samples.quantile(tail, 0), self.samples.quantile(1.0 - tail, 0)
