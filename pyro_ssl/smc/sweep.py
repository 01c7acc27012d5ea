r"""Conditional SMC over a discrete, non-Markov latent path: the algorithm, in pure tensors.

Target: the posterior of z_{1:T} under eq. (4) of Zheng et al. 2017 (arXiv 1711.11179),

.. math:: p(z, x) = \prod_t p(z_t \mid z_{1:t-1}) \, p(x_t \mid z_t).

For particle p at step t, with J_t^p(k) = p(z_t=k | z^p_{1:t-1}) p(x_t | z_t=k):

* look-ahead weight  α_t^p = p(x_t | z^p_{1:t-1}) = Σ_k J_t^p(k),
* locally optimal proposal  γ_t^p(k) = J_t^p(k) / α_t^p.

α_t does not depend on the draw of z_t, so the *fully adapted* order applies: draw ancestors by
α_t, then z_t from γ_t of the ancestor; particles are then equally weighted, and the final index is
uniform. The evidence estimate Ẑ = Π_t mean_p α_t^p is unbiased.

Conditional SMC keeps the reference path in slot 0. Why it leaves the posterior invariant: on the
space of all (z, ancestors) the extended target is the unconditional sampler's law times
Ẑ / Z, read from a uniformly chosen final slot; given the chosen path this leaves exactly the
conditional draws below, and given all draws the final slot is uniform again (Andrieu, Doucet &
Holenstein 2010, theorem 5, in the fully adapted order). Two refinements keep it so:

* *Forced move*: the final slot is uniform on P slots; moving to a uniform one of the P - 1 others
  is a Metropolised Gibbs step that is always accepted (Liu 1996).
* *Ancestor sampling* (Lindsten, Jordan & Schön 2014): at chosen steps the reference's own ancestor
  is redrawn from its conditional law, ∝ p(ref_{t:T} | z^p_{1:t-1}); the emissions cancel, and the
  particles are equally weighted. It is drawn before the other slots of the same step. The next L
  steps of the reference propose, ∝ p(ref_{t:t+L} | z^p_{1:t-1}) for all P prefixes; the steps after
  decide, by a Metropolis-Hastings ratio in which the first L cancel, for two prefixes only.

Layout: B sequences, P particles, K states; states of the cell are kept as B·P rows, so that a
resampling is one row gather. Ancestors and latents are stored ``(T, B, P)``, traced back once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..transitions.base import DiscreteTransition, Stepper
from .resampling import RESAMPLING, invert_cdf, monotone_cumsum

__all__ = ["Sweep", "conditional_smc", "roll_out"]

#: Steps of the reference that propose its new ancestor. Fewer cost less and are refused more often.
PROPOSAL_LAG = 4


class Sweep(NamedTuple):
    """What one sweep of (conditional) SMC returns.

    ``path`` ``(T, B)`` is the drawn path, 0 past a sequence's length. ``z`` and ``ancestors``
    ``(T, B, P)``: particle p at step t holds ``z[t, :, p]`` and continues particle
    ``ancestors[t, :, p]`` of step t - 1. ``log_likelihood`` ``(T, B)`` float64 is
    log mean_p α_t^p = log p̂(x_t | x_{1:t-1}) — its sum over t the log of an unbiased evidence
    estimate, when there was no reference. It is -inf or NaN where all particles of a sequence
    had weight zero, or NaN; such a sequence's draws mean nothing. ``state`` is the cell's state
    after the last step, rows ``(B P, ...)``.
    """

    path: Tensor
    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    state: Any

    @property
    def failed(self) -> Tensor:
        """Sequences whose particles all died, bool ``(B,)``."""
        return ~self.log_likelihood.isfinite().all(0)


@torch.no_grad()
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
    T, B, K = log_emission.shape
    P, device, dtype = num_particles, log_emission.device, log_emission.dtype
    resample = RESAMPLING[resampling]
    step = transition.stepper(None if inputs is None else inputs.repeat_interleave(P, 1))
    state = transition.initial_state((B * P,))
    active = None
    if lengths is not None:
        active = torch.arange(T, device=device)[:, None, None] < lengths[:, None]  # (T, B, 1)
    scale = None if transition_scale is None else transition_scale[:, None, None]
    redraw_at = _redraw_steps(T, 0 if reference is None or P < 2 else ancestor_sampling)
    if redraw_at and reference is not None:
        pair = transition.stepper(None if inputs is None else inputs.repeat_interleave(2, 1))
        redraw = _AncestorSampler(step, pair, reference, active, scale, max(proposal_lag, 1))

    rows = torch.arange(0, B * P, max(P, 1), device=device).unsqueeze(-1)  # row of each slot 0
    slots = torch.arange(P, device=device).expand(B, P)
    u_ancestor = torch.rand(T, B, P, device=device, dtype=torch.float64)
    u_z = torch.rand(T, B, P, device=device, dtype=dtype)
    z_history = torch.empty(T, B, P, device=device, dtype=torch.long)
    ancestor_history = torch.empty(T, B, P, device=device, dtype=torch.long)
    log_likelihood = torch.empty(T, B, device=device, dtype=torch.float64)

    z_prev = None
    for t in range(T):
        logits, state = step(z_prev, state, t)
        log_prior = torch.log_softmax(logits.expand(B * P, K), -1).view(B, P, K)
        if scale is not None:
            log_prior = log_prior * scale
        log_joint = log_prior + log_emission[t].unsqueeze(1)  # log J, (B, P, K)
        # One shift for all particles of a sequence keeps their weights comparable; it is finite
        # where all weights are zero, so that these come out as log 0 and not as NaN.
        shift = log_joint.view(B, P * K).amax(-1).clamp_(min=torch.finfo(dtype).min).view(B, 1, 1)
        cdf = monotone_cumsum(log_joint.sub_(shift).exp_())  # of J over k, (B, P, K)
        alpha = cdf[..., -1].double()  # (B, P)
        log_likelihood[t] = alpha.mean(-1).log_().add_(shift.view(B))

        first = None  # the reference's ancestor
        if reference is not None:
            first = slots[:, 0]
            if t in redraw_at:
                first = redraw(t, state, log_prior)
        ancestors = resample(alpha, first, u_ancestor[t])
        if active is not None:
            ancestors = torch.where(active[t], ancestors, slots)
        gather = (rows + ancestors).view(-1)
        z = invert_cdf(cdf.view(B * P, K).index_select(0, gather), u_z[t].view(-1, 1)).view(B, P)
        if reference is not None:
            z[:, 0] = reference[t]
        state = type(state)(*(value.index_select(0, gather) for value in state))
        z_history[t], ancestor_history[t], z_prev = z, ancestors, z.view(-1)

    path = _trace_back(z_history, ancestor_history, forced_move and reference is not None)
    if active is not None:
        path.masked_fill_(~active.squeeze(-1), 0)
        log_likelihood.masked_fill_(~active.squeeze(-1), 0.0)
    return Sweep(path, z_history, ancestor_history, log_likelihood, state)


def _redraw_steps(T: int, every: int) -> range:
    """Steps at which the reference's ancestor is redrawn; at t=0 there is none to redraw."""
    if every < 1:
        return range(0)
    phase = int(torch.randint(every, (), device="cpu"))  # the schedule is the host's
    return range(phase if phase else every, T, every)


class _AncestorSampler(NamedTuple):
    """Redraws the reference's ancestor at a step, given the P prefixes that stand before it."""

    step: Stepper  # over rows (B P, ...)
    step_pair: Stepper  # over rows (B 2, ...)
    reference: Tensor
    active: Tensor | None
    scale: Tensor | None
    lag: int

    def __call__(self, t: int, state: Any, log_prior: Tensor) -> Tensor:
        """Return the new ancestor of the reference's step t, ``(B,)``.

        :param state: rows ``(B P, ...)``, having read z_{t-1}.
        :param log_prior: log p(z_t = k | z^p_{1:t-1}), ``(B, P, K)``.
        """
        B, P, K = log_prior.shape
        T = len(self.reference)
        u = torch.rand(2, B, 1, device=log_prior.device, dtype=torch.float64)
        middle = min(t + self.lag, T)
        near, state = self._score(self.step, t, middle, state, self._of_reference(t, log_prior))
        weights = (near - near.amax(-1, keepdim=True)).exp_()
        proposed = invert_cdf(monotone_cumsum(weights), u[0])  # (B, 1)
        if middle == T:
            return proposed.squeeze(-1)
        rows = torch.arange(0, B * P, P, device=proposed.device).unsqueeze(-1)
        pair = torch.cat([rows, rows + proposed], -1).view(-1)  # the reference's own, and the new
        state = type(state)(*(value.index_select(0, pair) for value in state))
        zero = near.new_zeros(B, 2)
        far, _ = self._score(self.step_pair, middle - 1, T, state, zero)
        accepted = u[1].log() < far[:, 1:] - far[:, :1]
        return torch.where(accepted, proposed, 0).squeeze(-1)

    def _score(
        self, step: Stepper, start: int, stop: int, state: Any, total: Tensor
    ) -> tuple[Tensor, Any]:
        """Add log p(ref_s | ...) for s in start+1..stop-1 to ``total``, ``(B, rows)``."""
        B, num_rows = total.shape
        for s in range(start + 1, stop):
            logits, state = step(self.reference[s - 1].repeat_interleave(num_rows), state, s)
            law = torch.log_softmax(logits.expand(B * num_rows, -1), -1).view(B, num_rows, -1)
            total = total + self._of_reference(s, law if self.scale is None else law * self.scale)
        return total, state

    def _of_reference(self, s: int, log_prior: Tensor) -> Tensor:
        """Pick log p(z_s = ref_s) from a law ``(B, rows, K)``; 0 past a sequence's length."""
        index = self.reference[s].view(-1, 1, 1).expand(-1, log_prior.shape[1], 1)
        term = log_prior.gather(-1, index).squeeze(-1).double()
        return term if self.active is None else torch.where(self.active[s], term, 0.0)


def _trace_back(z: Tensor, ancestors: Tensor, away_from_reference: bool) -> Tensor:
    """Path of a uniformly drawn final slot, ``(T, B)``; of slots 1..P-1 where it is to move."""
    T, B, P = z.shape
    low = 1 if away_from_reference and P > 1 else 0
    slot = torch.randint(low, P, (B, 1), device=z.device)
    path = torch.empty(T, B, device=z.device, dtype=torch.long)
    for t in reversed(range(T)):
        path[t] = z[t].gather(-1, slot).squeeze(-1)
        slot = ancestors[t].gather(-1, slot)
    return path


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
