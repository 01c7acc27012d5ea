"""What a fitted Gaussian SSL finds of data: how likely they are, where the path is, where it goes.

Next file to read: ``gaussian.py``, which fits it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exact import LinearEmission
from ..infer import ParticleFilter, ParticleGibbs
from ..reading.context import private_store
from ..transitions import RecurrentGaussianTransition
from .base import Model
from .gaussian_data import Series, take_series
from .gaussian_results import GaussianForecast, Tracked
from .settings import checked

__all__ = ["Tracker"]


class Tracker(Model):
    """A model of paths behind observations, C z_t + b and noise of covariance R.

    A subclass has the Pyro model of ``(x, lengths, mask)``, and fits it.
    """

    transition: RecurrentGaussianTransition

    #: C ``(E, D)``, b ``(E,)`` and R ``(E, E)``, once fitted
    loading: Tensor | None
    offset: Tensor | None
    covariance: Tensor | None

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        for name in ("loading", "offset", "covariance"):
            self.register_buffer(name, None)

    def model(self, x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> None:
        """Run the Pyro model."""
        raise NotImplementedError

    @checked
    def log_likelihood(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_particles: int = 1000,
    ) -> Tensor:
        """Return log p̂(x_t | x_{1:t-1}), float64 ``(T, B)``, by a particle filter.

        It is in nats, over all E coordinates together, and 0 where nothing was observed.
        """
        data = self._take("log_likelihood", x, lengths, mask)
        with private_store():
            return ParticleFilter(self.model, num_particles).log_likelihood(*data)

    @checked
    @torch.no_grad()
    def filter(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_particles: int = 1000,
    ) -> Tracked:
        """Return where C z_t + b is, given x_{1:t}."""
        data = self._take("filter", x, lengths, mask)
        with private_store():
            sweep = ParticleFilter(self.model, num_particles).sweep(*data)
        return Tracked.of_paths(*self._moved(sweep.z.movedim(2, 0)))  # (P, T, B, E)

    @checked
    @torch.no_grad()
    def smooth(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_samples: int = 100,
        warmup_steps: int = 20,
        num_chains: int = 4,
        num_particles: int = 20,
    ) -> Tracked:
        """Return where C z_t + b is, given all of x, by particle Gibbs."""
        data = self._take("smooth", x, lengths, mask)
        with private_store():
            sampler = ParticleGibbs(self.model, num_particles)
            how_long = {"num_samples": num_samples, "warmup_steps": warmup_steps}
            sampler.run(*data, num_chains=num_chains, disable_progbar=True, **how_long)
        return Tracked.of_paths(*self._moved(sampler.get_samples()["z"].transpose(1, 2)))

    @checked
    @torch.no_grad()
    def forecast(
        self,
        x: Tensor,
        horizon: int,
        *,
        mask: Tensor | None = None,
        num_particles: int = 1000,
    ) -> GaussianForecast:
        """Return x_{T+1:T+S} given x_{1:T}, a mixture over particles that are rolled out.

        :param int horizon: S.
        """
        x, _, mask = self._take("forecast", x, None, mask)
        longer = F.pad(x, (0, 0, 0, 0, 0, horizon), value=torch.nan)
        mask = None if mask is None else F.pad(mask, (0, 0, 0, horizon))
        with private_store():
            particles = ParticleFilter(self.model, num_particles)
            paths = particles.forecast(longer, None, mask, start=len(x)).paths  # (P, B, S, D)
        moved = self._moved(paths.transpose(1, 2))  # (P, S, B, E)
        return GaussianForecast.of_paths(*moved, self.emission.covariance)

    @property
    def emission(self) -> LinearEmission:
        """C, b and R, of x_t given z_t.

        :raises RuntimeError: if the model was neither fitted nor started.
        """
        return LinearEmission(*self._fitted())

    def _sizes_of_buffers(self, tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        E = len(tensors["offset"]) if "offset" in tensors else 0
        return {"loading": (E, self.transition.dim), "offset": (E,), "covariance": (E, E)}

    def _check_values(self) -> None:
        super()._check_values()
        R = self.emission.covariance
        rounding = 1e-5 * R.diagonal().abs().max()
        if bool(((R - R.T).abs() > rounding).any()) or int(torch.linalg.cholesky_ex(R).info):
            raise ValueError("a covariance that is not symmetric and positive definite")
        if not bool(self.transition.min_scale > 0) or not bool(self.transition.increment_scale > 0):
            raise ValueError("a scale of the transition that is not positive")

    def _moved(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """C z, and b."""
        loading, offset, _ = self.emission
        return z @ loading.T, offset

    def _take(self, method: str, x: Any, lengths: Any, mask: Any, anew: bool = False) -> Series:
        """The data as tensors, checked; for a fit, of any number of sensors."""
        self._check_dtype(f"GaussianSSL.{method}")
        num_sensors = None if anew else len(self.emission.offset)
        like = self.transition.like
        return take_series(f"GaussianSSL.{method}", x, lengths, mask, like, num_sensors)
