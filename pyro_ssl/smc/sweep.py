r"""Conditional SMC over a non-Markov latent path: the algorithm, in pure tensors.

Target: the posterior of z_{1:T} under eq. (4) of Zheng et al. 2017 (arXiv 1711.11179),

.. math:: p(z, x) = \prod_t p(z_t \mid z_{1:t-1}) \, p(x_t \mid z_t).

For particle p at step t:

* look-ahead weight  α_t^p = p(x_t | z^p_{1:t-1}) = ∫ p(z_t | z^p_{1:t-1}) p(x_t | z_t) dz_t,
* locally optimal proposal  γ_t^p(z_t) = p(z_t | z^p_{1:t-1}) p(x_t | z_t) / α_t^p.

α_t does not depend on the draw of z_t, so the *fully adapted* order applies: draw ancestors by
α_t, then z_t from γ_t of the ancestor; particles are then equally weighted, and the final index is
uniform. The evidence estimate Ẑ = Π_t mean_p α_t^p is unbiased. ``states.py`` has α and γ for
discrete latents, ``gaussian.py`` for Gaussian ones. Where these are not known in closed form, any
positive α̃ and density γ̃ will do (Pitt & Shephard 1999, the auxiliary particle filter): particles
then carry weights w_t = p(z_t | z_{1:t-1}) p(x_t | z_t) / (α̃_t γ̃_t(z_t)), ancestors are drawn by
w_{t-1} α̃_t, the final index by w_T, and a factor mean_p w_t joins the evidence.

Conditional SMC keeps the reference path in slot 0. Why it leaves the posterior invariant: on the
space of all (z, ancestors) the extended target is the unconditional sampler's law times
Ẑ / Z, read from a final slot drawn by w_T; given the chosen path this leaves exactly the
conditional draws below, and given all draws the final slot has that law again (Andrieu, Doucet &
Holenstein 2010, theorem 5). Two refinements keep it so:

* *Forced move*: the final slot is proposed among the P - 1 others, a Metropolised Gibbs step (Liu
  1996); with equal weights it is always accepted.
* *Ancestor sampling* (Lindsten, Jordan & Schön 2014): at chosen steps the reference's own ancestor
  is redrawn from its conditional law, ∝ w_{t-1}^p p(ref_{t:T} | z^p_{1:t-1}); the emissions cancel.
  It is drawn before the other slots of the same step. The next L steps of the reference propose,
  ∝ w_{t-1}^p p(ref_{t:t+L} | z^p_{1:t-1}) for all P prefixes; the steps after decide, by a
  Metropolis-Hastings ratio in which the first L cancel, for two prefixes only. What they say of
  the reference's own prefix is known from the redraw before.

Layout: B sequences, P particles; states of the cell are kept as B·P rows, so that a resampling is
one row gather. Ancestors and latents are stored ``(T, B, P)``, traced back once.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..transitions.base import Transition, map_state
from .resampling import RESAMPLING, invert_cdf, monotone_cumsum

__all__ = ["Local", "Sweep", "finish", "sweep_steps"]

#: Steps of the reference that propose its new ancestor. Fewer cost less and are refused more often.
PROPOSAL_LAG = 4


class Sweep(NamedTuple):
    """What one sweep of (conditional) SMC returns.

    ``path`` ``(T, B)`` is the drawn path, 0 past a sequence's length; D follows where latents are
    vectors. ``z`` and ``ancestors`` ``(T, B, P)``: particle p at step t holds ``z[t, :, p]`` and
    continues particle ``ancestors[t, :, p]`` of step t - 1. ``log_likelihood`` ``(T, B)`` float64
    is log mean_p α_t^p = log p̂(x_t | x_{1:t-1}) — its sum over t the log of an unbiased evidence
    estimate, when there was no reference. It is -inf or NaN where all particles of a sequence
    had weight zero, or NaN; such a sequence's draws mean nothing. ``state`` is the cell's state
    after the last step, rows ``(B P, ...)``; ``weights`` ``(B, P)`` those of the particles there,
    of mean 1, ``None`` where all are equal.
    """

    path: Tensor
    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    state: Any
    weights: Tensor | None = None

    @property
    def failed(self) -> Tensor:
        """Sequences whose particles all died, bool ``(B,)``."""
        return ~self.log_likelihood.isfinite().all(0)


class Local(Protocol):
    """p(z_t | z_{1:t-1}) p(x_t | z_t) as one step of the sweep meets it, and how to draw from it.

    ``law`` is whatever :meth:`law` returns for the rows of a step.
    """

    #: ``()`` for discrete latents, ``(D,)`` for vectors
    event_shape: torch.Size
    dtype: torch.dtype
    #: whether α and γ are known in closed form: then all weights are equal
    exact: bool

    def law(self, predicted: Any, num_rows: int) -> Any:
        """Arrange what the transition's stepper returned: leading dimensions ``(B, num_rows)``."""

    def look_ahead(self, t: int, law: Any) -> Any:
        """α ``(B, P)`` over exp(shift), float64; the shift ``(B,)``; and the proposal γ.

        If not exact, it is a generator that returns these, and yields what the sweep does.
        """

    def draw(self, t: int, proposal: Any, rows: Tensor) -> Tensor:
        """Draw z_t from γ of the given rows ``(B P,)``: ``(B, P, ...)``."""

    def log_weight(
        self, t: int, law: Any, proposal: Any, rows: Tensor, z: Tensor, log_emission: Tensor
    ) -> Tensor:
        """log w_t ``(B, P)`` of draws whose ancestors are the given rows; asked if not exact."""

    def log_prior(self, law: Any, z: Tensor) -> Tensor:
        """log p(z_t | z_{1:t-1}) of one latent per sequence ``(B, ...)``: ``(B, num_rows)``."""

    def scaled(self, log_prior: Tensor) -> Tensor:
        """log p(z_t | z_{1:t-1}) ``(..., B, rows)`` to the power that the user asked for."""


#: yields (t, z), to be sent log p(x_t | z_t = z); returns the sweep
Steps = Generator[tuple[int, Tensor], Tensor, Sweep]


def finish(steps: Steps) -> Sweep:
    """Run a sweep that asks for no log-emission."""
    try:
        next(steps)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a sweep that knows its emission asked for it")


@torch.no_grad()
def sweep_steps(
    transition: Transition,
    local: Local,
    shape: tuple[int, int, int],
    reference: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
    resampling: str = "systematic",
    ancestor_sampling: int = 0,
    proposal_lag: int = PROPOSAL_LAG,
    forced_move: bool = True,
    device: torch.device,
) -> Steps:
    """One sweep of conditional SMC, batched over sequences, as a generator.

    It yields (t, z) where it has to know log p(x_t | z_t = z), ``(B, P)``, and returns a
    :class:`Sweep`. See :func:`~pyro_ssl.smc.conditional_smc` for the parameters.

    :param shape: T, B, P.
    """
    T, B, P = shape
    resample, event = RESAMPLING[resampling], local.event_shape
    step = transition.stepper(None if inputs is None else inputs.repeat_interleave(P, 1))
    state = transition.initial_state((B * P,))
    active = None
    if lengths is not None:
        active = torch.arange(T, device=device)[:, None, None] < lengths[:, None]  # (T, B, 1)
    redraw_at = _redraw_steps(T, 0 if reference is None or P < 2 else ancestor_sampling)
    if redraw_at and reference is not None:
        redraw = _AncestorSampler(
            transition, local, reference, active, inputs, max(proposal_lag, 1)
        )

    first_rows = torch.arange(0, B * P, max(P, 1), device=device).unsqueeze(-1)  # of each slot 0
    slots = torch.arange(P, device=device).expand(B, P)
    u_ancestor = torch.rand(T, B, P, device=device, dtype=torch.float64)
    z_history = torch.empty((T, B, P, *event), device=device, dtype=local.dtype)
    ancestor_history = torch.empty(T, B, P, device=device, dtype=torch.long)
    log_likelihood = torch.empty(T, B, device=device, dtype=torch.float64)

    z_prev, weights = None, None  # weights w_{t-1}, of mean 1; None: all equal
    for t in range(T):
        predicted, state = step(z_prev, state, t)
        law = local.law(predicted, P)
        ahead = local.look_ahead(t, law)
        alpha, shift, proposal = ahead if local.exact else (yield from ahead)
        if weights is not None:
            alpha = alpha * weights
        log_likelihood[t] = alpha.mean(-1).log_().add_(shift)

        first: Tensor | int | None = None  # the reference's ancestor
        if reference is not None:
            first = redraw(t, state, law, weights) if t in redraw_at else 0
        ancestors = resample(alpha, first, u_ancestor[t])
        if active is not None:
            ancestors = torch.where(active[t], ancestors, slots)
        rows = (first_rows + ancestors).view(-1)
        z = local.draw(t, proposal, rows)
        if reference is not None:
            z[:, 0] = reference[t]
        if not local.exact:
            log_w = local.log_weight(t, law, proposal, rows, z, (yield t, z)).double()
            top = log_w.amax(-1, keepdim=True).clamp_(min=torch.finfo(log_w.dtype).min)
            now = (log_w - top).exp_()
            mean = now.mean(-1, keepdim=True)
            log_likelihood[t] += (mean.log() + top).squeeze(-1)
            now = now / mean
            if active is not None:  # a sequence that has ended keeps its last weights
                now = torch.where(active[t], now, 1.0 if weights is None else weights)
            weights = now
        state = map_state(partial(torch.index_select, dim=0, index=rows), state)
        z_history[t], ancestor_history[t], z_prev = z, ancestors, z.view(B * P, *event)

    move = forced_move and reference is not None
    path = _trace_back(z_history, ancestor_history, weights, move)
    if active is not None:
        past = ~active.squeeze(-1)  # (T, B)
        path.masked_fill_(past.view(T, B, *(1,) * len(event)), 0)
        log_likelihood.masked_fill_(past, 0.0)
    return Sweep(path, z_history, ancestor_history, log_likelihood, state, weights)


def _redraw_steps(T: int, every: int) -> range:
    """Steps at which the reference's ancestor is redrawn; at t=0 there is none to redraw."""
    if every < 1:
        return range(0)
    phase = int(torch.randint(every, (), device="cpu"))  # the schedule is the host's
    return range(phase if phase else every, T, every)


class _AncestorSampler:
    """Redraws the reference's ancestor at a step, given the P prefixes that stand before it."""

    def __init__(
        self,
        transition: Transition,
        local: Local,
        reference: Tensor,
        active: Tensor | None,
        inputs: Tensor | None,
        lag: int,
    ) -> None:
        self.transition, self.local, self.lag = transition, local, lag
        self.reference, self.active, self.inputs = reference, active, inputs
        T, B = reference.shape[:2]
        #: log p(ref_s | its own prefix), (T, B, 1), of the steps that a next redraw may ask for
        self.own = self._replay(0, T, None, transition.initial_state((B,)), 1)

    def __call__(self, t: int, state: Any, law: Any, weights: Tensor | None) -> Tensor:
        """Return the new ancestor of the reference's step t, ``(B,)``.

        :param state: rows ``(B P, ...)``, having read z_{t-1}.
        :param law: p(z_t | z^p_{1:t-1}) of the P prefixes.
        :param weights: w_{t-1}, ``(B, P)``.
        """
        T, B = self.reference.shape[:2]
        near = self.local.log_prior(law, self.reference[t]).double()  # (B, P)
        if self.active is not None:
            near = torch.where(self.active[t], near, 0.0)
        P, device = near.shape[1], near.device
        middle = min(t + self.lag, T)
        if middle > t + 1:
            near = near + self._replay(t + 1, middle, self.reference[t], state, P).sum(0)
        u = torch.rand(2, B, 1, device=device, dtype=torch.float64)
        prior = (near - near.amax(-1, keepdim=True)).exp_()
        if weights is not None:
            prior = prior * weights
        proposed = invert_cdf(monotone_cumsum(prior), u[0])  # (B, 1)
        if middle == T:
            return proposed.squeeze(-1)
        rows = torch.arange(0, B * P, P, device=device) + proposed.squeeze(-1)
        state = map_state(partial(torch.index_select, dim=0, index=rows), state)
        far = self._replay(t + 1, T, self.reference[t], state, 1)[middle - t - 1 :]
        own = self.own[middle:]
        accepted = u[1].log() < far.sum(0) - own.sum(0)
        self.own[middle:] = torch.where(accepted, far, own)
        return torch.where(accepted, proposed, 0).squeeze(-1)

    def _replay(
        self, start: int, stop: int, z_prev: Tensor | None, state: Any, num_rows: int
    ) -> Tensor:
        """log p(ref_s | ...) for s in start..stop-1 of some prefixes each, ``(S, B, rows)``."""

        def each(value: Tensor, dim: int) -> Tensor:
            return value if num_rows == 1 else value.repeat_interleave(num_rows, dim)

        log_p = self.transition.replay(
            each(self.reference[start:stop], 1).transpose(0, 1),
            None if z_prev is None else each(z_prev, 0),
            state,
            None if self.inputs is None else each(self.inputs[start:stop], 1).transpose(0, 1),
        ).T
        log_p = self.local.scaled(log_p.reshape(stop - start, -1, num_rows).double())
        if self.active is None:
            return log_p
        return torch.where(self.active[start:stop], log_p, 0.0)


def _trace_back(z: Tensor, ancestors: Tensor, weights: Tensor | None, move: bool) -> Tensor:
    """Path of a final slot, ``(T, B, ...)``; moved away from the reference in slot 0 if asked."""
    T, B, P = ancestors.shape
    slot = _final_slot(weights, (B, P), move and P > 1, z.device)
    sequences = torch.arange(B, device=z.device)
    path = torch.empty_like(z[:, :, 0])
    for t in reversed(range(T)):
        path[t] = z[t, sequences, slot]
        slot = ancestors[t, sequences, slot]
    return path


def _final_slot(
    weights: Tensor | None, shape: tuple[int, int], move: bool, device: torch.device
) -> Tensor:
    """Draw the final slot by its weight, or move from slot 0 to another, ``(B,)``."""
    B, P = shape
    if weights is None:
        return torch.randint(1 if move else 0, P, (B,), device=device)
    u = torch.rand(2, B, 1, device=device, dtype=torch.float64)
    if not move:
        return invert_cdf(monotone_cumsum(weights), u[0]).squeeze(-1)
    # Liu 1996: proposed ∝ w among the others, accepted by (Σw - w_0) / (Σw - w_slot)
    others = weights[:, 1:]
    slot = 1 + invert_cdf(monotone_cumsum(others), u[0])
    total = weights.sum(-1, keepdim=True)
    left, right = others.sum(-1, keepdim=True), total - weights.gather(-1, slot)
    possible = left > 0
    return torch.where(possible & (u[1] * right < left), slot, 0).squeeze(-1)
