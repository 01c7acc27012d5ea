r"""Discrete latents in the sweep: α and γ by sums over K states.

With J_t^p(k) = p(z_t=k | z^p_{1:t-1}) p(x_t | z_t=k): α_t^p = Σ_k J_t^p(k) and
γ_t^p(k) = J_t^p(k) / α_t^p. The algorithm is in ``sweep.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .proposal import Asks, LookAhead, Proposal
from .resampling import invert_cdf, monotone_cumsum

__all__ = ["StatesProposal"]


class StatesProposal(Proposal):
    """K states with their log-emissions: γ is exact.

    :param Tensor log_emission: log p(x_t | z_t = k), ``(T, B, K)``.
    :param int num_particles: P.
    :param Tensor scale: power of p(z_t | z_{1:t-1}), ``(B,)``, or ``None``.
    """

    event_shape = torch.Size()
    dtype = torch.long

    def __init__(self, log_emission: Tensor, num_particles: int, scale: Tensor | None) -> None:
        T, B, _ = log_emission.shape
        device, dtype = log_emission.device, log_emission.dtype
        self.log_emission, self.shape = log_emission, (B, num_particles)
        self.scale = None if scale is None else scale[:, None, None]
        self.u_z = torch.rand(T, B * num_particles, 1, device=device, dtype=dtype)

    def prior(self, predicted: Tensor) -> Tensor:
        """log p(z_t = k | z_{1:t-1}) of logits ``(B P or 1, K)``: ``(B, P, K)``."""
        B, P = self.shape
        K = self.log_emission.shape[-1]
        log_prior = torch.log_softmax(predicted.expand(B * P, K), -1).view(B, P, K)
        return log_prior if self.scale is None else log_prior * self.scale

    def look_ahead(self, t: int, prior: Tensor) -> Asks[LookAhead]:
        """Return α, and as γ the cumulative sums of J over k, ``(B P, K)``."""
        B, P, K = prior.shape
        log_joint = prior + self.log_emission[t].unsqueeze(1)  # log J, (B, P, K)
        # Finite where all weights are zero, so that these come out as log 0 and not as NaN.
        shift = log_joint.view(B, P * K).amax(-1).clamp_(min=torch.finfo(prior.dtype).min)
        cdf = monotone_cumsum(log_joint.sub_(shift.view(B, 1, 1)).exp_())
        return LookAhead(cdf[..., -1].double(), shift, cdf.view(B * P, K))
        yield  # makes this a generator, as that of every proposal

    def draw(self, t: int, gamma: Tensor, rows: Tensor) -> Tensor:
        """Draw by inverting the cumulative sums of each row; see the base class."""
        return invert_cdf(gamma.index_select(0, rows), self.u_z[t]).view(self.shape)

    def log_prior(self, prior: Tensor, z: Tensor) -> Tensor:
        """Pick the entries of z ``(B,)``: ``(B, P)``."""
        index = z.view(-1, 1, 1).expand(-1, prior.shape[1], 1)
        return prior.gather(-1, index).squeeze(-1)

    def scaled(self, log_prior: Tensor) -> Tensor:
        """Scale log-probabilities; see the base class."""
        return log_prior if self.scale is None else log_prior * self.scale.squeeze(-1)
