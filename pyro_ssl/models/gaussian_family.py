"""What x_t may be, given the places η = C z_t + b: numbers, with outliers or not, flags, counts.

A family says what the ready-made model has to know of its data: p(x_t | η), the mean of x_t,
draws, which data it takes, and a Gaussian stand-in for them, from which a fit starts. Sensors are
independent given z_t, but for Gaussian noise of a full covariance.

Next files to read: ``gaussian_reweighted.py``, the M-step of C and b; ``gaussian.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..exact import LinearEmission
from .gaussian_data import Series, observed
from .gaussian_model import Given, observe
from .gaussian_noise import NOISES
from .gaussian_sensors import Counts, Flags, Sensors, poisson

__all__ = ["DEGREES", "FAMILIES", "Family", "check_family", "family_of"]

#: degrees of freedom of Student-t noise: few, with a variance
DEGREES = 4.0
#: typical distances from the median beyond which a stand-in for a number is cut off
FAR = 5.0

#: p(x_t | η, t)
At = Callable[[Tensor, Tensor], Any]


class Family:
    """Gaussian noise, and what the other families have in common.

    Shapes: x and η ``(..., E)``. R is the covariance ``(E, E)``; that of Student-t noise has the
    squares of its scales on the diagonal; flags and counts have none, and theirs is 1.
    """

    #: whether x + c is what η + c makes of x: C and b are in units of x
    located = True
    #: whether all is linear and Gaussian, so that Kalman's filter is exact where the path is
    gaussian = True
    #: what data it takes, for messages
    takes = "numbers"

    def observe(self, given: Given) -> tuple[At, Tensor]:
        """Return p(x_t | η, t), sensors that were not observed left out, and x."""
        return observe(given)

    def good(self, x: Tensor) -> Tensor:
        """Which numbers it takes, bool of the shape of x."""
        return torch.ones_like(x, dtype=torch.bool)

    def mean(self, eta: Tensor) -> Tensor:
        """E[x_t | η]."""
        return eta

    def sample(self, mean: Tensor, offset: Tensor, covariance: Tensor) -> Tensor:
        """Draw x_t of a mean that is the sum of two, the second of them ``(E,)``."""
        return mean + dist.MultivariateNormal(torch.zeros_like(mean), covariance).sample() + offset

    def log_prob(self, x: Tensor, eta: Tensor, covariance: Tensor) -> Tensor:
        """log p(x_t | η) of each sensor by itself."""
        sd = covariance.diagonal().sqrt()
        return dist.Normal(eta, sd, validate_args=False).log_prob(x)

    def stand_in(self, x: Tensor, seen: Tensor) -> Tensor:
        """Data ``(T, B, E)`` as if they were Gaussian about η."""
        return x

    def start(self, emission: LinearEmission, x: Tensor, seen: Tensor) -> LinearEmission:
        """Return C, b and R to start from, given those of the stand-in."""
        return emission

    def working(self, x: Tensor, eta: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return w, and w times what stands for x, in a least-squares step for log p(x | η).

        :param Tensor scale: of the noise, ``(E,)``.
        """
        raise NotImplementedError


class Outliers(Family):
    """Student-t noise: EM weights of a scale mixture of Gaussians."""

    gaussian = False

    def observe(self, given: Given) -> tuple[At, Tensor]:
        """Return p(x_t | η, t), and x; see the base class."""
        x, there = observed(given.x, given.mask)
        scale = given.covariance.diagonal().sqrt()

        def at(eta: Tensor, t: Tensor) -> Any:
            return dist.StudentT(DEGREES, eta, scale).mask(there[t]).to_event(1)

        return at, x

    def sample(self, mean: Tensor, offset: Tensor, covariance: Tensor) -> Tensor:
        """Draw x_t; see the base class."""
        return dist.StudentT(DEGREES, mean, covariance.diagonal().sqrt()).sample() + offset

    def log_prob(self, x: Tensor, eta: Tensor, covariance: Tensor) -> Tensor:
        """log p(x_t | η) of each sensor."""
        sd = covariance.diagonal().sqrt()
        return dist.StudentT(DEGREES, eta, sd, validate_args=False).log_prob(x)

    def stand_in(self, x: Tensor, seen: Tensor) -> Tensor:
        """Data without what is far from both neighbours, or from all of the sensor's."""
        points = torch.where(seen, x, torch.nan)
        near = points.clone()
        near[1:-1] = torch.stack([points[:-2], points[1:-1], points[2:]]).median(0).values
        near = torch.where(near.isnan(), points, near)  # at ends, and beside holes
        points = _within(points, near, points[1:] - points[:-1])
        middle = points.flatten(0, 1).nanmedian(0).values
        return torch.where(seen, _within(points, middle, points - middle), x)

    def start(self, emission: LinearEmission, x: Tensor, seen: Tensor) -> LinearEmission:
        """Noise of the variance that the stand-in's has."""
        square = emission.covariance.diagonal() * (1.0 - 2.0 / DEGREES)
        return LinearEmission(emission.matrix, emission.offset, torch.diag(square))

    def working(self, x: Tensor, eta: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """E[precision | x, η], in units of the scale's."""
        weight = (DEGREES + 1.0) / (DEGREES + ((x - eta) / scale).square())
        return weight, weight * x


def _within(x: Tensor, middle: Tensor, away: Tensor) -> Tensor:
    """x no farther from a middle than a few times what is typical of it."""
    if not len(away):
        return x
    reach = FAR * 1.5 * away.abs().flatten(0, 1).nanmedian(0).values
    reach = torch.where(reach > 0, reach, torch.inf)  # of a sensor that seldom moves
    return torch.maximum(torch.minimum(x, middle + reach), middle - reach)


class Natural(Family):
    """An exponential family in its natural parameter η: Newton's weights."""

    located = gaussian = False
    kind: type[Sensors]

    def observe(self, given: Given) -> tuple[At, Tensor]:
        """Return p(x_t | η, t), and x; see the base class."""
        x, there = observed(given.x, given.mask)
        return lambda eta, t: self.kind(eta, there[t]), x

    def log_prob(self, x: Tensor, eta: Tensor, covariance: Tensor) -> Tensor:
        """log p(x_t | η) of each sensor."""
        return x * eta - self.kind.log_normaliser(eta) + self.kind.log_base(x)

    def start(self, emission: LinearEmission, x: Tensor, seen: Tensor) -> LinearEmission:
        """The offset gives each sensor its own mean."""
        return LinearEmission(
            emission.matrix,
            self.link(torch.where(seen, x, 0.0).sum((0, 1)), seen.sum((0, 1)).to(x)),
            torch.eye(len(emission.offset), dtype=x.dtype, device=x.device),
        )

    def link(self, total: Tensor, count: Tensor) -> Tensor:
        """η at which x has the mean of so many, half of one more of each kind added."""
        raise NotImplementedError

    def working(self, x: Tensor, eta: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The variance of x, and with it the working response of Newton's step."""
        mean = self.mean(eta)
        weight = self.variance(mean)
        return weight, weight * eta + (x - mean)

    def variance(self, mean: Tensor) -> Tensor:
        """Of x, given its mean."""
        raise NotImplementedError


class Bernoulli(Natural):
    """Flags: η are their log-odds."""

    kind, takes = Flags, "flags, 0 or 1"

    def good(self, x: Tensor) -> Tensor:
        """Zeros and ones."""
        return (x == 0) | (x == 1)

    def mean(self, eta: Tensor) -> Tensor:
        """How probable a flag is."""
        return eta.sigmoid()

    def sample(self, mean: Tensor, offset: Tensor, covariance: Tensor) -> Tensor:
        """Draw flags; see the base class."""
        return torch.bernoulli(mean + offset)

    def stand_in(self, x: Tensor, seen: Tensor) -> Tensor:
        """Log-odds of a flag of which half as many were seen before: about ±1.1."""
        return (2.0 * x - 1.0) * math.log(3.0)

    def link(self, total: Tensor, count: Tensor) -> Tensor:
        """Log-odds; see the base class."""
        return ((total + 0.5) / (count - total + 0.5)).log()

    def variance(self, mean: Tensor) -> Tensor:
        """Of a flag."""
        return mean * (1.0 - mean)


class Poisson(Natural):
    """Counts: η are the logarithms of their rates."""

    kind, takes = Counts, "counts 0, 1, 2, ..."

    def good(self, x: Tensor) -> Tensor:
        """Whole numbers from 0."""
        return (x >= 0) & (x == x.round())

    def mean(self, eta: Tensor) -> Tensor:
        """The rate."""
        return eta.exp()

    def sample(self, mean: Tensor, offset: Tensor, covariance: Tensor) -> Tensor:
        """Draw counts; see the base class."""
        return poisson(mean + offset)

    def stand_in(self, x: Tensor, seen: Tensor) -> Tensor:
        """Logarithms, which 0 has too."""
        return (x.clamp(min=0.0) + 0.5).log()

    def link(self, total: Tensor, count: Tensor) -> Tensor:
        """The logarithm of the rate; see the base class."""
        return ((total + 0.5) / (count + 0.5)).log()

    def variance(self, mean: Tensor) -> Tensor:
        """Of a count."""
        return mean


FAMILIES: dict[str, Family] = {
    "gaussian": Family(),
    "bernoulli": Bernoulli(),
    "poisson": Poisson(),
    "student_t": Outliers(),
}


def family_of(emission: str, noise: str | None) -> tuple[Family, str]:
    """Return a family by its name, and what noise it has.

    :param noise: what was asked for, if anything was.
    :raises ValueError: if there is none, or it has no such noise.
    """
    if emission not in FAMILIES:
        raise ValueError(f'emission is "{emission}", expected one of {tuple(FAMILIES)}.')
    if emission == "gaussian":
        noise = "full" if noise is None else noise
    if noise not in (None, *NOISES):
        raise ValueError(f'noise is "{noise}", expected one of {NOISES}.')
    if emission != "gaussian" and noise not in (None, "diagonal"):
        raise ValueError(
            f'noise is "{noise}" beside emission="{emission}", whose sensors are independent given '
            f'the path; write GaussianSSL(..., emission="{emission}") without it, or '
            'emission="gaussian" for noise that sensors share.'
        )
    return FAMILIES[emission], noise or "diagonal"


def check_family(where: str, data: Series, family: Family) -> None:
    """Check that all that was observed is what a family takes.

    :raises ValueError: if it is not, with the first place.
    """
    bad = data.seen & ~family.good(data.x)
    if not bool(bad.any()):
        return
    t, b, e = bad.nonzero()[0].tolist()
    value = float(data.x[t, b, e])
    name = "" if data.labels is None else f' ("{data.labels.sensors[e]}")'
    found = next(key for key, known in FAMILIES.items() if known is family)
    others = [key for key, known in FAMILIES.items() if bool(known.good(data.x)[data.seen].all())]
    write = "poisson" if "poisson" in others else "gaussian"
    raise ValueError(
        f"{where}: x holds {value:g} at step {t} of series {b}, sensor {e}{name}, expected "
        f'{family.takes}, as emission="{found}" has them; write '
        f'GaussianSSL(..., emission="{write}") for such data, or NaN where nothing was observed.'
    )
