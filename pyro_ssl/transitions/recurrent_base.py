"""What every head over a recurrent cell shares: the cell reads [z_{t-1}, start; u_t].

A head says how many numbers stand for z_{t-1} and the start symbol, and what h_t becomes.

Next files to read: ``recurrent.py``, the categorical head; ``recurrent_gaussian.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..cells import RecurrentCell
from .base import Transition

__all__ = ["RecurrentBase"]


class RecurrentBase(Transition):
    """A transition whose state is a cell's; stands before the head's protocol among the bases."""

    cell: RecurrentCell
    dropout: nn.Dropout

    def _read_with(self, cell: RecurrentCell, encoding_size: int, dropout: float, of: str) -> None:
        """Take a cell that reads ``encoding_size`` numbers of the past, then exogenous inputs.

        :param str of: what these numbers are, for the message.
        :raises ValueError: if the cell's ``input_size`` is less.
        """
        self.input_size = cell.input_size - encoding_size
        if self.input_size < 0:
            raise ValueError(
                f"{type(self).__name__}: the cell reads {cell.input_size} numbers, expected at "
                f"least {encoding_size}, {of}; write "
                f"{type(cell).__name__}({encoding_size} + input_size, hidden_size)."
            )
        self.cell = cell
        self.dropout = nn.Dropout(dropout)

    @property
    def hidden_size(self) -> int:
        """H, the number of units of the cell."""
        return self.cell.hidden_size

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> Any:
        """Return the cell's state before the first latent."""
        return self.cell.initial_state(batch_shape)

    def restore(self, carried: Any) -> Any:
        """Return the state in the cell's own units; see the base class."""
        return self.cell.restore(carried)

    def _hidden(self, encoded: Tensor, inputs: Tensor | None, batch_shape: torch.Size) -> Tensor:
        """h_t of every step by one call of the cell, with dropout.

        :param Tensor encoded: z_{t-1} as the cell reads it, time first over all N paths of the
            batch, ``(T, N, encoding_size)``.
        :param Tensor inputs: exogenous inputs, which broadcast to
            ``batch_shape + (T, input_size)``.
        :returns: ``batch_shape + (T, H)``.
        """
        T, N, _ = encoded.shape
        out_shape = batch_shape + (T, self.hidden_size)
        if not encoded.numel():
            return next(self.cell.parameters()).new_zeros(out_shape)
        if inputs is not None:
            inputs = inputs.expand(batch_shape + inputs.shape[-2:]).reshape(N, T, self.input_size)
            encoded = torch.cat([encoded, inputs.transpose(0, 1)], -1)
        h, _ = self.cell.sequence(encoded)  # (T, N, H)
        return self.dropout(h).transpose(0, 1).reshape(out_shape)
