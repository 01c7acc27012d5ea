r"""Conditional SMC over a non-Markov latent path: the algorithm, in pure tensors.

Target: the posterior of z_{1:T} under eq. (4) of Zheng et al. 2017 (arXiv 1711.11179),

.. math:: p(z, x) = \prod_t p(z_t \mid z_{1:t-1}) \, p(x_t \mid z_t).

For particle p at step t:

* look-ahead weight  α_t^p = p(x_t | z^p_{1:t-1}) = ∫ p(z_t | z^p_{1:t-1}) p(x_t | z_t) dz_t,
* locally optimal proposal  γ_t^p(z_t) = p(z_t | z^p_{1:t-1}) p(x_t | z_t) / α_t^p.

α_t does not depend on the draw of z_t, so the *fully adapted* order applies: draw ancestors by
α_t, then z_t from γ_t of the ancestor; particles are then equally weighted, and the final index is
uniform. The evidence estimate Ẑ = Π_t mean_p α_t^p is unbiased. ``discrete.py`` has α and γ for
discrete latents, ``gaussian.py`` for Gaussian ones. Where these are not known in closed form, any
positive α̃ and density γ̃ will do (Pitt & Shephard 1999, the auxiliary particle filter): particles
then carry weights w_t = p(z_t | z_{1:t-1}) p(x_t | z_t) / (α̃_t γ̃_t(z_t)), ancestors are drawn by
w_{t-1} α̃_t, the final index by w_T, and a factor mean_p w_t joins the evidence.

Conditional SMC keeps the reference path in slot 0. Why it leaves the posterior invariant: on the
space of all (z, ancestors) the extended target is the unconditional sampler's distribution times
Ẑ / Z, with a final slot drawn by w_T. Given the chosen path, its conditional distribution is the
conditional draws below; given all draws, that of the final slot is ∝ w_T. Each sweep samples the
first, then the second (Andrieu, Doucet & Holenstein 2010, theorem 5). Two refinements keep it so:

* *Forced move*: the final slot is proposed among the P - 1 others, a Metropolised Gibbs step (Liu
  1996); with equal weights it is always accepted.
* *Ancestor sampling*: at chosen steps the reference's own ancestor is redrawn from its conditional
  distribution, before the other slots of the same step (``ancestors.py``).

Layout: B sequences, P particles; states of the cell are kept as B·P rows, so that a resampling is
one row gather. Ancestors and latents are stored ``(T, B, P)``, traced back once.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from ..steps import steps_within
from ..transitions import Transition, map_state
from .ancestors import PROPOSAL_LAG, ReferencePath, Step, schedule
from .arguments import check_sweep
from .compiled import (
    compiled_resampling,
    compiled_stepper,
    compiled_sweep,
    compiled_trace_back,
)
from .emissions import Emission
from .particles import Particles, Standing, Sweep, SweepArguments
from .proposal import Asks, Proposal
from .randomness import BLOCK, FINAL, ByStep, Randomness
from .resampling import RESAMPLING, invert_cdf, monotone_cumsum
from .twist import TwistedProposal
from .weights import normalised

__all__ = ["Sweep", "conditional_smc", "run_sweep"]


@torch.no_grad()
def conditional_smc(
    transition: Transition,
    emission: Emission,
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
    twist: Emission | None = None,
    seed: int | None = None,
    sequences: Tensor | None = None,
) -> Sweep:
    """One sweep of conditional SMC, batched over sequences.

    :param Transition transition: p(z_t | z_{1:t-1}).
    :param Emission emission: log p(x_t | z_t): a :class:`TableEmission` where latents are discrete,
        a :class:`QuadraticEmission` where x is linear in a vector with Gaussian noise.
    :param int num_particles: P. At P=1 the reference is returned.
    :param Tensor reference: ``(T, B)``, int64, or ``(T, B, D)``; ``None`` for unconditional SMC.
    :param Tensor lengths: ``(B,)``; a sequence is frozen at its length.
    :param Tensor inputs: exogenous inputs, ``(T, B, input_size)``.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param int ancestor_sampling: redraw the reference's ancestor every so many steps, from a
        phase drawn uniformly once a sweep; 0 for never.
    :param int proposal_lag: L, how many steps of the reference propose its new ancestor, at least
        1. Exact at any L; from T upwards it is a plain Gibbs draw.
    :param bool forced_move: force the final pick away from the reference.
    :param Tensor transition_scale: ``(B,)``, power to which p(z_t | z_{1:t-1}) is raised.
    :param Emission twist: log β_t(z_t), a guess at log p(x_{t+1:T} | z_t) up to a constant of each
        step and sequence, 0 at every sequence's last step (``twist.py``): a :class:`TableEmission`
        or :class:`QuadraticEmission`, as the latents are. Exact for any that does not depend on the
        reference. The log-likelihoods of single steps then mean nothing, only their sum does.
    :param int seed: of the sweep's random numbers, from 0 to 2⁶³ - 1; by default it is drawn from
        torch's generator.
    :param Tensor sequences: which sequence each is, int64 ``(B,)``, by default its place. With a
        seed, a sequence's draws depend on this alone: not on the batch around it, nor on padding.
    :returns: :class:`Sweep`.
    :raises TypeError: if an argument is of another class.
    :raises ValueError: if shapes, dtypes, devices or values do not fit; nothing was drawn.

    *Reference*: Andrieu, Doucet & Holenstein, "Particle Markov chain Monte Carlo methods", JRSS B
    2010; Lindsten, Jordan & Schön, "Particle Gibbs with ancestor sampling", JMLR 2014.

    Example::

        >>> from pyro_ssl import LSTMTransition
        >>> from pyro_ssl.smc import TableEmission, conditional_smc
        >>> transition, x = LSTMTransition(num_states=3, hidden_size=8), torch.randn(7, 2, 1)
        >>> emission = TableEmission(-0.5 * (x - torch.arange(3.0)) ** 2)  # (T, B, K)
        >>> first = conditional_smc(transition, emission, num_particles=10)
        >>> conditional_smc(transition, emission, 10, first.path).path.shape
        torch.Size([7, 2])
    """
    check_sweep(
        *(transition, emission, num_particles, reference, lengths, inputs, transition_scale),
        resampling=resampling,
        ancestor_sampling=ancestor_sampling,
        proposal_lag=proposal_lag,
        seed=seed,
        sequences=sequences,
    )
    (T, B), P = emission.shape, num_particles
    drawn_by = emission if twist is None else emission.times(twist)
    if sequences is None:
        sequences = torch.arange(B, device=transition.like.device)
    randomness = Randomness(seed, sequences)
    every = ancestor_sampling if reference is not None and P > 1 else 0
    given = SweepArguments(
        transition,
        drawn_by,
        num_particles=P,
        reference=reference,
        lengths=lengths,
        active=None if lengths is None else steps_within(lengths, T).unsqueeze(-1),
        inputs=inputs,
        resampling=resampling,
        redraw_at=schedule(T, every, randomness),
        lag=proposal_lag,
        scale=transition_scale,
        twist=twist,
        randomness=randomness,
    )
    found = run_sweep(given)
    move = forced_move and reference is not None and P > 1
    u = randomness.uniform(FINAL, 1, 2, torch.float64)
    path = _trace_back(found.z, found.ancestors, _final_slot(found.weights, (B, P), move, u[0].T))
    if given.active is not None:
        path.masked_fill_(~given.active.view(T, B, *(1 for _ in transition.event_shape)), 0)
        found.log_likelihood.masked_fill_(~given.active.squeeze(-1), 0.0)
    return Sweep(path, *found)


def run_sweep(given: SweepArguments) -> Particles:
    """Run the algorithm, compiled where it can be."""
    found = compiled_sweep(given)
    return _torch_sweep(given) if found is None else found


def _torch_sweep(given: SweepArguments) -> Particles:
    """Make what the algorithm needs, and let the emission run it."""
    drawn_by, P = given.drawn_by, given.num_particles
    proposal = drawn_by.proposal(given.transition, P, given.scale, given.randomness)
    if given.twist is not None:
        proposal = TwistedProposal(proposal, given.twist.log_prob)
    step, reference = compiled_stepper(given) or _stepper(given), None
    if given.reference is not None:
        reference = ReferencePath(given, step, proposal)
    found = drawn_by.run(_sweep(given, step, proposal, reference))
    proposal.finish()
    return found


def _sweep(
    given: SweepArguments, step: Step, proposal: Proposal, reference: ReferencePath | None
) -> Asks[Particles]:
    """The algorithm; it asks for the emission where the proposal does.

    :param step: the transition's, over B P rows.
    """
    transition, active = given.transition, given.active
    resample = compiled_resampling(given) or RESAMPLING[given.resampling]
    (T, B), P = given.drawn_by.shape, given.num_particles
    # Of two steps in turn: what the transition keeps of z_{t-1} may be a view of it.
    num_kept = T if given.keeps_history else min(T, 2)
    shape, device = (num_kept, B, P), transition.like.device
    slots = torch.arange(P, device=device)
    first_rows = torch.arange(B, device=device).unsqueeze(-1) * P  # row of each slot 0
    u = ByStep(given.draw_ancestors, given.randomness, T)
    chosen_by = torch.empty(shape, device=device, dtype=torch.float64)  # w_{t-1} α_t
    particles = torch.empty((*shape, *proposal.event_shape), device=device, dtype=proposal.dtype)
    ancestors = torch.empty(shape, device=device, dtype=torch.long)
    log_likelihood = torch.empty(T, B, device=device, dtype=torch.float64)

    start = given.start or Standing(None, transition.initial_state((B * P,)), None)
    z = None if start.z is None else start.z.flatten(0, 1)
    state, weights = start.state, start.weights  # w_{t-1}, of mean 1; None: all equal
    each: list[Tensor] = []  # w_t of all steps
    kept = cycle(zip(particles, particles.flatten(1, 2), ancestors, chosen_by, strict=True))
    for t, log_shift, (z_t, rows_of_z, a, alpha) in zip(
        range(T), log_likelihood, kept, strict=False
    ):
        predicted, state = step(z, state, t)
        prior = proposal.prior(predicted)  # p(z_t | z_{1:t-1}) of every particle
        ahead = yield from proposal.look_ahead(t, prior)
        alpha.copy_(ahead.alpha)
        if weights is not None:
            alpha.mul_(weights)
        log_shift.copy_(ahead.shift)

        first = None if reference is None else reference.ancestor(t, state, prior, weights)
        u_t = u[t]
        a.copy_(resample(alpha, first, u_t))
        if active is not None:  # a sequence that has ended is frozen
            a.copy_(torch.where(active[t], a, slots))
        rows = (first_rows + a).view(-1)
        z_t.copy_(proposal.draw(t, ahead.gamma, rows))
        if reference is not None:
            z_t[:, 0].copy_(reference.steps[t])

        log_w = yield from proposal.log_weight(t, ahead.gamma, rows, z_t)
        if log_w is not None:
            now, log_mean = normalised(log_w)
            log_shift.add_(log_mean)
            if active is not None:  # ... and keeps its last weights
                now = torch.where(active[t], now, 1.0 if weights is None else weights)
            weights = now
            if given.keeps_history and given.twist is None:
                each.append(now)
        state = map_state(partial(torch.index_select, dim=0, index=rows), state)
        z = rows_of_z
        log_shift.add_(alpha.mean(-1).log_())
    by_step = torch.stack(each) if each else None
    return Particles(particles, ancestors, log_likelihood, state, chosen_by, weights, by_step)


def _stepper(given: SweepArguments) -> Step:
    """The transition's stepper over rows; without a history few steps' inputs are laid out."""
    inputs, P, first = given.inputs, given.num_particles, 0
    if inputs is None:
        return given.transition.stepper(None)
    size = len(inputs) if given.keeps_history else BLOCK

    def stepper_from(first: int) -> Step:
        return given.transition.stepper(inputs[first : first + size].repeat_interleave(P, 1))

    stepper = stepper_from(0)

    def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Any, Any]:
        nonlocal first, stepper
        if t >= first + size:
            first = t - t % size
            stepper = stepper_from(first)
        return stepper(z_prev, state, t - first)

    return step


def _trace_back(z: Tensor, ancestors: Tensor, slot: Tensor) -> Tensor:
    """Path of a final slot ``(B,)``: ``(T, B, ...)``."""
    T, B, P = ancestors.shape
    lineage = compiled_trace_back(ancestors, slot)
    if lineage is None:
        lineage = torch.empty_like(ancestors[:, :, 0])
        first_rows = torch.arange(0, B * P, P, device=z.device)
        for slots, a in reversed(list(zip(lineage, ancestors.flatten(1), strict=True))):
            slot = a.index_select(0, slots.copy_(slot) + first_rows)
    index = lineage.view(T, B, *(1 for _ in z.shape[2:])).expand(T, B, 1, *z.shape[3:])
    return z.gather(2, index).squeeze(2)


def _final_slot(weights: Tensor | None, shape: tuple[int, int], move: bool, u: Tensor) -> Tensor:
    """Draw the final slot by its weight, or move from slot 0 to another, ``(B,)``.

    :param Tensor u: uniforms, float64 ``(2, B)``.
    """
    u = u.unsqueeze(-1)
    if weights is None:
        least = 1 if move else 0
        return least + (u[0, :, 0] * (shape[1] - least)).long()
    if not move:
        return invert_cdf(monotone_cumsum(weights), u[0]).squeeze(-1)
    # Liu 1996: proposed ∝ w among the others, accepted by (Σw - w_0) / (Σw - w_slot)
    others = weights[:, 1:]
    slot = 1 + invert_cdf(monotone_cumsum(others), u[0])
    total = weights.sum(-1, keepdim=True)
    left, right = others.sum(-1, keepdim=True), total - weights.gather(-1, slot)
    possible = left > 0
    return torch.where(possible & (u[1] * right < left), slot, 0).squeeze(-1)
