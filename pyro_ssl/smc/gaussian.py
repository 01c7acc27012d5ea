r"""Gaussian latents in the sweep: α and γ by a second-order expansion of log p(x_t | z_t).

With p(z_t | z_{1:t-1}) = N(μ, diag σ²) and, about a point m,

.. math:: \log p(x_t \mid z) \approx c + b^\top (z - m) - \tfrac12 (z - m)^\top Λ (z - m),

α̃_t is the integral of the product and γ̃_t the product normalised: a Gaussian of precision
diag σ^{-2} + Λ. Both are exact for a linear-Gaussian emission (Zheng et al. 2017, arXiv 1711.11179,
Example 1), where Λ = CᵀR⁻¹C and b = CᵀR⁻¹(x_t - b_x - Cm). For any other emission the weights w_t
make up for the difference; the algorithm is in ``sweep.py``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..transitions.gaussian import GaussianTransition, Moments
from .quadratic import QuadraticEmission
from .sweep import PROPOSAL_LAG, Steps, Sweep, finish, sweep_steps

__all__ = ["gaussian_smc", "gaussian_steps"]

#: how often the transition proposes z_t where the expansion is not exact
DEFENSIVE_SHARE = 0.1


class _Proposal(NamedTuple):
    """An expansion with the Gaussian γ̃ that it makes; all by row."""

    center: Tensor  # (..., D)
    constant: Tensor  # (...)
    linear: Tensor  # (..., D)
    precision: Tensor  # (..., D, D)
    cholesky: Tensor  # L of γ̃'s precision, (..., D, D)
    whitened: Tensor  # L^{-1} (σ^{-2} (μ - m) + b), so that γ̃'s mean is m + L^{-T} of it


class _Mixture(NamedTuple):
    """γ̃ of an emission that is not quadratic, by row, with log α̃ and the transition's law."""

    expanded: _Proposal
    trusted: Tensor
    log_alpha: Tensor
    law: Moments


def gaussian_smc(
    transition: GaussianTransition,
    emission: QuadraticEmission,
    num_particles: int,
    reference: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
    resampling: str = "systematic",
    ancestor_sampling: int = 0,
    proposal_lag: int = PROPOSAL_LAG,
    forced_move: bool = True,
    transition_scale: Tensor | None = None,
) -> Sweep:
    """One sweep of conditional SMC over Gaussian latents whose emission is quadratic in them.

    :param GaussianTransition transition: p(z_t | z_{1:t-1}).
    :param QuadraticEmission emission: log p(x_t | z_t), exactly.
    :param Tensor reference: ``(T, B, D)``; ``None`` for unconditional SMC.

    Other parameters as for :func:`~pyro_ssl.smc.conditional_smc`.

    :returns: :class:`Sweep`, its path ``(T, B, D)``.
    """
    T, B, _ = emission.center.shape
    local = _Quadratic(emission, num_particles, transition_scale)
    steps = sweep_steps(
        transition,
        local,
        (T, B, num_particles),
        reference,
        lengths=lengths,
        inputs=inputs,
        resampling=resampling,
        ancestor_sampling=ancestor_sampling,
        proposal_lag=proposal_lag,
        forced_move=forced_move,
        device=emission.center.device,
    )
    return finish(steps)


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
    local = _Expanded(transition.dim, shape, name, like, transition_scale)
    return sweep_steps(transition, local, shape, reference, device=like.device, **settings)


class _Gaussian:
    """What both kinds of emission share; see :class:`~.sweep.Local`."""

    def __init__(
        self, dim: int, shape: tuple[int, int, int], like: Tensor, scale: Tensor | None
    ) -> None:
        T, self.B, self.P = shape
        self.event_shape, self.dtype = torch.Size((dim,)), like.dtype
        self.noise = torch.randn(T, self.B * self.P, dim, device=like.device, dtype=like.dtype)
        self.scale = None if scale is None else scale[:, None]

    def law(self, predicted: Moments, num_rows: int) -> Moments:
        """Mean and scale, each ``(B, rows, D)``."""
        shape = (self.B, num_rows, *self.event_shape)
        flat = (self.B * num_rows, *self.event_shape)
        return Moments(*(value.expand(flat).view(shape) for value in predicted))

    def log_prior(self, law: Moments, z: Tensor) -> Tensor:
        """log-density at z ``(B, D)``, to the power that the user asked for."""
        return self._log_density(law, z.unsqueeze(1))

    def _log_density(self, law: Moments, z: Tensor) -> Tensor:
        D = z.shape[-1]
        square = ((z - law.mean) / law.scale).square().sum(-1)
        log_p = -0.5 * square - law.scale.log().sum(-1) - 0.5 * D * math.log(2.0 * math.pi)
        return log_p if self.scale is None else log_p * self.scale

    def _propose(
        self, law: Moments, center: Tensor, constant: Tensor, linear: Tensor, precision: Tensor
    ) -> tuple[Tensor, _Proposal]:
        """log α̃ ``(B, P)`` by the expansion, and γ̃ by row."""
        mean, scale = law
        B, P, D = mean.shape
        tau = scale.square().reciprocal()  # precision of the transition
        if self.scale is not None:
            tau = tau * self.scale.unsqueeze(-1)
        away = mean - center
        cholesky = torch.linalg.cholesky_ex(precision + torch.diag_embed(tau)).L
        rhs = (tau * away + linear).unsqueeze(-1)
        whitened = torch.linalg.solve_triangular(cholesky, rhs, upper=False).squeeze(-1)
        log_alpha = (
            constant
            + self._log_density(law, mean)
            + 0.5 * (whitened.square() - tau * away.square()).sum(-1)
            - _log_scale(cholesky)
        )
        parts = (
            center.expand(B, P, D),
            constant.expand(B, P),
            linear.expand(B, P, D),
            precision.expand(B, P, D, D),
            cholesky,
            whitened,
        )
        return log_alpha, _Proposal(*(part.reshape(B * P, *part.shape[2:]) for part in parts))

    def draw(self, t: int, proposal: _Proposal, rows: Tensor) -> Tensor:
        """Draw from γ̃ of each row's ancestor."""
        noise = proposal.whitened[rows] + self.noise[t]
        z = proposal.center[rows] + _solve_upper(proposal.cholesky[rows], noise)
        return z.view(self.B, self.P, *self.event_shape)


class _Quadratic(_Gaussian):
    """An emission that is quadratic in z_t: α and γ are exact."""

    exact = True

    def __init__(
        self, emission: QuadraticEmission, num_particles: int, scale: Tensor | None
    ) -> None:
        T, B, D = emission.center.shape
        super().__init__(D, (T, B, num_particles), emission.center, scale)
        self.emission = emission

    def look_ahead(self, t: int, law: Moments) -> tuple[Tensor, Tensor, _Proposal]:
        """α, its shift, and γ."""
        log_alpha, proposal = self._propose(law, *(part[t].unsqueeze(1) for part in self.emission))
        return *_shifted(log_alpha), proposal

    def log_weight(self, *args: object) -> Tensor:
        """Never asked: γ is exact."""
        raise NotImplementedError


class _Expanded(_Gaussian):
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
        name: str,
        like: Tensor,
        scale: Tensor | None,
    ) -> None:
        super().__init__(dim, shape, like, scale)
        T, B, P = shape
        self.defend = (
            torch.rand(T, B * P, 1, device=like.device, dtype=like.dtype) < DEFENSIVE_SHARE
        )
        self.name, self._told = name, False

    def look_ahead(
        self, t: int, law: Moments
    ) -> Generator[tuple[int, Tensor], Tensor, tuple[Tensor, Tensor, _Mixture]]:
        """α̃, its shift, and γ̃."""
        point = law.mean.detach().clone().requires_grad_()
        at_mean, linear, precision = _derivatives((yield t, point), point)
        point, known = (
            point.detach(),
            linear.isfinite().all(-1) & precision.isfinite().all((-2, -1)),
        )
        self._tell(known)
        linear = torch.where(known[..., None], linear, 0.0)
        values, vectors = torch.linalg.eigh(torch.where(known[..., None, None], precision, 0.0))
        precision = (vectors * values.clamp(min=0.0).unsqueeze(-2)) @ vectors.mT
        zero = torch.zeros_like(at_mean)
        log_mass, proposal = self._propose(law, point, zero, linear, precision)
        peak = point + _solve_upper(proposal.cholesky, proposal.whitened).view_as(point)
        at_peak = yield t, peak
        expansion = QuadraticEmission(point, zero, linear, precision)
        rise = self._log_density(law, peak) + at_peak - self._log_density(law, point) - at_mean
        trusted = known & (rise >= 0.0)  # also where both are the same point
        laplace = log_mass + at_peak - expansion.log_prob(peak)
        # p(z)^s is no density, but this times one
        power = self._log_density(law, point) - _log_peak(self._tempered(law))
        log_alpha = torch.where(trusted, laplace, at_mean + power)
        # Where one particle has no α̃ above 0, α̃ tells none apart: its draw may yet explain x_t.
        possible = log_alpha.isfinite().all(-1, keepdim=True)
        log_alpha = torch.where(possible, log_alpha, 0.0)
        mixture = _Mixture(
            proposal._replace(constant=-log_mass.flatten()),
            trusted.flatten(),
            log_alpha.flatten(),
            Moments(*(value.flatten(0, 1) for value in law)),
        )
        return *_shifted(log_alpha), mixture

    def draw(self, t: int, proposal: _Mixture, rows: Tensor) -> Tensor:  # type: ignore[override]
        """Draw from γ̃ of each row's ancestor, or now and then from the transition."""
        z = super().draw(t, proposal.expanded, rows)
        mean, scale = self._tempered(Moments(*(value[rows] for value in proposal.law)))
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
        """log p(z_t | z_{1:t-1}) p(x_t | z_t) - log α̃ - log γ̃(z_t)."""
        parts = proposal.expanded
        expansion = QuadraticEmission(
            *(part[rows] for part in (parts.center, parts.constant, parts.linear, parts.precision))
        )
        shape = (self.B, self.P)
        flat = Moments(*(value[rows] for value in proposal.law))
        at = Moments(*(value.view_as(z) for value in flat))
        log_prior = self._log_density(at, z)
        power = self._log_density(at, at.mean) - _log_peak(self._tempered(at))
        # over p(z)^s: the transition as a density, and the expansion's product
        plain = -power
        expanded = expansion.log_prob(z.flatten(0, 1)).view(shape)
        share = math.log(DEFENSIVE_SHARE), math.log1p(-DEFENSIVE_SHARE)
        mixed = torch.logaddexp(share[0] + plain, share[1] + expanded)
        log_gamma = log_prior + torch.where(proposal.trusted[rows].view(shape), mixed, plain)
        return log_prior + log_emission - proposal.log_alpha[rows].view(shape) - log_gamma

    def _tempered(self, law: Moments) -> Moments:
        """p(z)^s, normalised; s is one per sequence, and rows stand sequence by sequence."""
        if self.scale is None:
            return law
        scale = self.scale.sqrt()  # (B, 1)
        if law.mean.dim() == 2:
            scale = scale.expand(self.B, len(law.mean) // max(self.B, 1)).reshape(-1)
        return Moments(law.mean, law.scale / scale.unsqueeze(-1))

    def _tell(self, known: Tensor) -> None:
        """Warn once that the transition proposes."""
        if self._told or bool(known.all()):
            return
        self._told = True
        warnings.warn(
            f'Site "{self.name}": log p(x_t | z_t) has no finite first and second derivative with '
            "respect to z_t at some step; there the transition itself proposes z_t. The draws stay "
            "exact; more particles may be needed.",
            RuntimeWarning,
            stacklevel=2,
        )


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


def _log_peak(law: Moments) -> Tensor:
    """log of a diagonal Gaussian's density at its mean."""
    D = law.mean.shape[-1]
    return -law.scale.log().sum(-1) - 0.5 * D * math.log(2.0 * math.pi)


def _shifted(log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """α over exp(shift), float64, and the shift, one for all particles of a sequence."""
    log_alpha = log_alpha.double()
    shift = log_alpha.amax(-1).clamp_(min=torch.finfo(log_alpha.dtype).min)
    return (log_alpha - shift.unsqueeze(-1)).exp_(), shift


def _log_scale(cholesky: Tensor) -> Tensor:
    """log of a Gaussian's density at its mean, given the Cholesky factor of its precision."""
    diagonal = cholesky.diagonal(dim1=-2, dim2=-1)
    return diagonal.log().sum(-1) - 0.5 * diagonal.shape[-1] * math.log(2.0 * math.pi)


def _solve_upper(cholesky: Tensor, value: Tensor) -> Tensor:
    """L^{-T} times a vector."""
    solved = torch.linalg.solve_triangular(cholesky.mT, value.unsqueeze(-1), upper=True)
    return solved.squeeze(-1)
