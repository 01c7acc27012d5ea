"""What a network's cell is given to read: vectors, one-hot symbols, or a path's latents.

Read ``gates.py`` first, whose gates read them.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_finite, check_kind, check_tensor
from ..cells import IMVFullLSTM, IMVTensorLSTM, RecurrentCell
from ..transitions.base import like_of
from ..transitions.recurrent_base import RecurrentBase

__all__ = ["as_vectors", "check_state", "what_the_cell_reads"]


class _Recorder(RecurrentCell):
    """A cell that keeps what it was given to read."""

    def __init__(self, cell: RecurrentCell) -> None:
        super().__init__(cell.input_size, cell.hidden_size)
        self.given: Tensor | None = None

    def sequence(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        self.given = x
        return x.new_zeros(*x.shape[:2], self.hidden_size), state


def what_the_cell_reads(transition: RecurrentBase, z: Tensor, exogenous: Tensor | None) -> Tensor:
    """The cell's inputs over paths, as the head itself makes them: ``(T, B, I)``."""
    check_kind("read_gates", "inputs", z, Tensor, "torch.as_tensor(inputs)")
    num_event_dims = len(transition.event_shape)
    if z.dim() != 2 + num_event_dims or z.shape[2:] != transition.event_shape or not z.numel():
        expected = ", ".join(("B", "T", *map(str, transition.event_shape)))
        raise ValueError(
            f"read_gates: found paths of shape {tuple(z.shape)}, expected ({expected}), as the "
            "transition's log_prob takes them; write z.T for (T, B), z[None] for one path."
        )
    if (exogenous is not None) != bool(transition.input_size):
        raise ValueError(
            f"read_gates: the transition reads input_size={transition.input_size} exogenous "
            f"inputs, but {'some' if exogenous is not None else 'none'} were given; expected "
            "exogenous=u, (B, T, input_size), if and only if it reads any."
        )
    twin = copy.copy(transition)  # it shares all tensors; its modules can be replaced
    twin._modules = dict(transition._modules)
    recorder = _Recorder(transition.cell)
    twin.cell = recorder
    twin.log_prob(z, exogenous)
    assert recorder.given is not None
    return recorder.given


def check_state(source: Any, state: Any, x: Tensor) -> None:
    """Check the state before the first of inputs ``(T, B, I)``, as the source itself takes it.

    :raises TypeError: if it is of another kind.
    :raises ValueError: if its tensors have other shapes.
    """
    B, H = x.shape[1], source.hidden_size
    parts = state if isinstance(state, tuple | list) else ()
    rows: tuple[int, ...] = (B, H)
    if isinstance(source, nn.LSTM):
        rows = (source.num_layers, B, H)
    elif isinstance(source, IMVFullLSTM | IMVTensorLSTM):
        rows = (B, source.num_variables, source.units)
    elif isinstance(source, RecurrentCell):
        parts = state if isinstance(state, type(source.initial_state((1,)))) else ()
    num_parts = 1 if isinstance(source, RecurrentCell) and len(parts) == 1 else 2
    if len(parts) != num_parts:
        how = "source.initial_state((B,))" if hasattr(source, "initial_state") else "(h, c)"
        raise TypeError(
            f"read_gates: state is a {type(state).__name__}, expected one as the "
            f"{type(source).__name__} takes it; write state={how}, or leave it out for zeros."
        )
    for part in parts:
        check_tensor("read_gates", "a tensor of state", part, rows, like=x, write="one row each")


def as_vectors(inputs: Tensor, source: nn.LSTM | nn.LSTMCell | RecurrentCell) -> Tensor:
    """Inputs ``(T, B, I)``, in the source's dtype; symbols become one-hot vectors."""
    check_kind("read_gates", "inputs", inputs, Tensor, "torch.as_tensor(inputs)")
    size, dtype = source.input_size, like_of(source).dtype
    if inputs.dim() == 2 and inputs.dtype == torch.long and inputs.numel():
        low, high = (int(value) for value in torch.aminmax(inputs))
        if low < 0 or high >= size:
            raise ValueError(
                f"read_gates: found symbols from {low} to {high}, expected 0 to {size - 1}, for "
                f"the {type(source).__name__} reads {size} numbers; if it reads embeddings, write "
                "embedding(symbols)."
            )
        return F.one_hot(inputs, size).to(dtype)
    if inputs.dim() != 3 or inputs.shape[-1] != size or not inputs.numel():
        raise ValueError(
            f"read_gates: found {inputs.dtype} inputs of shape {tuple(inputs.shape)}, expected "
            f"(T, B, {size}), or int64 symbols (T, B), with a step and a sequence at least; write "
            "x[:, None] for one sequence."
        )
    check_finite("read_gates", "inputs", inputs)
    return inputs.to(dtype)
