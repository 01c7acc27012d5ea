"""The reference path of conditional SMC, and its own ancestors.

Ancestor sampling (Lindsten, Jordan & Schön 2014): at chosen steps the reference's ancestor a_0 is
redrawn from its conditional distribution,

    P(a_0 = p | all else) ∝ w_{t-1}^p p(ref_{t:T} | z^p_{1:t-1});

the emissions cancel. This would score T - t steps for P prefixes. Instead the next L steps propose
∝ w_{t-1}^p p(ref_{t:t+L} | z^p_{1:t-1}), and the steps after decide by a Metropolis-Hastings ratio,
in which the first L cancel: two prefixes are scored to the end, of which the reference's own is
already known. It was scored when the reference was read, or, where an earlier redraw of this sweep
gave the reference another past, by that redraw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..transitions import map_state
from .particles import SweepArguments
from .proposal import Proposal
from .randomness import REDRAWS, Randomness
from .resampling import invert_cdf, monotone_cumsum

__all__ = ["PROPOSAL_LAG", "ReferencePath", "schedule"]

#: Steps of the reference that propose its new ancestor. Fewer cost less and are refused more often.
PROPOSAL_LAG = 4


class ReferencePath:
    """The path that slot 0 holds.

    :param SweepArguments given: of the sweep, which has a reference.
    :param Proposal proposal: what the sweep draws by.
    """

    def __init__(self, given: SweepArguments, proposal: Proposal) -> None:
        assert given.reference is not None
        self.transition, self.path, self.proposal = given.transition, given.reference, proposal
        self.steps = self.path.unbind()
        self.active, self.inputs, self.lag = given.active, given.inputs, given.lag
        (T, B), self.redraw_at = self.path.shape[:2], given.redraw_at
        if self.redraw_at:
            self.u = given.randomness.uniform(REDRAWS, T, 2, torch.float64)
            #: log p(ref_s | its own prefix), (T, B, 1)
            self.own = self._score(0, T, None, self.transition.initial_state((B,)), 1)

    def ancestor(self, t: int, state: Any, prior: Any, weights: Tensor | None) -> Tensor | int:
        """Return the ancestor of the reference's step t: 0, or redrawn, ``(B,)``.

        :param state: rows ``(B P, ...)``, having read z_{t-1}.
        :param prior: p(z_t | z^p_{1:t-1}) of the P prefixes.
        :param weights: w_{t-1}, ``(B, P)``.
        """
        if t not in self.redraw_at:
            return 0
        T, B = self.path.shape[:2]
        near = self.proposal.log_prior(prior, self.path[t]).double()  # (B, P)
        if self.active is not None:
            near = torch.where(self.active[t], near, 0.0)
        P, middle = near.shape[1], min(t + self.lag, T)
        if middle > t + 1:
            near = near + self._score(t + 1, middle, self.path[t], state, P).sum(0)
        u = self.u[t].T.unsqueeze(-1)
        weight = (near - near.amax(-1, keepdim=True)).exp_()
        if weights is not None:
            weight = weight * weights
        proposed = invert_cdf(monotone_cumsum(weight), u[0])  # (B, 1)
        if middle == T:
            return proposed.squeeze(-1)
        rows = torch.arange(0, B * P, P, device=near.device) + proposed.squeeze(-1)
        state = map_state(lambda value: value.index_select(0, rows), state)
        far = self._score(t + 1, T, self.path[t], state, 1)[middle - t - 1 :]
        own = self.own[middle:]
        accepted = u[1].log() < far.sum(0) - own.sum(0)
        self.own[middle:] = torch.where(accepted, far, own)
        return torch.where(accepted, proposed, 0).squeeze(-1)

    def _score(
        self, start: int, stop: int, z_prev: Tensor | None, state: Any, num_rows: int
    ) -> Tensor:
        """log p(ref_s | ...) for s in start..stop-1 of some prefixes each, ``(S, B, rows)``."""

        def each(value: Tensor) -> Tensor:
            return value if num_rows == 1 else value.repeat_interleave(num_rows, 0)

        log_p = self.transition.replay(
            each(self.path[start:stop].transpose(0, 1)),
            None if z_prev is None else each(z_prev),
            state,
            None if self.inputs is None else each(self.inputs[start:stop].transpose(0, 1)),
        )
        log_p = log_p.T.reshape(stop - start, self.path.shape[1], num_rows).double()
        log_p = self.proposal.scaled(log_p)
        return log_p if self.active is None else torch.where(self.active[start:stop], log_p, 0.0)


def schedule(T: int, every: int, randomness: Randomness) -> range:
    """Steps at which the reference's ancestor is redrawn; at t=0 there is none to redraw."""
    if every < 1:
        return range(0)
    phase = randomness.phase(every)
    return range(phase if phase else every, T, every)
