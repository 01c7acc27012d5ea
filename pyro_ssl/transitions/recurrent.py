r"""A categorical head over a recurrent cell that reads the latents.

.. math::
    s_t = \mathrm{cell}(s_{t-1}, [\mathrm{onehot}(z_{t-1}); u_t]), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{Cat}(\mathrm{softmax}(W h_t + b)).

With an LSTM it is Zheng et al. 2017 (arXiv 1711.11179), section 3 ("topical SSL", Example 2). With
z one-hot the input product is a row of a ``(K+1, G)`` table; row K is the start symbol.

Next file to read: ``distribution.py``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells import LSTMCell, MultiplicativeLSTMCell, RecurrentCell
from ..cells.linear_add import linear_add
from ..errors import positive_size
from .base import DiscreteTransition, Stepper
from .recurrent_base import RecurrentBase

__all__ = ["LSTMTransition", "MultiplicativeLSTMTransition", "RecurrentTransition"]

#: From this K over H on, stepping from look-ups beats a fused call that reads one-hots.
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
        of = "one for each state and the start symbol"
        self._read_with(cell, self.num_states + 1, dropout, of)
        self.head = nn.Linear(cell.hidden_size, self.num_states)

    def _input_map(self) -> tuple[Tensor, Tensor]:
        """Projection of each one-hot z_{t-1}, ``(K+1, G)``, and the weight of what is exogenous."""
        weight, bias = self.cell.input_map()
        return weight[:, : self.num_states + 1].T + bias, weight[:, self.num_states + 1 :]

    def step_logits(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step, differentiable and over any leading dimensions; see the base class."""
        table, exogenous = self._input_map()
        projected = table[self.num_states if z_prev is None else z_prev]
        if inputs is not None:
            projected = projected + F.linear(inputs, exogenous)
        state = self.cell.advance(projected, state)
        return self.head(state.h), state

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced logits by one call of the cell over the sequence; see the base class."""
        batch_shape, T = z.shape[:-1], z.shape[-1]
        # z_{0:T-1} with the start symbol K in front, time first: (T, N)
        previous = F.pad(
            z.reshape(math.prod(batch_shape), T).T, (0, 0, 1, 0), value=self.num_states
        )
        x = F.one_hot(previous[:T], self.num_states + 1).to(self.head.weight.dtype)
        return self.head(self._hidden(x, inputs, batch_shape))

    @torch.no_grad()
    def replay(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> Tensor:
        """By one call of the cell over the rest of the paths; see the base class."""
        first = torch.full_like(z[0], self.num_states) if z_prev is None else z_prev
        previous = torch.cat([first.unsqueeze(0), z[:-1]])
        if self.cell.fused and self.num_states <= LONG_ONE_HOT * self.hidden_size:
            x = F.one_hot(previous, self.num_states + 1).to(self.head.weight.dtype)
            h = self.cell.replay(x if inputs is None else torch.cat([x, inputs], -1), state)
        else:
            table, exogenous = self._input_map()
            projected = table[previous]
            if inputs is not None:
                projected = projected + F.linear(inputs, exogenous)
            h = self.cell.replay_projected(projected, state)
        log_p = torch.log_softmax(self.head(h), -1)
        return log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def stepper(self, inputs: Tensor | None = None) -> Stepper:
        """Step function with the weights arranged once per sweep; see the base class."""
        scale, advance, hidden_scale = self.cell.stepper()
        table, weight = self._input_map()
        table = (table * scale).contiguous()
        head_weight, head_bias = hidden_scale * self.head.weight, self.head.bias
        exogenous = None if inputs is None else F.linear(inputs, weight * scale[:, None])
        buffer = table.new_empty(0)  # (N, G), reused: fresh pages cost more than the look-up

        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Tensor, Any]:
            if z_prev is None:
                rows = state.h.shape[:1]
                z_prev = torch.full(rows, self.num_states, device=state.h.device, dtype=torch.long)
            projected = torch.index_select(table, 0, z_prev, out=buffer)
            if exogenous is not None:
                projected = projected.add_(exogenous[t])
            state = advance(projected, state)
            return linear_add(state.h, head_weight, head_bias), state

        return step


class LSTMTransition(RecurrentTransition):
    """p(z_t | z_{1:t-1}) = Cat(softmax(W h_t + b)) with h_t from an LSTM over z_{1:t-1}.

    :param int num_states: K, the number of latent states (topics).
    :param int hidden_size: H, the number of LSTM units.
    :param int input_size: exogenous inputs per step, joined to the one-hot z_{t-1}.
    :param float dropout: see :class:`RecurrentTransition`.

    Example::

        >>> transition = LSTMTransition(num_states=3, hidden_size=8)
        >>> z = torch.tensor([[0, 2, 1, 1], [1, 1, 0, 2]])     # (B, T)
        >>> transition.log_prob(z).shape
        torch.Size([2, 4])
    """

    def __init__(
        self, num_states: int, hidden_size: int, *, input_size: int = 0, dropout: float = 0.0
    ) -> None:
        num_states = positive_size("num_states", num_states)
        cell = LSTMCell(num_states + 1 + input_size, hidden_size)
        super().__init__(num_states, cell, dropout=dropout)


class MultiplicativeLSTMTransition(RecurrentTransition):
    """As :class:`LSTMTransition`, with a multiplicative LSTM (Krause et al. 2016).

    The one-hot z_{t-1} picks a recurrent matrix of its state's own; at the start they are nearly
    the same, for W_mx starts near 1 in the columns of the states: near an LSTM.

    :param int num_states: K, the number of latent states (topics).
    :param int hidden_size: H, the number of units.
    :param int input_size: exogenous inputs per step, joined to the one-hot z_{t-1}.
    :param float dropout: see :class:`RecurrentTransition`.
    :param cell: ``squash``, ``weight_norm``, ``variational_dropout`` and ``forget_bias`` of
        :class:`MultiplicativeLSTMCell`.

    Example::

        >>> transition = MultiplicativeLSTMTransition(3, hidden_size=8, weight_norm=True)
        >>> z = torch.tensor([[0, 2, 1, 1], [1, 1, 0, 2]])     # (B, T)
        >>> transition.log_prob(z).shape
        torch.Size([2, 4])
    """

    cell: MultiplicativeLSTMCell

    def __init__(
        self,
        num_states: int,
        hidden_size: int,
        *,
        input_size: int = 0,
        dropout: float = 0.0,
        **cell: Any,
    ) -> None:
        num_states = positive_size("num_states", num_states)
        multiplicative = MultiplicativeLSTMCell(num_states + 1 + input_size, hidden_size, **cell)
        super().__init__(num_states, multiplicative, dropout=dropout)
        # A one-hot input leaves of W_mx one number of each row: orthogonal columns would make m_t
        # and all that it carries 1/sqrt(H) times too small.
        with torch.no_grad():
            self.cell.weight_ih[:hidden_size, : num_states + 1] += 1.0
        self.cell.reset_magnitudes()
