r"""A categorical head over a recurrent cell that reads the latents.

.. math::
    s_t = \mathrm{cell}(s_{t-1}, [\mathrm{onehot}(z_{t-1}); u_t]), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{Cat}(\mathrm{softmax}(W h_t + b)).

With an LSTM it is Zheng et al. 2017 (arXiv 1711.11179), section 3 ("topical SSL", Example 2). With
z one-hot the input product is a row of a ``(K+1, G)`` table; row K is the start symbol.

Next files to read: ``recurrent_base.py``, what it shares with the Gaussian head; ``lstm.py``, the
ready-made ones.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cells import RecurrentCell
from .base import DiscreteTransition, Stepper
from .recurrent_base import RecurrentBase

__all__ = ["RecurrentTransition"]

#: Where K exceeds this times H, stepping with look-ups is faster than a fused call on one-hots.
LONG_ONE_HOT = 8


class RecurrentTransition(RecurrentBase, DiscreteTransition):
    """p(z_t | z_{1:t-1}) = Cat(softmax(W h_t + b)) with h_t from a cell over z_{1:t-1}.

    :param int num_states: K, the number of latent states (topics).
    :param RecurrentCell cell: reads K+1 numbers, the one-hot z_{t-1} or start symbol, and after
        them the exogenous inputs, if it has room for more.
    :param float dropout: in ``train()`` mode, probability of dropping a unit of h_t before the
        output layer, on teacher-forced paths only: learning sees it, the samplers never do.
    :raises ValueError: if the cell's ``input_size`` is less than K+1.

    Example::

        >>> from pyro_ssl.cells import LSTMCell
        >>> transition = RecurrentTransition(3, LSTMCell(input_size=3 + 1, hidden_size=8))
        >>> transition.log_prob(torch.tensor([[0, 2, 1, 1]])).shape
        torch.Size([1, 4])
    """

    def __init__(self, num_states: int, cell: RecurrentCell, *, dropout: float = 0.0) -> None:
        super().__init__(num_states)
        K = self.start_value = self.num_states
        self._build(cell, K + 1, "one for each state and the start symbol", K, dropout)

    def _encode(self, previous: Tensor, at_start: bool, state: Any) -> list[Tensor]:
        return [F.one_hot(previous, self.encoding_size).to(self.head.weight.dtype)]

    def _score(
        self, out: Tensor, z: Tensor, previous: Tensor, at_start: bool, inputs: Tensor | None
    ) -> Tensor:
        return torch.log_softmax(out, -1).gather(-1, z.unsqueeze(-1)).squeeze(-1)

    def _look_up(self, z_prev: Tensor | None, inputs: Tensor | None) -> Tensor:
        """The cell's projection of one-hots and inputs, ``(..., G)``, by look-up of rows."""
        encoding, exogenous, bias = self._input_map()
        projected = (encoding.T + bias)[self.start_value if z_prev is None else z_prev]
        return projected if inputs is None else projected + F.linear(inputs, exogenous)

    def step_logits(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step, differentiable and over any leading dimensions; see the base class."""
        state = self.cell.advance(self._look_up(z_prev, inputs), state)
        return self.head(state.h), state

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced logits by one call of the cell over the sequence; see the base class."""
        return self.head(self._hidden(z, inputs))

    def _replay_cell(
        self, previous: Tensor, at_start: bool, state: Any, inputs: Tensor | None
    ) -> Tensor:
        if self.cell.fused and self.num_states <= LONG_ONE_HOT * self.hidden_size:
            return super()._replay_cell(previous, at_start, state, inputs)
        return self.cell.replay_projected(self._look_up(previous, inputs), state)

    @torch.no_grad()
    def stepper(self, inputs: Tensor | None = None) -> Stepper:
        """Step function with the weights arranged once per sweep; see the base class."""
        encoding, bias, exogenous, advance, head = self._arranged(inputs)
        table = encoding.add_(bias)
        buffer = table.new_empty(0)  # (N, G), reused: allocating costs more than the look-up

        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Tensor, Any]:
            if z_prev is None:
                rows, device = state.h.shape[:1], state.h.device
                z_prev = torch.full(rows, self.start_value, device=device, dtype=torch.long)
            projected = torch.index_select(table, 0, z_prev, out=buffer)
            if exogenous is not None:
                projected = projected.add_(exogenous[t])
            state = advance(projected, state)
            return head(state.h), state

        return step
