r"""Gaussian latents under any emission: a proposal by expansion, and weights that make up for it.

Read ``gaussian.py`` first. Only the user's code knows the emission, so the proposal asks for it
within the sweep: at the transition's mean with two derivatives, at the mode of what it proposes,
and at the draws. ``compiled_expansion.py`` has the same steps compiled.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from ..transitions.gaussian import Moments
from .derivatives import EmissionAsks, Expansion
from .gaussian import GaussianProposal, look_ahead
from .product import Product
from .proposal import Asks, LookAhead
from .quadratic import Quadratic
from .randomness import DEFENCE, ByStep, Randomness

__all__ = ["ExpandedProposal"]

#: how often the transition proposes z_t, whatever the expansion finds
DEFENSIVE_SHARE = 0.1

#: by how many roundings of its value log p(x_t | z_t) may be off
ROUNDING = 8.0


class _Mixture(NamedTuple):
    """γ̃ of an emission that is not quadratic, by row, with log α̃ and p(z_t | z_{1:t-1}).

    ``expansion`` is log of the product with the transition, over the transition, normalised.
    """

    expanded: Product
    expansion: Quadratic
    trusted: Tensor
    log_alpha: Tensor
    prior: Moments


class ExpandedProposal(GaussianProposal):
    r"""Any emission, expanded about the transition's mean μ.

    Only the concave part of the curvature is used. α̃ is Laplace's, with the emission itself at the
    mode m̃ of the product: p(m̃) p(x_t | m̃) / γ̃(m̃). A particle whose m̃ is no better than μ, or that
    has no derivatives, takes the transition for γ̃ and p(x_t | μ) for α̃. As the expansion may miss
    where the mass is, γ̃ is mixed with the transition (Hesterberg 1995, "Weighted average importance
    sampling and defensive mixture distributions"): then w_t is bounded where p(x_t | z_t) is.

    :param shape: T, B, P.
    :param EmissionAsks asks: of log p(x_t | z_t).
    :param str name: of the site, for a warning.

    Other parameters as for :class:`GaussianProposal`.
    """

    def __init__(
        self,
        dim: int,
        shape: tuple[int, int, int],
        like: Tensor,
        scale: Tensor | None,
        randomness: Randomness,
        *,
        asks: EmissionAsks,
        name: str,
    ) -> None:
        super().__init__(dim, shape, like, scale, randomness)
        self.asks, self.name = asks, name
        T, B, P = shape

        def defends(numbers: Randomness, num_steps: int) -> Tensor:
            u = numbers.uniform(DEFENCE, num_steps, P, like.dtype)
            return u.view(num_steps, B * P, 1) < DEFENSIVE_SHARE

        self.defend = ByStep(defends, randomness, T)
        #: whether derivatives were missing at any step; read once a sweep, since reading it waits
        self.blind = torch.zeros((), dtype=torch.bool, device=like.device)

    def look_ahead(self, t: int, prior: Moments) -> Asks[LookAhead]:
        """Return α̃ and γ̃; see the base class."""
        found = yield from self.asks.expansion(t, prior.mean.detach())
        return (yield from self._look_ahead(t, prior, found))

    def _look_ahead(self, t: int, prior: Moments, found: Expansion) -> Asks[LookAhead]:
        mean, (at_mean, linear, precision) = prior.mean.detach(), found
        known = linear.isfinite().all(-1) & precision.isfinite().all((-2, -1))
        self.blind |= ~known.all()
        linear = torch.where(known[..., None], linear, 0.0)
        precision = _concave_part(torch.where(known[..., None, None], precision, 0.0))
        log_mass, gamma = self.propose(prior, linear, precision)
        mode = gamma.mean()
        at_mode = yield from self.asks.value(t, mode)
        expansion = Quadratic(mean, torch.zeros_like(at_mean), linear, precision)
        fall = 0.5 * ((mode - mean) / prior.scale).square().sum(-1)
        rise = at_mode - at_mean - self.scaled(fall)
        # Near the mode the two points are nearly one: what they rise by is lost in rounding.
        rounding = ROUNDING * torch.finfo(rise.dtype).eps * (1.0 + at_mean.abs())
        trusted = known & (rise >= -rounding)
        laplace = log_mass + at_mode - expansion.value(mode)
        log_alpha = torch.where(trusted, laplace, at_mean + self.log_power(prior))
        # If one particle of a sequence has α̃ = 0, its ancestors are drawn without α̃: the
        # particle's draw may still explain x_t.
        possible = log_alpha.isfinite().all(-1, keepdim=True)
        log_alpha = torch.where(possible, log_alpha, 0.0)
        mixture = _Mixture(
            gamma,
            expansion._replace(constant=-log_mass).each(lambda part: part.flatten(0, 1)),
            trusted.flatten(),
            log_alpha.flatten(),
            Moments(*(value.flatten(0, 1) for value in prior)),
        )
        return look_ahead(log_alpha, mixture)

    def draw(self, t: int, gamma: _Mixture, rows: Tensor) -> Tensor:  # type: ignore[override]
        """Draw from γ̃ of each row, or now and then from the transition; see the base class."""
        z = super().draw(t, gamma.expanded, rows)
        mean, scale = self.tempered(Moments(*(value[rows] for value in gamma.prior)))
        plain = self.defend[t] | ~gamma.trusted[rows].unsqueeze(-1)
        return torch.where(plain, mean + scale * self.noise[t], z.flatten(0, 1)).view_as(z)

    def log_weight(self, t: int, gamma: _Mixture, rows: Tensor, z: Tensor) -> Asks[Tensor]:
        """log p(x_t | z_t) - log α̃ - log [γ̃(z_t) / p(z_t | z_{1:t-1})]; see the base class."""
        log_emission = yield from self.asks.value(t, z)
        at = Moments(*(value[rows].view_as(z) for value in gamma.prior))
        shape = z.shape[:2]
        expansion = gamma.expansion.each(lambda part: part[rows].view(*shape, *part.shape[1:]))
        plain, expanded = -self.log_power(at), expansion.value(z)
        share = math.log(DEFENSIVE_SHARE), math.log1p(-DEFENSIVE_SHARE)
        mixed = torch.logaddexp(share[0] + plain, share[1] + expanded)
        trusted = gamma.trusted[rows].view(shape)
        log_gamma = torch.where(trusted, mixed, plain)
        return log_emission - gamma.log_alpha[rows].view(shape) - log_gamma

    def finish(self) -> None:
        """Warn where there was no expansion."""
        if bool(self.blind):
            warnings.warn(
                f'Site "{self.name}": log p(x_t | z_t) has no finite first and second derivative '
                "with respect to z_t at some step; there the transition itself proposes z_t. The "
                "draws stay exact; more particles may be needed.",
                RuntimeWarning,
                stacklevel=2,
            )


def _concave_part(precision: Tensor) -> Tensor:
    """Λ ``(..., D, D)`` without its negative eigenvalues: most often it has none."""
    if precision.device.type == "cpu":  # where reading a number waits for nothing
        tiny = torch.finfo(precision.dtype).tiny
        least = tiny * torch.eye(precision.shape[-1], dtype=precision.dtype, device="cpu")
        if not bool(torch.linalg.cholesky_ex(precision + least).info.any()):
            return precision
    values, vectors = torch.linalg.eigh(precision)
    return (vectors * values.clamp(min=0.0).unsqueeze(-2)) @ vectors.mT
