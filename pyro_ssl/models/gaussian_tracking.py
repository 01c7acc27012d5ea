"""What a fitted Gaussian SSL finds of data: how likely they are, and where the path is.

Next file to read: ``gaussian_forecasting.py``, which goes on from there.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..exact import LinearEmission
from ..exact.standard import unit_of
from ..infer import ParticleFilter, ParticleGibbs
from ..reading.context import all_or_nothing, private_store
from ..transitions import RecurrentGaussianTransition
from .base import Model
from .frames import Labels
from .gaussian_autoregression import Autoregression
from .gaussian_data import Series, take_series
from .gaussian_family import FAMILIES, Family, check_family
from .gaussian_gaps import ROWS
from .gaussian_region import Region, region_of
from .gaussian_results import Tracked
from .gaussian_turns import Turns
from .settings import checked

__all__ = ["Tracker"]

#: buffers that say where the latents of a fit were; see ``Region``
REGION = ("region_places", "region_root", "region_reach")
#: buffers that need not be there: these, weights of several epochs, and what ``calibrate`` found
LATER = (*REGION, "iterates", "gap_factors")


class Tracker(Model):
    """A model of paths behind observations of a family, about C z_t + b.

    A subclass has the Pyro model of ``(x, lengths, mask)``, and fits it.
    """

    transition: RecurrentGaussianTransition

    #: C ``(E, D)``, b ``(E,)`` and R ``(E, E)``, once fitted; see ``Family`` for R
    loading: Tensor | None
    offset: Tensor | None
    covariance: Tensor | None
    #: mean and standard deviation of each input over the data of the fit, ``(U,)``
    inputs_origin: Tensor
    inputs_unit: Tensor
    #: G ``(E, E)`` and m ``(E,)`` of an emission that reads x_{t-1}, once fitted
    lag_matrix: Tensor | None
    lag_origin: Tensor | None
    #: the transition's weights after several epochs of the fit, ``(M, N)``, or ``None``
    iterates: Tensor | None
    #: how far intervals of filled gaps are stretched, ``(11, E)``, or ``None``; see ``calibrate``
    gap_factors: Tensor | None

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        for name in ("loading", "offset", "covariance", *LATER):
            self.register_buffer(name, None)
        if size := config.get("input_size", 0):
            device, dtype = torch.get_default_device(), torch.get_default_dtype()
            self.register_buffer("inputs_origin", torch.zeros(size, device=device, dtype=dtype))
            self.register_buffer("inputs_unit", torch.ones(size, device=device, dtype=dtype))
        if config.get("autoregressive"):
            self.register_buffer("lag_matrix", None)
            self.register_buffer("lag_origin", None)

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
        inputs: Tensor | None = None,
        num_particles: int = 1000,
    ) -> Tensor:
        """Return log p̂(x_t | x_{1:t-1}), float64 ``(T, B)``, by a particle filter.

        It is in nats, over all E sensors together, and 0 where nothing was observed: a density, or
        of flags and counts a probability.
        """
        data = self._take("log_likelihood", x, lengths, mask, inputs)
        with private_store():
            return ParticleFilter(self.model, num_particles).log_likelihood(*data.arguments)

    @checked
    @torch.no_grad()
    def filter(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
        num_particles: int = 1000,
    ) -> Tracked:
        """Return where E[x_t | z_t] is, which is C z_t + b of numbers, and z_t, given x_{1:t}."""
        data = self._take("filter", x, lengths, mask, inputs)
        with private_store():
            sweep = ParticleFilter(self.model, num_particles).sweep(*data.arguments)
        z, w = sweep.z.movedim(2, 0), sweep.step_weights  # (P, T, B, D)
        w = None if w is None else w.movedim(2, 0).unsqueeze(-1)
        return Tracked.of_paths(*self._moved(z, data), z, data.labels, w)

    @checked
    @torch.no_grad()
    def smooth(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
        num_samples: int = 100,
        warmup_steps: int = 20,
        num_chains: int = 4,
        num_particles: int = 20,
    ) -> Tracked:
        """Return where E[x_t | z_t] is, and z_t, given all of x, by particle Gibbs."""
        data = self._take("smooth", x, lengths, mask, inputs)
        how = {"num_samples": num_samples, "warmup_steps": warmup_steps}
        z, whole = self._drawn(data, num_particles, num_chains, **how)
        return Tracked.of_paths(*self._moved(z, data if whole is None else whole), z, data.labels)

    @all_or_nothing
    def _drawn(
        self, data: Series, num_particles: int, num_chains: int, **how_long: int
    ) -> tuple[Tensor, Tensor | None]:
        """Draws of z given all of the data, ``(S, T, B, D)``, and perhaps of x with them.

        x is drawn where it is not all there and the next step reads it: ``(S, T, B, E)``.
        """
        with private_store(), poutine.block():
            lag = self.autoregression
            if lag is not None and not data.is_whole:
                turns = Turns(self.model, self.emission, lag, data, num_chains, num_particles)
                return turns.drawn(**how_long)
            sampler = ParticleGibbs(self.model, num_particles)
            how: dict[str, Any] = {"num_chains": num_chains, "disable_progbar": True, **how_long}
            sampler.run(*data.arguments, **how)
        return sampler.get_samples()["z"].transpose(1, 2), None

    @property
    def family(self) -> Family:
        """What x_t is, given C z_t + b."""
        return FAMILIES[self.config.get("emission", "gaussian")]

    @property
    def emission(self) -> LinearEmission:
        """C, b and R, of x_t given z_t; R is 1 of flags and counts, which have none.

        :raises RuntimeError: if the model was neither fitted nor started.
        """
        return LinearEmission(*self._fitted()[:3])

    @property
    def autoregression(self) -> Autoregression | None:
        """G and m, of x_t given x_{t-1}; ``None`` of a model that does not read it.

        :raises RuntimeError: if the model was neither fitted nor started.
        """
        if not self.config.get("autoregressive"):
            return None
        self._fitted()
        assert self.lag_matrix is not None and self.lag_origin is not None
        return Autoregression(self.lag_matrix, self.lag_origin)

    @property
    def region(self) -> Region | None:
        """Where the latents of the fit were; ``None`` of a model that was only started."""
        values = [getattr(self, name) for name in REGION]
        return None if values[0] is None else Region(*values)

    def _set_region(self, z: Tensor, within: Tensor) -> None:
        """Take it from draws of all latents, ``(T, M B, D)``, within the lengths, ``(T, B)``."""
        draws = z.unflatten(1, (-1, within.shape[1])).movedim(1, 0)  # (M, T, B, D)
        for name, value in zip(REGION, region_of(draws[:, within]), strict=True):
            setattr(self, name, value)

    def _fitted(self) -> tuple[Tensor, ...]:
        buffers = self._buffers
        if any(value is None for name, value in buffers.items() if name not in LATER):
            return super()._fitted()
        return tuple(value for value in buffers.values() if value is not None)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Let go of what the state does not have yet: that of an early epoch, or an old model."""
        for name in LATER:
            if prefix + name not in state_dict:
                self._buffers[name] = None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _sizes_of_buffers(self, tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        E = len(tensors["offset"]) if "offset" in tensors else 0
        D = self.transition.dim
        sizes: dict[str, tuple[int, ...]] = {"loading": (E, D), "offset": (E,)}
        sizes["covariance"] = (E, E)
        if self.config.get("autoregressive"):
            sizes |= {"lag_matrix": (E, E), "lag_origin": (E,)}
        if not tensors.keys().isdisjoint(REGION):
            shapes = ((_rows(tensors, REGION[0]), D), (D, D), ())
            sizes |= dict(zip(REGION, shapes, strict=True))
        if "iterates" in tensors:
            num_weights = sum(parameter.numel() for parameter in self.transition.parameters())
            sizes["iterates"] = (_rows(tensors, "iterates"), num_weights)
        if "gap_factors" in tensors:
            sizes["gap_factors"] = (ROWS, E)
        return sizes

    def _check_values(self) -> None:
        super()._check_values()
        R = self.emission.covariance
        rounding = 1e-5 * R.diagonal().abs().max()
        if bool(((R - R.T).abs() > rounding).any()) or int(torch.linalg.cholesky_ex(R).info):
            raise ValueError("a covariance that is not symmetric and positive definite")
        if not bool(self.transition.min_scale > 0) or not bool(self.transition.increment_scale > 0):
            raise ValueError("a scale of the transition that is not positive")
        if self.gap_factors is not None and not bool((self.gap_factors > 0).all()):
            raise ValueError("a factor of intervals of filled gaps that is not positive")

    def _moved(self, z: Tensor, data: Series | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """E[x_t | z_t] as a sum of two: C z and b, or where it is not linear in z itself and 0.

        :param data: behind which z is, or draws of x, for what an autoregression adds to C z.
        """
        loading, offset, _ = self.emission
        if self.family.located:
            moved, lag = z @ loading.T, self.autoregression
            if lag is None or data is None:
                return moved, offset
            if isinstance(data, Series):
                return moved + lag.shifts(data), offset
            return moved + lag.pulls(data - lag.origin), offset
        return self.family.mean(z @ loading.T + offset), torch.zeros_like(offset)

    def _set_inputs_unit(self, data: Series) -> None:
        """Take origin and unit of the inputs from data of a fit."""
        if data.inputs is None:
            return
        within = data.within.unsqueeze(-1).expand_as(data.inputs)
        origin, unit = unit_of(data.inputs, within)
        self.inputs_origin.copy_(origin)
        self.inputs_unit.copy_(unit)

    def _standard_inputs(self, inputs: Tensor | None) -> Tensor | None:
        return None if inputs is None else (inputs - self.inputs_origin) / self.inputs_unit

    @property
    def sensors(self) -> list[str] | None:
        """Names of the sensors, if there are any."""
        return self.config.get("sensors")

    def _name_sensors(self, labels: Labels | None) -> None:
        if labels is not None:
            self.config["sensors"] = list(labels.sensors)

    def _labels(self) -> Labels | None:
        return None if self.sensors is None else Labels(tuple(self.sensors))

    def _take(
        self,
        method: str,
        x: Any,
        lengths: Any,
        mask: Any,
        inputs: Any,
        *,
        anew: bool = False,
        horizon: int = 0,
    ) -> Series:
        """The data as tensors, checked; for a fit, of any number of sensors."""
        self._check_dtype(f"GaussianSSL.{method}")
        num_sensors = None if anew else len(self.emission.offset)
        like = self.transition.like
        data = take_series(
            *(f"GaussianSSL.{method}", x, lengths, mask, like, num_sensors),
            inputs=inputs,
            horizon=horizon,
            input_size=self.transition.input_size,
            sensors=self.sensors,
        )
        check_family(f"GaussianSSL.{method}", data, self.family)
        return data


def _rows(tensors: dict[str, Tensor], name: str) -> int:
    """How many rows one of the tensors has, of any number; 1 if it is missing, or has none."""
    return tensors[name].shape[0] if name in tensors and tensors[name].dim() else 1
