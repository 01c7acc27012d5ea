"""What the rest of the reference says of a prefix: log p(ref_s | prefix) up to the last step.

The reference's own prefix is scored once. It is scored anew only where another takes its place, by
that one's score, so that a redraw has one prefix per sequence to score. Nothing has to be scored
where the other prefix left the cell in the same state, to the last bit: all further terms are those
of the reference's own. A transition that is stepped is asked for its state every few steps, so that
one that forgets (a chain of some order, a duration that was reset) is scored until it has
forgotten. Two states of an LSTM come as near to each other as rounding lets them, and no nearer:
its fused call is made once, to the end.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..transitions import Transition, map_state
from .proposal import Proposal

__all__ = ["Future"]

#: A transition that is stepped is asked for its state every so many steps.
MARKS = 16


class Future:
    """Scores of the reference, of which it keeps those of the reference's own prefix.

    :param Tensor path: the reference, ``(T, B) + event_shape``.
    :param Proposal proposal: what the sweep draws by.
    :param Tensor active: steps within each sequence, bool ``(T, B, 1)``; ``None`` if all are.
    :param Tensor inputs: exogenous inputs, ``(T, B, input_size)``.
    """

    def __init__(
        self,
        transition: Transition,
        path: Tensor,
        proposal: Proposal,
        active: Tensor | None,
        inputs: Tensor | None,
    ) -> None:
        self.transition, self.path, self.proposal = transition, path, proposal
        self.active, self.inputs = active, inputs
        self.all = torch.arange(path.shape[1], device=path.device)
        self.on_host = path.device.type == "cpu"  # where reading a number waits for nothing
        self.own: Tensor | None = None  # (T, B, 1), once it is needed
        #: by step s, the state that the own prefix leaves before it reads ref_{s-1}; and those
        #: that the last proposed ones left, with the sequences that had not forgotten till then
        self.marks: dict[int, Any] = {}
        self.passed: list[tuple[int, Tensor, Any]] = []
        by_steps = type(transition).replay is Transition.replay and self.on_host
        self.stride = MARKS if by_steps else max(len(path), 1)

    def proposed(
        self, start: int, state: Any, own_rows: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """log p(ref_s | prefix), s from ``start`` on: proposed and own, each ``(S, B, 1)``.

        ``None`` if they are the same in all sequences.

        :param state: rows ``(B P, ...)``, before they read ref_{start-1}.
        :param Tensor own_rows: rows of the reference's own prefixes, ``(B,)``.
        :param Tensor rows: those of the proposed ones.
        """
        theirs, which, T = _take(state, rows), self.all, len(self.path)
        if self.on_host:
            left = _differ(_take(state, own_rows), theirs, which)
            if self.active is not None:  # past its length a sequence has no terms
                left = left[self.active[start, left, 0]]
            theirs, which = _take(theirs, left), which[left]
            if not len(which):
                return None
            if self.active is not None:
                T = int(self.active[:, which].sum(0).max())
        own = self._own()[start:]
        far, self.passed = own.clone(), []
        s, z_prev = start, self.path[start - 1]
        while s < T and len(which):
            stop = min(s - s % self.stride + self.stride, T)
            score, theirs = self._score(s, stop, z_prev[which], theirs, which)
            far[s - start : stop - start, which] = score
            if stop in self.marks:
                self.passed.append((stop, which, theirs))
                left = _differ(_take(self.marks[stop], which), theirs, which)
                theirs, which = _take(theirs, left), which[left]
            s, z_prev = stop, self.path[stop - 1]
        return far, own

    def accept(self, start: int, accepted: Tensor, far: Tensor) -> None:
        """Let proposed prefixes take the place of own ones where ``accepted``, bool ``(B, 1)``."""
        own = self._own()[start:]
        own.copy_(torch.where(accepted, far, own))
        for s, which, state in self.passed:
            chosen = accepted[which, 0]
            for mark, value in _pairs(self.marks[s], state):
                mark[which[chosen]] = value[chosen]

    def _own(self) -> Tensor:
        """log p(ref_s | its own prefix), ``(T, B, 1)``: as it was given until one is accepted."""
        if self.own is None:
            T, B = self.path.shape[:2]
            scores, z_prev, state = [], None, self.transition.initial_state((B,))
            for s in range(0, T, self.stride):
                stop = min(s + self.stride, T)
                score, state = self._score(s, stop, z_prev, state, self.all)
                scores.append(score)
                if stop < T:
                    z_prev, self.marks[stop] = self.path[stop - 1], map_state(torch.clone, state)
            self.own = torch.cat(scores)
        return self.own

    def _score(
        self, start: int, stop: int, z_prev: Tensor | None, state: Any, which: Tensor
    ) -> tuple[Tensor, Any]:
        """log p(ref_s | a prefix each) for s in start..stop-1 of N sequences, ``(S, N, 1)``.

        :returns: it, and the state after these steps, if the transition is stepped.
        """
        z = self.path[start:stop, which].transpose(0, 1)
        inputs = None if self.inputs is None else self.inputs[start:stop, which].transpose(0, 1)
        if self.stride < len(self.path):
            log_p, state = self.transition._replay_on(z, z_prev, state, inputs)
        else:
            log_p = self.transition.replay(z, z_prev, state, inputs)
        log_p = self.proposal.scaled(log_p.T.double().unsqueeze(-1), which)
        if self.active is None:
            return log_p, state
        return torch.where(self.active[start:stop, which], log_p, 0.0), state


def _pairs(left: Any, right: Any) -> list[tuple[Tensor, Tensor]]:
    """The tensors of two states, side by side."""
    if isinstance(left, tuple):
        return [pair for parts in zip(left, right, strict=True) for pair in _pairs(*parts)]
    return [(left, right)]


def _take(state: Any, rows: Tensor) -> Any:
    """Some rows of a state."""
    return map_state(partial(torch.index_select, dim=0, index=rows), state)


def _differ(left: Any, right: Any, which: Tensor) -> Tensor:
    """Where two states ``(N, ...)`` of sequences ``which`` differ in any bit: indices."""
    found = torch.zeros_like(which, dtype=torch.bool)
    for a, b in _pairs(left, right):
        found |= (a != b).unsqueeze(1).flatten(1).any(-1)
    return found.nonzero().squeeze(-1)
