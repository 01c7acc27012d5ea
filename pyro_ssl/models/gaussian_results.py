"""What a Gaussian SSL says: how a fit went, where a path is, and where it goes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["GaussianForecast", "GaussianRecord", "Tracked"]


class GaussianRecord(NamedTuple):
    """What one epoch of :meth:`GaussianSSL.fit` came to.

    ``loss`` is -log p(z, x) in nats per observed step, ``change_rate`` the share of latents that
    the epoch renewed.
    """

    epoch: int
    loss: float
    change_rate: float
    seconds: float


class Tracked(NamedTuple):
    """``mean`` and ``scale`` (standard deviation) of C z_t + b, each ``(T, B, E)``.

    An observation there varies by R more: its variance is ``scale``² plus R's diagonal.
    """

    mean: Tensor
    scale: Tensor


class GaussianForecast(NamedTuple):
    """The law of later observations: draws ``samples`` ``(P, S, B, E)``, ``mean`` ``(S, B, E)``.

    ``covariance`` ``(S, B, E, E)`` is that of C z_t + b, the path without the noise.
    """

    samples: Tensor
    mean: Tensor
    covariance: Tensor

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval, each ``(S, B, E)``."""
        tail = (1.0 - level) / 2.0
        return self.samples.quantile(tail, 0), self.samples.quantile(1.0 - tail, 0)
