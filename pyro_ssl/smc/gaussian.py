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

from ..transitions.gaussian import GaussianTransition, Moments
from .product import Product, product
from .quadratic import QuadraticEmission
from .sweep import PROPOSAL_LAG, Sweep, finish, sweep_steps

__all__ = ["GaussianLocal", "gaussian_smc", "roll_out_vectors"]


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

    def scaled(self, log_prior: Tensor) -> Tensor:
        """Log-densities ``(..., B, rows)``, scaled."""
        return log_prior if self.scale is None else log_prior * self.scale

    def log_density(self, law: Moments, z: Tensor) -> Tensor:
        """log p(z_t | z_{1:t-1}) to the power that the user asked for, ``(B, rows)``."""
        D = z.shape[-1]
        square = ((z - law.mean) / law.scale).square().sum(-1)
        log_p = -0.5 * square - law.scale.log().sum(-1) - 0.5 * D * math.log(2.0 * math.pi)
        return log_p if self.scale is None else log_p * self.scale

    def propose(self, law: Moments, gradient: Tensor, precision: Tensor) -> tuple[Tensor, Product]:
        """log ∫ p(z)^s exp(g (z - μ) - ½ (z - μ) Λ (z - μ)) dz ``(B, P)``, and γ̃ by row."""
        if self.scale is None:
            found = product(*law, gradient, precision)
            return found.log_mass, found
        found = product(*self.tempered(law), gradient, precision)
        return found.log_mass + self.log_power(law), found

    def tempered(self, law: Moments) -> Moments:
        """p(z)^s, normalised; s is one per sequence, and rows stand sequence by sequence."""
        if self.scale is None:
            return law
        scale = self.scale.sqrt()  # (B, 1)
        if law.mean.dim() == 2:
            scale = scale.expand(self.B, len(law.mean) // max(self.B, 1)).reshape(-1)
        return Moments(law.mean, law.scale / scale.unsqueeze(-1))

    def log_power(self, law: Moments) -> Tensor:
        """log of what p(z)^s is over the density that is proportional to it, ``(B, P)``."""
        return self.log_density(law, law.mean) - _log_peak(self.tempered(law))

    def draw(self, t: int, proposal: Product, rows: Tensor) -> Tensor:
        """Draw from γ̃ of each row's ancestor."""
        return proposal.draw(rows, self.noise[t])


class _Quadratic(GaussianLocal):
    """An emission that is quadratic in z_t: α and γ are exact."""

    exact = True

    def __init__(
        self, emission: QuadraticEmission, num_particles: int, scale: Tensor | None
    ) -> None:
        T, B, D = emission.center.shape
        super().__init__(D, (T, B, num_particles), emission.center, scale)
        self.emission = list(zip(*(part.unsqueeze(2).unbind() for part in emission), strict=True))

    def look_ahead(self, t: int, law: Moments) -> tuple[Tensor, Tensor, Product]:
        """α, its shift, and γ."""
        center, constant, linear, precision = self.emission[t]
        away = law.mean - center
        gradient = torch.baddbmm(linear, away, precision.squeeze(1), alpha=-1.0)  # Λ = Λᵀ
        # c + b d - ½ d Λ d at d = μ - m
        slope = torch.linalg.vecdot(away, linear + gradient)
        log_mass, proposal = self.propose(law, gradient, precision)
        return *shifted(log_mass + constant.add(slope, alpha=0.5)), proposal

    def log_weight(self, *args: object) -> Tensor:
        """Never asked: γ is exact."""
        raise NotImplementedError


def shifted(log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """α over exp(shift), float64, and the shift, one for all particles of a sequence."""
    log_alpha = log_alpha.double()
    shift = log_alpha.amax(-1).clamp_(min=torch.finfo(log_alpha.dtype).min)
    return (log_alpha - shift.unsqueeze(-1)).exp_(), shift


def _log_peak(law: Moments) -> Tensor:
    """log of a diagonal Gaussian's density at its mean."""
    D = law.mean.shape[-1]
    return -law.scale.log().sum(-1) - 0.5 * D * math.log(2.0 * math.pi)
