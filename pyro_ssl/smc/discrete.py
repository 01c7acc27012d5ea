r"""Discrete latents in the sweep: α and γ by sums over K states.

With J_t^p(k) = p(z_t=k | z^p_{1:t-1}) p(x_t | z_t=k): α_t^p = Σ_k J_t^p(k) and
γ_t^p(k) = J_t^p(k) / α_t^p. The algorithm is in ``sweep.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..transitions.base import DiscreteTransition
from .resampling import invert_cdf, monotone_cumsum
from .sweep import PROPOSAL_LAG, Sweep, finish, sweep_steps

__all__ = ["conditional_smc", "roll_out"]


def conditional_smc(
    transition: DiscreteTransition,
    log_emission: Tensor,
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
    """One sweep of conditional SMC, batched over sequences.

    :param DiscreteTransition transition: p(z_t | z_{1:t-1}).
    :param Tensor log_emission: log p(x_t | z_t = k), ``(T, B, K)``; every row has a finite entry.
    :param int num_particles: P. At P=1 the reference is returned.
    :param Tensor reference: int64 ``(T, B)``; ``None`` for unconditional SMC.
    :param Tensor lengths: ``(B,)``; a sequence is frozen at its length.
    :param Tensor inputs: exogenous inputs, ``(T, B, input_size)``.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param int ancestor_sampling: redraw the reference's ancestor every so many steps, from a
        phase drawn uniformly once a sweep; 0 for never.
    :param int proposal_lag: L, how many steps of the reference propose its new ancestor, at least
        1. Exact at any L; from T upwards it is a plain Gibbs draw.
    :param bool forced_move: force the final pick away from the reference.
    :param Tensor transition_scale: ``(B,)``, power to which p(z_t | z_{1:t-1}) is raised.
    :returns: :class:`Sweep`.

    *Reference*: Andrieu, Doucet & Holenstein, "Particle Markov chain Monte Carlo methods", JRSS B
    2010; Lindsten, Jordan & Schön, "Particle Gibbs with ancestor sampling", JMLR 2014.
    """
    T, B, _ = log_emission.shape
    steps = sweep_steps(
        transition,
        _States(log_emission, num_particles, transition_scale),
        (T, B, num_particles),
        reference,
        lengths=lengths,
        inputs=inputs,
        resampling=resampling,
        ancestor_sampling=ancestor_sampling,
        proposal_lag=proposal_lag,
        forced_move=forced_move,
        device=log_emission.device,
    )
    return finish(steps)


class _States:
    """K states with their log-emissions, as the sweep meets them; see :class:`~.sweep.Local`."""

    event_shape = torch.Size()
    dtype = torch.long
    exact = True

    def __init__(
        self, log_emission: Tensor, num_particles: int, transition_scale: Tensor | None
    ) -> None:
        T, B, _ = log_emission.shape
        device, dtype = log_emission.device, log_emission.dtype
        self.log_emission, self.shape = log_emission, (B, num_particles)
        self.scale = None if transition_scale is None else transition_scale[:, None, None]
        self.u_z = torch.rand(T, B * num_particles, 1, device=device, dtype=dtype)

    def law(self, predicted: Tensor, num_rows: int) -> Tensor:
        """log p(z_t = k | z_{1:t-1}), ``(B, rows, K)``."""
        _, B, K = self.log_emission.shape
        log_prior = torch.log_softmax(predicted.expand(B * num_rows, K), -1).view(B, num_rows, K)
        return log_prior if self.scale is None else log_prior * self.scale

    def look_ahead(self, t: int, law: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """α, its shift, and as proposal the cdf of J over k, ``(B P, K)``."""
        B, P, K = law.shape
        log_joint = law + self.log_emission[t].unsqueeze(1)  # log J, (B, P, K)
        # One shift for all particles of a sequence keeps their weights comparable; it is finite
        # where all weights are zero, so that these come out as log 0 and not as NaN.
        shift = log_joint.view(B, P * K).amax(-1).clamp_(min=torch.finfo(law.dtype).min)
        cdf = monotone_cumsum(log_joint.sub_(shift.view(B, 1, 1)).exp_())
        return cdf[..., -1].double(), shift, cdf.view(B * P, K)

    def draw(self, t: int, proposal: Tensor, rows: Tensor) -> Tensor:
        """Invert the cdf of each row's ancestor."""
        return invert_cdf(proposal.index_select(0, rows), self.u_z[t]).view(self.shape)

    def log_weight(self, *args: object) -> Tensor:
        """Never asked: γ is exact."""
        raise NotImplementedError

    def log_prior(self, law: Tensor, z: Tensor) -> Tensor:
        """Pick the entries of z ``(B,)``."""
        index = z.view(-1, 1, 1).expand(-1, law.shape[1], 1)
        return law.gather(-1, index).squeeze(-1)

    def scaled(self, log_prior: Tensor) -> Tensor:
        """Log-probabilities ``(..., B, rows)``, scaled."""
        return log_prior if self.scale is None else log_prior * self.scale.squeeze(-1)


@torch.no_grad()
def roll_out(
    transition: DiscreteTransition, sweep: Sweep, num_steps: int, *, inputs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Let particles run on under the transition, from where an unconditional sweep left them.

    :param Sweep sweep: a sweep over the first s steps.
    :param int num_steps: S, how many steps to go on.
    :param Tensor inputs: exogenous inputs of all s + S steps, ``(s + S, B, input_size)``.
    :returns: p(z_t = k) averaged over the particles' prefixes, ``(S, B, K)``, and their paths,
        ``(S, B, P)``.
    """
    start, B, P = sweep.z.shape
    step = transition.stepper(None if inputs is None else inputs.repeat_interleave(P, 1))
    state, z_prev = sweep.state, sweep.z[-1].view(-1) if start else None
    K, probs, paths = transition.num_states, [], []
    for t in range(start, start + num_steps):
        logits, state = step(z_prev, state, t)
        law = torch.softmax(logits.expand(B * P, K), -1)
        u = torch.rand(B * P, 1, device=law.device, dtype=law.dtype)
        z_prev = invert_cdf(monotone_cumsum(law), u).view(-1)
        probs.append(law.view(B, P, K).mean(1))
        paths.append(z_prev.view(B, P))
    return torch.stack(probs), torch.stack(paths)
