r"""Discrete latents in the sweep: α and γ by sums over K states.

With J_t^p(k) = p(z_t=k | z^p_{1:t-1}) p(x_t | z_t=k): α_t^p = Σ_k J_t^p(k) and
γ_t^p(k) = J_t^p(k) / α_t^p. The algorithm is in ``sweep.py``.

With m = max_k log p(x_t | k), all particles' J over exp(m) is one softmax times one row of the
emission. It may underflow: where x_t is likely under states alone that no particle expects. There
J is computed in logarithms, over its own greatest entry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .proposal import Asks, LookAhead, Proposal
from .randomness import LATENTS, Randomness
from .resampling import first_above, monotone_cumsum

__all__ = ["StatesProposal"]


class StatesProposal(Proposal):
    """K states with their log-emissions: γ is exact.

    :param Tensor log_emission: log p(x_t | z_t = k), ``(T, B, K)``.
    :param int num_particles: P.
    :param Tensor scale: power of p(z_t | z_{1:t-1}), ``(B,)``, or ``None``.
    """

    event_shape = torch.Size()
    dtype = torch.long

    def __init__(
        self,
        log_emission: Tensor,
        num_particles: int,
        scale: Tensor | None,
        randomness: Randomness,
    ) -> None:
        T, B, K = log_emission.shape
        device, dtype = log_emission.device, log_emission.dtype
        finfo = torch.finfo(dtype)
        self.log_emission, self.shape = log_emission, (B, num_particles)
        self.scale = None if scale is None else scale[:, None, None]
        # u Σ_k J < Σ_k J also when rounded: a point that no partial sum exceeds draws no state.
        u_z = randomness.uniform(LATENTS, T, num_particles, dtype).view(T, B * num_particles, 1)
        self.u_z = u_z.clamp_(max=1.0 - finfo.eps).unbind()
        # Finite where all are zero, so that these come out as log 0 and not as NaN.
        peak = log_emission.amax(-1, keepdim=True).clamp_(min=finfo.min)
        emission = (log_emission - peak).exp_().contiguous()
        self.peak, self.emission = peak.squeeze(-1).unbind(), emission.unsqueeze(2).unbind()
        # Where Σ_k J is at least this for some particle, no J that matters underflows. It always is
        # where the least p(x_t | k) is, over the greatest: Σ_k p(k) = 1.
        self.enough = finfo.tiny**0.25
        least = emission.view(T, B * K).amin(-1) if emission.numel() else emission.new_ones(T)
        self.may_underflow = (~(least > 2.0 * self.enough)).tolist()
        self.on_host = device.type == "cpu"  # where reading a number waits for nothing
        # Made once a sweep: to allocate, and to make a view, takes as long as a small product.
        self.joint = torch.empty(B, num_particles, K, device=device, dtype=dtype)
        self.gamma, self.alpha = self.joint.view(B * num_particles, K), self.joint[..., -1]

    def prior(self, predicted: Tensor) -> Tensor:
        """log p(z_t | z_{1:t-1}) up to constants, of logits ``(B P or 1, K)``: ``(B, P, K)``."""
        return predicted.expand_as(self.gamma).view_as(self.joint)

    def look_ahead(self, t: int, prior: Tensor) -> Asks[LookAhead]:
        """Return α, and as γ the cumulative sums of J over k, ``(B P, K)``."""
        if self.scale is not None or self.may_underflow[t] and not self.on_host:
            return self._in_logarithms(t, prior)
        torch.softmax(prior, -1, out=self.joint).mul_(self.emission[t])
        monotone_cumsum(self.joint, out=self.joint)
        found = LookAhead(self.alpha, self.peak[t], self.gamma)
        if self.may_underflow[t]:
            greatest = self.alpha.amax(-1)
            if not float(greatest.min()) >= self.enough:  # or NaN in some sequence
                found = _choose(greatest < self.enough, self._in_logarithms(t, prior), found)
        return found
        yield  # makes this a generator, as that of every proposal

    def _in_logarithms(self, t: int, prior: Tensor) -> LookAhead:
        """The same from log J, over the greatest entry of each sequence."""
        log_joint = torch.log_softmax(prior, -1)
        if self.scale is not None:
            log_joint = log_joint * self.scale
        log_joint = log_joint.add_(self.log_emission[t].unsqueeze(1))
        # Finite where all weights are zero, so that these come out as log 0 and not as NaN.
        shift = log_joint.flatten(1).amax(-1).clamp_(min=torch.finfo(prior.dtype).min)
        cdf = monotone_cumsum(log_joint.sub_(shift.view(-1, 1, 1)).exp_())
        return LookAhead(cdf[..., -1], shift, cdf.flatten(0, 1))

    def draw(self, t: int, gamma: Tensor, rows: Tensor) -> Tensor:
        """Draw by inverting the cumulative sums of each row; see the base class."""
        cdf = gamma.index_select(0, rows)
        return first_above(cdf, self.u_z[t] * cdf[:, -1:]).view(self.shape)

    def log_prior(self, prior: Tensor, z: Tensor) -> Tensor:
        """Pick the entries of z ``(B,)``: ``(B, P)``."""
        index = z.view(-1, 1, 1).expand(-1, prior.shape[1], 1)
        log_p = torch.log_softmax(prior, -1).gather(-1, index).squeeze(-1)
        return self.scaled(log_p)

    def scaled(self, log_prior: Tensor, which: Tensor | slice = slice(None)) -> Tensor:
        """Scale log-probabilities; see the base class."""
        return log_prior if self.scale is None else log_prior * self.scale[which, :, 0]


def _choose(small: Tensor, exact: LookAhead, direct: LookAhead) -> LookAhead:
    """Take some sequences ``(B,)`` from logarithms: none depends on those beside it."""
    rows = small.repeat_interleave(exact.alpha.shape[1]).unsqueeze(-1)
    choices = zip((small.unsqueeze(-1), small, rows), exact, direct, strict=True)
    return LookAhead(*(torch.where(*choice) for choice in choices))
