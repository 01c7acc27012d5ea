r"""Gaussian latents in the sweep: α and γ by a second-order expansion of log p(x_t | z_t).

With p(z_t | z_{1:t-1}) = N(μ, diag σ²) and, about a point m,

.. math:: \log p(x_t \mid z) \approx c + b^\top (z - m) - \tfrac12 (z - m)^\top Λ (z - m),

α̃_t is the integral of the product and γ̃_t the product normalised: a Gaussian of precision
diag σ^{-2} + Λ. Both are exact for a linear-Gaussian emission (Zheng et al. 2017, arXiv 1711.11179,
Example 1), where Λ = CᵀR⁻¹C and b = CᵀR⁻¹(x_t - b_x - Cm). For any other emission the weights w_t
make up for the difference (``expanded.py``). The algorithm is in ``sweep.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..transitions.gaussian import Moments
from .product import Product, product
from .proposal import Asks, LookAhead, Proposal
from .quadratic import Quadratic
from .randomness import LATENTS, ByStep, Randomness

__all__ = ["GaussianProposal", "QuadraticProposal", "look_ahead"]


class GaussianProposal(Proposal):
    """What both proposals over R^D share: their prior, to a power, times a quadratic function.

    :param int dim: D.
    :param shape: T, B, P.
    :param Tensor like: of the latents' dtype and device.
    :param Tensor scale: s, power of p(z_t | z_{1:t-1}), ``(B,)``, or ``None``.
    """

    def __init__(
        self,
        dim: int,
        shape: tuple[int, int, int],
        like: Tensor,
        scale: Tensor | None,
        randomness: Randomness,
    ) -> None:
        T, self.B, self.P = shape
        self.event_shape, self.dtype = torch.Size((dim,)), like.dtype

        def draw(numbers: Randomness, num_steps: int) -> Tensor:
            noise = numbers.normal(LATENTS, num_steps, self.P * dim, like.dtype)
            return noise.reshape(num_steps, self.B * self.P, dim)

        self.noise = ByStep(draw, randomness, T)
        self.scale = None if scale is None else scale[:, None]

    def prior(self, predicted: Moments) -> Moments:
        """Mean and scale, each ``(B, P, D)``."""
        shape = (self.B, self.P, *self.event_shape)
        flat = (self.B * self.P, *self.event_shape)
        return Moments(*(value.expand(flat).view(shape) for value in predicted))

    def log_prior(self, prior: Moments, z: Tensor) -> Tensor:
        """Evaluate the density at one z per sequence; see the base class."""
        return self.log_density(prior, z.unsqueeze(1))

    def scaled(self, log_prior: Tensor, which: Tensor | slice = slice(None)) -> Tensor:
        """Scale log-densities; see the base class."""
        return log_prior if self.scale is None else log_prior * self.scale[which]

    def log_density(self, prior: Moments, z: Tensor) -> Tensor:
        """s log p(z_t | z_{1:t-1}), ``(B, P)``."""
        square = ((z - prior.mean) / prior.scale).square().sum(-1)
        log_p = _log_peak(prior) - 0.5 * square
        return log_p if self.scale is None else log_p * self.scale

    def propose(
        self, prior: Moments, gradient: Tensor, precision: Tensor
    ) -> tuple[Tensor, Product]:
        """log ∫ p(z)^s exp(g (z - μ) - ½ (z - μ) Λ (z - μ)) dz ``(B, P)``, and γ̃ by row."""
        if self.scale is None:
            found = product(*prior, gradient, precision)
            return found.log_mass, found
        found = product(*self.tempered(prior), gradient, precision)
        return found.log_mass + self.log_power(prior), found

    def tempered(self, prior: Moments) -> Moments:
        """p(z)^s, normalised; s is one per sequence, and rows stand sequence by sequence."""
        if self.scale is None:
            return prior
        scale = self.scale.sqrt()  # (B, 1)
        if prior.mean.dim() == 2:
            scale = scale.expand(self.B, len(prior.mean) // max(self.B, 1)).reshape(-1)
        return Moments(prior.mean, prior.scale / scale.unsqueeze(-1))

    def log_power(self, prior: Moments) -> Tensor:
        """log of p(z)^s over :meth:`tempered`, to which it is proportional, ``(B, P)``."""
        return self.log_density(prior, prior.mean) - _log_peak(self.tempered(prior))

    def draw(self, t: int, gamma: Product, rows: Tensor) -> Tensor:
        """Draw from γ̃ of each row; see the base class."""
        return gamma.draw(rows, self.noise[t])


class QuadraticProposal(GaussianProposal):
    """An emission that is quadratic in z_t: α and γ are exact.

    :param Quadratic emission: log p(x_t | z_t), of leading dimensions ``(T, B)``.
    :param int num_particles: P.
    :param Tensor scale: see :class:`GaussianProposal`.
    """

    def __init__(
        self, emission: Quadratic, num_particles: int, scale: Tensor | None, randomness: Randomness
    ) -> None:
        T, B, D = emission.center.shape
        super().__init__(D, (T, B, num_particles), emission.center, scale, randomness)
        self.emission = list(zip(*(part.unsqueeze(2).unbind() for part in emission), strict=True))

    def look_ahead(self, t: int, prior: Moments) -> Asks[LookAhead]:
        """Return α and γ; see the base class."""
        center, constant, linear, precision = self.emission[t]
        away = prior.mean - center
        gradient = torch.baddbmm(linear, away, precision.squeeze(1), alpha=-1.0)  # Λ = Λᵀ
        # c + b d - ½ d Λ d at d = μ - m
        slope = torch.linalg.vecdot(away, linear + gradient)
        log_mass, gamma = self.propose(prior, gradient, precision)
        return look_ahead(log_mass + constant.add(slope, alpha=0.5), gamma)
        yield  # makes this a generator, as that of every proposal


def look_ahead(log_alpha: Tensor, gamma: object) -> LookAhead:
    """Shift log α ``(B, P)`` by the greatest of each sequence."""
    log_alpha = log_alpha.double()
    shift = log_alpha.amax(-1).clamp_(min=torch.finfo(log_alpha.dtype).min)
    return LookAhead((log_alpha - shift.unsqueeze(-1)).exp_(), shift, gamma)


def _log_peak(prior: Moments) -> Tensor:
    """log of a diagonal Gaussian's density at its mean."""
    D = prior.mean.shape[-1]
    return -prior.scale.log().sum(-1) - 0.5 * D * math.log(2.0 * math.pi)
