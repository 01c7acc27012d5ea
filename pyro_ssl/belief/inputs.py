"""What a network's cell is given to read: vectors, one-hot symbols, or a path's latents.

Read ``gates.py`` first, whose gates read them.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells import RecurrentCell
from ..transitions.base import like_of
from ..transitions.recurrent_base import RecurrentBase

__all__ = ["as_vectors", "what_the_cell_reads"]


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


def as_vectors(inputs: Tensor, source: nn.LSTM | nn.LSTMCell | RecurrentCell) -> Tensor:
    """Inputs ``(T, B, I)``, in the source's dtype; symbols become one-hot vectors."""
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
    return inputs.to(dtype)
