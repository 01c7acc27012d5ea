"""What the compiled sweeps take of a transition: its weights, row by row as torch keeps them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..cells import LSTMCell, MultiplicativeLSTMCell, RecurrentCell
from ..transitions import (
    GaussianLSTMTransition,
    GaussianMultiplicativeLSTMTransition,
    LinearGaussianTransition,
    LSTMTransition,
    MultiplicativeLSTMTransition,
    RecurrentGaussianTransition,
    RecurrentTransition,
    Transition,
)

__all__ = ["CellWeights", "VectorsWeights", "weights_of_states", "weights_of_vectors"]

#: as ``src/cell.h`` numbers them
KINDS = {"lstm": 0, "cell": 1, "output": 2}


class CellWeights(NamedTuple):
    """A cell, what it reads of latents, and its output layer: float32, contiguous."""

    kind: int
    #: projected input of each state and of the start, ``(K + 1, G)``; or, over vectors, what each
    #: number adds to it, the bias, and that of the start, ``(D + 2, G)``
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


class VectorsWeights(NamedTuple):
    """Those of a Gaussian head, and what it makes of its output layer."""

    cell: CellWeights
    #: ``()``
    min_scale: Tensor
    #: moments of z_1, ``(2, D)``, where means are steps from z_{t-1}
    initial: Tensor | None
    #: 1 / ``increment_scale``, ``()``, where the cell reads increments
    per_increment: Tensor | None
    #: of the chain that the cell corrects: q, ``(D,)``, and A, ``(D, D)``
    unit: Tensor | None
    matrix: Tensor | None


def weights_of_states(transition: Transition) -> CellWeights | None:
    """Return the weights of a transition over states, or ``None`` if it is none that is compiled.

    A subclass of the user's own may step in its own way, so only the library's classes are.
    """
    ours = (RecurrentTransition, LSTMTransition, MultiplicativeLSTMTransition)
    if type(transition) not in ours or not isinstance(transition, RecurrentTransition):
        return None
    encoding, _, bias = transition._input_map()
    return _cell_weights(transition, encoding.T + bias)


def weights_of_vectors(transition: Transition) -> VectorsWeights | None:
    """Return those of a transition over vectors, or ``None``, as :func:`weights_of_states` does."""
    ours = (
        RecurrentGaussianTransition,
        GaussianLSTMTransition,
        GaussianMultiplicativeLSTMTransition,
    )
    if type(transition) not in ours or not isinstance(transition, RecurrentGaussianTransition):
        return None
    encoding, _, bias = transition._input_map()
    table = torch.cat(
        [encoding[:, :-1].T, bias.unsqueeze(0), (bias + encoding[:, -1]).unsqueeze(0)]
    )
    cell = _cell_weights(transition, table)
    if cell is None:
        return None
    initial, per_increment = None, None
    if transition._steps_from_last:
        initial = _plain(torch.stack([*transition._initial_moments()]))
    if transition.reads == "increments":
        per_increment = _plain(transition.increment_scale.reciprocal())
    around = transition.around
    chain: tuple[Tensor | None, Tensor | None] = (None, None)
    if around is not None:
        if type(around) is not LinearGaussianTransition:
            return None
        chain = _plain(around.scale), _plain(around.matrix)
    return VectorsWeights(cell, _plain(transition.min_scale), initial, per_increment, *chain)


def _cell_weights(
    transition: RecurrentTransition | RecurrentGaussianTransition, table: Tensor
) -> CellWeights | None:
    recurrence = _recurrence(transition.cell)
    if recurrence is None or type(transition.head) is not torch.nn.Linear:
        return None
    kind, recurrent, to_m, bias_h = recurrence
    return CellWeights(
        kind,
        _plain(table),
        _plain(recurrent),
        None if to_m is None else _plain(to_m),
        None if bias_h is None else _plain(bias_h),
        _plain(transition.head.weight),
        _plain(transition.head.bias),
        _plain(transition._input_map()[1]),
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
