r"""Flags, counts or numbers of E sensors as one distribution, with some of them left out.

log p(x | η) = Σ_e x_e η_e - A(η_e) + log h(x_e), an exponential family in its natural parameter:
where all steps meet the same η, as when an emission is looked at, that is a product of matrices.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

__all__ = ["Counts", "Flags", "Numbers", "Sensors", "poisson"]

LOG_2_PI = math.log(2.0 * math.pi)
#: a rate from which a count is the rate, to its fifth digit
MANY = 1e9


class Sensors(dist.TorchDistribution):
    """E independent sensors.

    :param Tensor eta: natural parameters, ``(..., E)``.
    :param Tensor there: which were observed, bool, of the values' shape: the others say nothing.

    Example::

        >>> there = torch.tensor([True, False])
        >>> Flags(torch.zeros(2), there).log_prob(torch.ones(2))
        tensor(-0.6931)
    """

    arg_constraints = {"eta": constraints.real_vector}

    def __init__(self, eta: Tensor, there: Tensor, validate_args: bool | None = None) -> None:
        self.eta, self.there = eta, there
        super().__init__(eta.shape[:-1], eta.shape[-1:], validate_args=validate_args)

    @staticmethod
    @abstractmethod
    def log_normaliser(eta: Tensor) -> Tensor:
        """A(η)."""

    @staticmethod
    @abstractmethod
    def log_base(x: Tensor) -> Tensor:
        """log h(x)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of values ``(..., E)``."""
        if self._validate_args:
            self._validate_sample(value)
        there = self.there
        value = torch.where(there, value, 0.0)
        if self._is_points(value):
            return self._at_points(value, self.eta)
        base = torch.where(there, self.log_base(value), 0.0).sum(-1)
        each = value * self.eta - self.log_normaliser(self.eta)
        return torch.where(there, each, 0.0).sum(-1) + base

    def _is_points(self, value: Tensor) -> bool:
        """Whether all values meet the same η, ``(S, 1, 1, E)``."""
        return value.dim() < self.eta.dim() and self.eta.shape[1:-1].numel() == 1

    def _at_points(self, value: Tensor, eta: Tensor) -> Tensor:
        """Log p of all values at each η, ``(S, ...)`` with as many dimensions as η has."""
        there, points = self.there, eta.flatten(0, -2)
        base = torch.where(there, self.log_base(value), 0.0).sum(-1)
        found = value @ points.T - there.to(eta) @ self.log_normaliser(points).T
        found = (found + base.unsqueeze(-1)).movedim(-1, 0)
        return found.view(-1, *(1 for _ in eta.shape[value.dim() : -1]), *found.shape[1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Sensors:
        """Return a distribution of a larger batch shape."""
        shape = (*batch_shape, *self.event_shape)
        return type(self)(self.eta.expand(shape), self.there.expand(shape), validate_args=False)


class Flags(Sensors):
    """Zeros and ones, η their log-odds."""

    support = constraints.independent(constraints.boolean, 1)

    @staticmethod
    def log_normaliser(eta: Tensor) -> Tensor:
        """log(1 + e^η)."""
        return softplus(eta)

    @staticmethod
    def log_base(x: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(x)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw flags, of all sensors."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return torch.bernoulli(self.eta.detach().sigmoid().expand(shape))


class Counts(Sensors):
    """Whole numbers from 0, η the logarithms of their rates."""

    support = constraints.independent(constraints.nonnegative_integer, 1)

    @staticmethod
    def log_normaliser(eta: Tensor) -> Tensor:
        """The rate."""
        return eta.exp()

    @staticmethod
    def log_base(x: Tensor) -> Tensor:
        """-log x!."""
        return -torch.lgamma(x + 1.0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw counts, of all sensors."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return poisson(self.eta.detach().exp().expand(shape))


class Numbers(Sensors):
    """Numbers about η and a shift, in units of a scale: their natural parameter is η over it.

    :param Tensor scale: standard deviation of each sensor, ``(E,)``.
    :param shift: of the values' shape, where there is one.

    Example::

        >>> there, scale = torch.tensor([True, False]), torch.tensor([2.0, 1.0])
        >>> Numbers(torch.zeros(2), there, scale).log_prob(torch.zeros(2))
        tensor(-1.6121)
    """

    support = constraints.real_vector

    def __init__(
        self,
        eta: Tensor,
        there: Tensor,
        scale: Tensor,
        shift: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.scale, self.shift = scale, shift
        super().__init__(eta, there, validate_args=validate_args)

    @staticmethod
    def log_normaliser(eta: Tensor) -> Tensor:
        """½ η²."""
        return 0.5 * eta.square()

    @staticmethod
    def log_base(x: Tensor) -> Tensor:
        """-½ x² - ½ log 2π."""
        return -0.5 * (x.square() + LOG_2_PI)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of values ``(..., E)``."""
        if self._validate_args:
            self._validate_sample(value)
        there, scale = self.there, self.scale
        size = torch.where(there, scale.log(), 0.0).sum(-1)
        value = value if self.shift is None else value - self.shift
        value = torch.where(there, value, 0.0)
        if self._is_points(value):  # squares that nearly cancel are added up, in float64
            unit = scale.double()
            return (self._at_points(value.double() / unit, self.eta.double() / unit) - size).to(
                self.eta.dtype
            )
        each = self.log_base((value - self.eta) / scale)
        return torch.where(there, each, 0.0).sum(-1) - size

    def expand(self, batch_shape: Any, _instance: Any = None) -> Numbers:
        """Return a distribution of a larger batch shape."""
        shape = (*batch_shape, *self.event_shape)
        eta, there = self.eta.expand(shape), self.there.expand(shape)
        shift = None if self.shift is None else self.shift.expand(shape)
        return Numbers(eta, there, self.scale, shift, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw numbers, of all sensors."""
        shape = self._extended_shape(torch.Size(sample_shape))
        place = self.eta if self.shift is None else self.eta + self.shift
        return torch.normal(place.detach().expand(shape), self.scale.detach().expand(shape))


def poisson(rate: Tensor) -> Tensor:
    """Draw counts of any rate, of one that is beyond all integers too: there it is the rate.

    Example::

        >>> poisson(torch.tensor([0.0, 1e30]))
        tensor([0.0000e+00, 1.0000e+30])
    """
    return torch.where(rate > MANY, rate, torch.poisson(rate.clamp(max=MANY)))
