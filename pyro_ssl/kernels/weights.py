"""What the compiled sweeps take of a transition: its weights, row by row as torch keeps them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..cells import LSTMCell, MultiplicativeLSTMCell, RecurrentCell
from ..transitions import (
    LSTMTransition,
    MultiplicativeLSTMTransition,
    RecurrentTransition,
    Transition,
)

__all__ = ["CellWeights", "weights_of_states"]

#: as ``src/cell.h`` numbers them
KINDS = {"lstm": 0, "cell": 1, "output": 2}


class CellWeights(NamedTuple):
    """A cell, what it reads of each state, and its output layer: float32, contiguous."""

    kind: int
    #: projected input of each state and, last, of the start, ``(K + 1, G)``
    table: Tensor
    #: ``(4H, H)``
    recurrent: Tensor
    #: W_mh of a multiplicative LSTM, ``(H, H)``
    to_m: Tensor | None
    #: of a multiplicative LSTM that squashes its output, ``(H,)``
    bias_h: Tensor | None
    head: Tensor
    head_bias: Tensor
    #: what exogenous inputs add to the projected input, ``(G, input_size)``
    exogenous: Tensor


def weights_of_states(transition: Transition) -> CellWeights | None:
    """Return the weights of a transition over states, or ``None`` if it is none that is compiled.

    A subclass of the user's own may step in its own way, so only the library's classes are.
    """
    ours = (RecurrentTransition, LSTMTransition, MultiplicativeLSTMTransition)
    if type(transition) not in ours or not isinstance(transition, RecurrentTransition):
        return None
    recurrence = _recurrence(transition.cell)
    if recurrence is None or type(transition.head) is not torch.nn.Linear:
        return None
    kind, recurrent, to_m, bias_h = recurrence
    encoding, exogenous, bias = transition._input_map()
    head, head_bias = transition.head.weight, transition.head.bias
    return CellWeights(
        kind,
        _plain(encoding.T + bias),
        _plain(recurrent),
        None if to_m is None else _plain(to_m),
        None if bias_h is None else _plain(bias_h),
        _plain(head),
        _plain(head_bias),
        _plain(exogenous),
    )


def _recurrence(
    cell: RecurrentCell,
) -> tuple[int, Tensor, Tensor | None, Tensor | None] | None:
    """Kind, recurrent weights of the gates, W_mh and b_h."""
    if type(cell) is LSTMCell:
        return KINDS["lstm"], cell._parameter("weight_hh"), None, None
    if type(cell) is MultiplicativeLSTMCell:
        bias_h = cell.bias_h if cell.squash == "output" else None
        return KINDS[cell.squash], cell._weight("weight_hm"), cell._weight("weight_mh"), bias_h
    return None


def _plain(value: Tensor) -> Tensor:
    return value.detach().contiguous()
