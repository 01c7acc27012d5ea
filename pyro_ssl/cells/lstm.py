r"""The LSTM as a cell: PyTorch's own layer, and a step by sigmoids alone for the samplers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import CellStepper, LSTMState, RecurrentCell
from .linear_add import linear_add

__all__ = ["LSTMCell", "start_forget_gate"]


class LSTMCell(RecurrentCell):
    """The LSTM, by one :class:`torch.nn.LSTM` layer: G = 4H, and its initialisation.

    :param int input_size: I.
    :param int hidden_size: H.
    :param float forget_bias: initial bias of the forget gate; by default it is drawn, as PyTorch
        does.

    Example::

        >>> cell = LSTMCell(input_size=5, hidden_size=8)
        >>> h, state = cell.sequence(torch.randn(7, 3, 5))     # (T, N, I)
        >>> h.shape, state.c.shape
        (torch.Size([7, 3, 8]), torch.Size([3, 8]))
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, forget_bias: float | None = None
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.lstm = nn.LSTM(self.input_size, self.hidden_size)
        if forget_bias is not None:
            start_forget_gate(self.lstm, forget_bias)

    def train(self, mode: bool = True) -> LSTMCell:
        """Set the mode of this cell; its layer, which has no dropout, stays in training mode.

        cuDNN takes no gradient in evaluation mode.
        """
        super().train(mode)
        self.lstm.train(True)
        return self

    fused = True

    def _parameter(self, name: str) -> Tensor:
        return getattr(self.lstm, f"{name}_l0")

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> LSTMState:
        """Return h = c = 0, each ``batch_shape + (H,)``."""
        zeros = self._parameter("weight_hh").new_zeros((*batch_shape, self.hidden_size))
        return LSTMState(zeros, zeros)

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return the input weight ``(4H, I)`` and the sum of both biases ``(4H,)``."""
        return self._parameter("weight_ih"), self._parameter("bias_ih") + self._parameter("bias_hh")

    def advance(self, projected: Tensor, state: LSTMState) -> LSTMState:
        """One step over any leading dimensions; see the base class."""
        gates = projected + F.linear(state.h, self._parameter("weight_hh"))
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        return LSTMState(torch.sigmoid(o) * torch.tanh(c), c)

    def sequence(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """All steps in one call of the fused kernel; see the base class."""
        if not len(x):  # the kernel refuses T = 0
            return super().sequence(x, state)
        h, last = self.lstm(x, None if state is None else tuple(s.unsqueeze(0) for s in state))
        return h, LSTMState(*(s.squeeze(0) for s in last))

    @torch.no_grad()
    def replay(self, x: Tensor, state: LSTMState) -> Tensor:
        """By the fused kernel; see the base class.

        On a CPU oneDNN makes a kernel for each shape that it meets, and keeps about a thousand; to
        make one takes as long as tens of steps. So T and N are filled up to one of a few sizes.
        """
        T, N = x.shape[:2]
        steps, rows = _coarse(T, 16) - T, _coarse(N, 4) - N
        if x.dtype == torch.float32 and x.device.type == "cpu" and (steps or rows):
            x = F.pad(x, (0, 0, 0, rows, 0, steps))
            state = LSTMState(*(F.pad(s, (0, 0, 0, rows)) for s in state))
        return self.sequence(x, state)[0][:T, :N]

    @torch.no_grad()
    def stepper(self) -> CellStepper:
        r"""Return the step that the samplers take, by sigmoids alone.

        On CPUs tanh costs ten times as much as sigmoid, hence tanh(x) = 1 - 2\sigma(-2x): with the
        rows of g multiplied by -2 beforehand, one sigmoid serves all four gates.
        """
        weight = self._parameter("weight_hh")
        scale = weight.new_ones(4 * self.hidden_size)
        scale[2 * self.hidden_size : 3 * self.hidden_size] = -2.0
        recurrent = weight * scale[:, None]

        def advance(projected: Tensor, state: LSTMState) -> LSTMState:
            i, f, g, o = linear_add(state.h, recurrent, projected).sigmoid_().chunk(4, -1)
            # i tanh(g) = i - 2 i sigmoid(-2g)
            c = torch.addcmul(i, i, g, value=-2.0).addcmul_(f, state.c)
            return LSTMState(times_tanh(o, c), c)

        return CellStepper(scale, advance)


@torch.no_grad()
def start_forget_gate(lstm: nn.LSTM, bias: float) -> None:
    """Let both biases of a layer's forget gate add up to a number, as they start.

    Józefowicz, Zaremba & Sutskever 2015: at 1 an LSTM remembers from the start.
    """
    for name, value in (("bias_ih_l0", bias), ("bias_hh_l0", 0.0)):
        getattr(lstm, name).chunk(4)[1].fill_(value)


def times_tanh(o: Tensor, c: Tensor) -> Tensor:
    """Return o tanh(c), by a sigmoid; see :meth:`LSTMCell.stepper`."""
    return torch.addcmul(o, o, (-2.0 * c).sigmoid_(), value=-2.0)


def _coarse(size: int, per_octave: int) -> int:
    """The least size from this on of those that are kept, some between 2^n and 2^(n+1)."""
    grain = max((1 << size.bit_length() >> 1) // per_octave, 1)
    return -(-size // grain) * grain
