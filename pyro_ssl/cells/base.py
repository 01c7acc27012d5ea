r"""Recurrent cells: the state machine s_t = cell(s_{t-1}, x_t) without its head.

A head turns h_t into p(z_t | z_{1:t-1}) and never looks into the cell; a cell reads vectors x_t and
does not know what they stand for. The input map is linear and open to both, so that a head may
project its inputs once (a table of one-hots, all steps of a path) and step from the projections.

Next files to read: ``lstm.py`` and ``multiplicative.py``, two cells; ``transitions/recurrent.py``,
a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import whole

__all__ = ["CellStepper", "LSTMState", "RecurrentCell"]


class LSTMState(NamedTuple):
    """State of an LSTM cell, and of the multiplicative one: ``h`` and ``c``, each ``(..., H)``."""

    h: Tensor
    c: Tensor


class CellStepper(NamedTuple):
    """A cell's step for samplers: no gradient, weights arranged once per sweep."""

    #: ``(G,)``; the head multiplies its projected inputs by it, once per sweep
    projection_scale: Tensor
    #: ``advance(projected, state) -> state`` over N rows: projected inputs ``(N, G)``, which it may
    #: overwrite, and a state of ``(N, ...)`` tensors, which it leaves as they are
    advance: Callable[[Tensor, Any], Any]


class RecurrentCell(nn.Module):
    """s_t = cell(s_{t-1}, x_t) with a linear input map; a state is a NamedTuple that has ``h``.

    :param int input_size: I, size of x_t.
    :param int hidden_size: H, size of h_t.

    Write :meth:`initial_state`, :meth:`input_map` and :meth:`advance`. Override :meth:`sequence`
    where one fused call beats the loop, and :meth:`stepper` where work can be done once per sweep.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = whole(type(self).__name__, "input_size", input_size, 1)
        self.hidden_size = whole(type(self).__name__, "hidden_size", hidden_size, 1)

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> Any:
        """Return the state before the first input, tensors ``batch_shape + (...)``; often zeros."""
        raise NotImplementedError

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return the weight ``(G, I)`` and the bias ``(G,)`` that project an input."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """Project inputs ``(..., I)`` to the ``(..., G)`` that a step adds."""
        return F.linear(x, *self.input_map())

    def advance(self, projected: Tensor, state: Any) -> Any:
        """One step, with gradient.

        :param Tensor projected: x_t as :meth:`project` returns it, ``(..., G)``.
        :param state: s_{t-1}; its leading dimensions broadcast against those of ``projected``.
        :returns: s_t.
        """
        raise NotImplementedError

    def sequence(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """All steps of given inputs, with gradient.

        :param Tensor x: inputs, time first, ``(T, N, I)``.
        :param state: the state before the first, of ``(N, ...)`` tensors; by default
            :meth:`initial_state`.
        :returns: h of every step, ``(T, N, H)``, and the state after the last.
        """
        state = self.initial_state(x.shape[1:2]) if state is None else state
        out = []
        for projected in self.project(x):
            state = self.advance(projected, state)
            out.append(state.h)
        if not out:
            return state.h.new_zeros((0, *state.h.shape)), state
        return torch.stack(out), state

    #: whether :meth:`replay` is one fused call, which beats :meth:`replay_projected`
    fused = False

    def replay(self, x: Tensor, state: Any) -> Tensor:
        """h of every step, ``(T, N, H)``, for the samplers: without gradient or dropout."""
        return self.replay_projected(self.project(x), state)

    @torch.no_grad()
    def replay_projected(self, projected: Tensor, state: Any) -> Tensor:
        """The same for inputs that are projected already, ``(T, N, G)``; they are overwritten."""
        scale, advance = self.stepper()
        out = []
        for step in projected.mul_(scale):
            state = advance(step, state)
            out.append(state.h)
        return torch.stack(out)

    def stepper(self) -> CellStepper:
        """Return the step that the samplers take; see :class:`CellStepper`."""
        _, bias = self.input_map()
        return CellStepper(torch.ones_like(bias), torch.no_grad()(self.advance))
