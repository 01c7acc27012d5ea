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
from typing import NamedTuple

import torch
from torch import Tensor

from ..transitions.gaussian import GaussianTransition, Moments
from .quadratic import QuadraticEmission
from .sweep import PROPOSAL_LAG, Sweep, finish, sweep_steps

__all__ = ["GaussianLocal", "Proposal", "gaussian_smc", "roll_out_vectors"]


@torch.no_grad()
def roll_out_vectors(
    transition: GaussianTransition, sweep: Sweep, num_steps: int, *, inputs: Tensor | None = None
) -> Tensor:
    """Let particles run on under the transition, from where an unconditional sweep left them.

    :param Sweep sweep: a sweep over the first s steps, whose particles weigh the same.
    :param int num_steps: S, how many steps to go on.
    :param Tensor inputs: exogenous inputs of all s + S steps, ``(s + S, B, input_size)``.
    :returns: their paths, ``(S, B, P, D)``.
    """
    start, B, P, D = sweep.z.shape
    step = transition.stepper(None if inputs is None else inputs.repeat_interleave(P, 1))
    state, z_prev = sweep.state, sweep.z[-1].reshape(B * P, D) if start else None
    paths = []
    for t in range(start, start + num_steps):
        (mean, scale), state = step(z_prev, state, t)
        z_prev = mean + scale * torch.randn_like(mean)
        paths.append(z_prev.view(B, P, D))
    return torch.stack(paths)


class Proposal(NamedTuple):
    """The Gaussian γ̃, by row: mean m + L^{-T} w, precision L Lᵀ."""

    center: Tensor  # m, (..., D)
    cholesky: Tensor  # L, (..., D, D)
    whitened: Tensor  # w = L^{-1} (σ^{-2} (μ - m) + b), (..., D)


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


class GaussianLocal:
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
        """The same at one z per sequence, ``(B, D)``."""
        return self.log_density(law, z.unsqueeze(1))

    def log_density(self, law: Moments, z: Tensor) -> Tensor:
        """log p(z_t | z_{1:t-1}) to the power that the user asked for, ``(B, rows)``."""
        D = z.shape[-1]
        square = ((z - law.mean) / law.scale).square().sum(-1)
        log_p = -0.5 * square - law.scale.log().sum(-1) - 0.5 * D * math.log(2.0 * math.pi)
        return log_p if self.scale is None else log_p * self.scale

    def propose(
        self, law: Moments, center: Tensor, constant: Tensor, linear: Tensor, precision: Tensor
    ) -> tuple[Tensor, Proposal]:
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
            + self.log_density(law, mean)
            + 0.5 * (whitened.square() - tau * away.square()).sum(-1)
            - log_scale(cholesky)
        )
        proposal = Proposal(
            *(v.flatten(0, 1) for v in (center.expand_as(mean), cholesky, whitened))
        )
        return log_alpha, proposal

    def draw(self, t: int, proposal: Proposal, rows: Tensor) -> Tensor:
        """Draw from γ̃ of each row's ancestor."""
        noise = proposal.whitened[rows] + self.noise[t]
        z = proposal.center[rows] + solve_upper(proposal.cholesky[rows], noise)
        return z.view(self.B, self.P, *self.event_shape)


class _Quadratic(GaussianLocal):
    """An emission that is quadratic in z_t: α and γ are exact."""

    exact = True

    def __init__(
        self, emission: QuadraticEmission, num_particles: int, scale: Tensor | None
    ) -> None:
        T, B, D = emission.center.shape
        super().__init__(D, (T, B, num_particles), emission.center, scale)
        self.emission = emission

    def look_ahead(self, t: int, law: Moments) -> tuple[Tensor, Tensor, Proposal]:
        """α, its shift, and γ."""
        log_alpha, proposal = self.propose(law, *(part[t].unsqueeze(1) for part in self.emission))
        return *shifted(log_alpha), proposal

    def log_weight(self, *args: object) -> Tensor:
        """Never asked: γ is exact."""
        raise NotImplementedError


def shifted(log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """α over exp(shift), float64, and the shift, one for all particles of a sequence."""
    log_alpha = log_alpha.double()
    shift = log_alpha.amax(-1).clamp_(min=torch.finfo(log_alpha.dtype).min)
    return (log_alpha - shift.unsqueeze(-1)).exp_(), shift


def log_scale(cholesky: Tensor) -> Tensor:
    """log of a Gaussian's density at its mean, given the Cholesky factor of its precision."""
    diagonal = cholesky.diagonal(dim1=-2, dim2=-1)
    return diagonal.log().sum(-1) - 0.5 * diagonal.shape[-1] * math.log(2.0 * math.pi)


def solve_upper(cholesky: Tensor, value: Tensor) -> Tensor:
    """L^{-T} times a vector."""
    solved = torch.linalg.solve_triangular(cholesky.mT, value.unsqueeze(-1), upper=True)
    return solved.squeeze(-1)
