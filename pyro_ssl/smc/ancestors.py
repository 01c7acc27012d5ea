"""The reference path of conditional SMC, and its own ancestors.

Ancestor sampling (Lindsten, Jordan & Schön 2014): at chosen steps the reference's ancestor a_0 is
redrawn from its conditional distribution,

    P(a_0 = p | all else) ∝ w_{t-1}^p p(ref_{t:T} | z^p_{1:t-1});

the emissions cancel. This would score T - t steps for P prefixes. Instead the next L steps propose
∝ w_{t-1}^p p(ref_{t:t+L} | z^p_{1:t-1}), and the steps after decide by a Metropolis-Hastings ratio,
in which the first L cancel: of two prefixes that are scored to the end, the reference's own is
already known (``future.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .future import Future
from .particles import SweepArguments
from .proposal import Proposal
from .randomness import REDRAWS, Randomness
from .resampling import invert_cdf, monotone_cumsum

__all__ = ["PROPOSAL_LAG", "ReferencePath", "schedule"]

#: ``step(z_prev, state, t) -> (predicted, state)``; see :meth:`Transition.stepper`
Step = Callable[[Tensor | None, Any, int], tuple[Any, Any]]

#: Steps of the reference that propose its new ancestor. Fewer cost less and are refused more often.
PROPOSAL_LAG = 4


class ReferencePath:
    """The path that slot 0 holds.

    :param SweepArguments given: of the sweep, which has a reference.
    :param step: the transition's stepper over the sweep's rows.
    :param Proposal proposal: what the sweep draws by.
    """

    def __init__(self, given: SweepArguments, step: Step, proposal: Proposal) -> None:
        assert given.reference is not None
        path, active = given.reference, given.active
        self.step, self.proposal = step, proposal
        self.path, self.steps = path, path.unbind()
        self.active, self.lag, self.redraw_at = active, given.lag, given.redraw_at
        self.future = Future(given.transition, path, proposal, active, given.inputs)
        if self.redraw_at:
            self.u = given.randomness.uniform(REDRAWS, len(path), 2, torch.float64)

    def ancestor(self, t: int, state: Any, prior: Any, weights: Tensor | None) -> Tensor | int:
        """Return the ancestor of the reference's step t: 0, or redrawn, ``(B,)``.

        :param state: rows ``(B P, ...)``, having read z_{t-1}.
        :param prior: p(z_t | z^p_{1:t-1}) of the P prefixes.
        :param weights: w_{t-1}, ``(B, P)``.
        """
        if t not in self.redraw_at:
            return 0
        near, state = self._near(t, state, prior)
        (B, P), T, middle = near.shape, len(self.path), min(t + self.lag, len(self.path))
        u = self.u[t].T.unsqueeze(-1)
        weight = (near - near.amax(-1, keepdim=True)).exp_()
        if weights is not None:
            weight = weight * weights
        proposed = invert_cdf(monotone_cumsum(weight), u[0])  # (B, 1)
        if middle == T:
            return proposed.squeeze(-1)
        first_rows = torch.arange(0, B * P, P, device=near.device)
        rows = first_rows + proposed.squeeze(-1)
        scores = self.future.proposed(middle, state, first_rows, rows)
        if scores is None:
            return proposed.squeeze(-1)
        far, own = scores
        accepted = u[1].log() < far.sum(0) - own.sum(0)
        self.future.accept(middle, accepted, far)
        return torch.where(accepted, proposed, 0).squeeze(-1)

    def _near(self, t: int, state: Any, prior: Any) -> tuple[Tensor, Any]:
        """log p(ref_{t:t+L} | z^p_{1:t-1}), ``(B, P)``, and the rows' state after these steps."""
        near = self._log_prior(t, prior)
        P = near.shape[1]
        for s in range(t + 1, min(t + self.lag, len(self.path))):
            z_prev = self.steps[s - 1].repeat_interleave(P, 0)
            predicted, state = self.step(z_prev, state, s)
            near = near + self._log_prior(s, self.proposal.prior(predicted))
        return near, state

    def _log_prior(self, s: int, prior: Any) -> Tensor:
        log_p = self.proposal.log_prior(prior, self.steps[s]).double()
        return log_p if self.active is None else torch.where(self.active[s], log_p, 0.0)


def schedule(T: int, every: int, randomness: Randomness) -> range:
    """Steps at which the reference's ancestor is redrawn; at t=0 there is none to redraw."""
    if every < 1:
        return range(0)
    phase = randomness.phase(every)
    return range(phase if phase else every, T, every)
