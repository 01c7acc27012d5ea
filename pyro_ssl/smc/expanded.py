r"""Gaussian latents under any emission: a proposal by expansion, and weights that make up for it.

Read ``gaussian.py`` first. The emission is the user's code, which the sweep has to ask: see
``particles.py``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..transitions.gaussian import GaussianTransition, Moments
from .gaussian import GaussianLocal, shifted
from .product import Product
from .quadratic import QuadraticEmission
from .sweep import Steps, sweep_steps

__all__ = ["gaussian_steps"]

#: how often the transition proposes z_t, whatever the expansion says
DEFENSIVE_SHARE = 0.1


def gaussian_steps(
    transition: GaussianTransition,
    shape: tuple[int, int, int],
    reference: Tensor | None = None,
    *,
    name: str,
    like: Tensor,
    transition_scale: Tensor | None = None,
    **settings: Any,
) -> Steps:
    """One sweep over Gaussian latents under any emission, as a generator that asks for it.

    It yields (t, z) with z ``(B, P, D)`` and has to be sent log p(x_t | z_t = z), ``(B, P)``:
    differentiable, twice, where z requires a gradient.

    :param shape: T, B, P.
    :param str name: of the site, for the warning where the transition has to propose.
    :param Tensor like: a tensor of the transition's dtype and device.
    :param settings: as for :func:`gaussian_smc`.
    """
    local = _Expanded(transition.dim, shape, like, transition_scale)
    sweep = yield from sweep_steps(
        transition, local, shape, reference, device=like.device, **settings
    )
    if bool(local.blind):
        warnings.warn(
            f'Site "{name}": log p(x_t | z_t) has no finite first and second derivative with '
            "respect to z_t at some step; there the transition itself proposes z_t. The draws stay "
            "exact; more particles may be needed.",
            RuntimeWarning,
            stacklevel=2,
        )
    return sweep


class _Mixture(NamedTuple):
    """γ̃ of an emission that is not quadratic, by row, with log α̃ and the transition's law.

    ``expansion`` is log of the product with the transition, over the transition, normalised.
    """

    expanded: Product
    expansion: QuadraticEmission
    trusted: Tensor
    log_alpha: Tensor
    law: Moments


class _Expanded(GaussianLocal):
    r"""Any emission, expanded about the transition's mean μ.

    Only the concave part of the curvature is used. α̃ is Laplace's, with the emission itself at the
    top m̃ of the product: p(m̃) p(x_t | m̃) / γ̃(m̃). A particle whose m̃ is no better than μ, or that
    has no derivatives, takes the transition for γ̃ and p(x_t | μ) for α̃. As the expansion may miss
    where the mass is, γ̃ is mixed with the transition (Hesterberg 1995, "Weighted average importance
    sampling and defensive mixture distributions"): then w_t is bounded where p(x_t | z_t) is.
    """

    exact = False

    def __init__(
        self,
        dim: int,
        shape: tuple[int, int, int],
        like: Tensor,
        scale: Tensor | None,
    ) -> None:
        super().__init__(dim, shape, like, scale)
        T, B, P = shape
        self.defend = (
            torch.rand(T, B * P, 1, device=like.device, dtype=like.dtype) < DEFENSIVE_SHARE
        )
        #: whether derivatives were missing at any step; read once a sweep, as reading it waits
        self.blind = torch.zeros((), dtype=torch.bool, device=like.device)

    def look_ahead(
        self, t: int, law: Moments
    ) -> Generator[tuple[int, Tensor], Tensor, tuple[Tensor, Tensor, _Mixture]]:
        """α̃, its shift, and γ̃."""
        point = law.mean.detach().clone().requires_grad_()
        at_mean, linear, precision = _derivatives((yield t, point), point)
        point = point.detach()
        known = linear.isfinite().all(-1) & precision.isfinite().all((-2, -1))
        self.blind |= ~known.all()
        linear = torch.where(known[..., None], linear, 0.0)
        values, vectors = torch.linalg.eigh(torch.where(known[..., None, None], precision, 0.0))
        precision = (vectors * values.clamp(min=0.0).unsqueeze(-2)) @ vectors.mT
        zero = torch.zeros_like(at_mean)
        log_mass, proposal = self.propose(law, linear, precision)
        peak = proposal.mean()
        at_peak = yield t, peak
        expansion = QuadraticEmission(point, zero, linear, precision)
        rise = self.log_density(law, peak) + at_peak - self.log_density(law, point) - at_mean
        trusted = known & (rise >= 0.0)  # also where both are the same point
        laplace = log_mass + at_peak - expansion.log_prob(peak)
        log_alpha = torch.where(trusted, laplace, at_mean + self.log_power(law))
        # Where one particle has no α̃ above 0, α̃ tells none apart: its draw may yet explain x_t.
        possible = log_alpha.isfinite().all(-1, keepdim=True)
        log_alpha = torch.where(possible, log_alpha, 0.0)
        mixture = _Mixture(
            proposal,
            QuadraticEmission(*(v.flatten(0, 1) for v in (point, -log_mass, linear, precision))),
            trusted.flatten(),
            log_alpha.flatten(),
            Moments(*(value.flatten(0, 1) for value in law)),
        )
        return *shifted(log_alpha), mixture

    def draw(self, t: int, proposal: _Mixture, rows: Tensor) -> Tensor:  # type: ignore[override]
        """Draw from γ̃ of each row's ancestor, or now and then from the transition."""
        z = super().draw(t, proposal.expanded, rows)
        mean, scale = self.tempered(Moments(*(value[rows] for value in proposal.law)))
        plain = self.defend[t] | ~proposal.trusted[rows].unsqueeze(-1)
        return torch.where(plain, mean + scale * self.noise[t], z.flatten(0, 1)).view_as(z)

    def log_weight(
        self,
        t: int,
        law: Moments,
        proposal: _Mixture,
        rows: Tensor,
        z: Tensor,
        log_emission: Tensor,
    ) -> Tensor:
        """log p(x_t | z_t) - log α̃ - log [γ̃(z_t) / p(z_t | z_{1:t-1})]."""
        at = Moments(*(value[rows].view_as(z) for value in proposal.law))
        expansion = QuadraticEmission(
            *(part[rows].view(z.shape[:2] + part.shape[1:]) for part in proposal.expansion)
        )
        plain, expanded = -self.log_power(at), expansion.log_prob(z)
        share = math.log(DEFENSIVE_SHARE), math.log1p(-DEFENSIVE_SHARE)
        mixed = torch.logaddexp(share[0] + plain, share[1] + expanded)
        trusted = proposal.trusted[rows].view(z.shape[:2])
        log_gamma = torch.where(trusted, mixed, plain)
        return log_emission - proposal.log_alpha[rows].view(z.shape[:2]) - log_gamma


@torch.enable_grad()
def _derivatives(log_emission: Tensor, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The value, b and Λ at a point; NaN where there is no derivative."""
    D, value = point.shape[-1], log_emission.detach()
    if not log_emission.requires_grad:
        nothing = torch.full_like(value, torch.nan).unsqueeze(-1)
        return value, nothing.expand(point.shape), nothing.unsqueeze(-1).expand(*point.shape, D)
    (linear,) = torch.autograd.grad(
        log_emission.sum(), point, create_graph=True, materialize_grads=True
    )
    rows = []
    for d in range(D):
        row = torch.zeros_like(point)
        if linear.requires_grad:
            (row,) = torch.autograd.grad(
                linear[..., d].sum(), point, retain_graph=True, materialize_grads=True
            )
        rows.append(row)
    hessian = torch.stack(rows, -1).detach()
    return value, linear.detach(), -0.5 * (hessian + hessian.mT)
