r"""The IMV-LSTM (Guo, Lin and Antulov-Fantulin, ICML 2019, arXiv 1905.12034): units per variable.

The hidden state is a matrix with a row h^n of d units for each of N input variables. Each row reads
its own variable and itself, :math:`a^n = W^n h^n_{t-1} + U^n x^n_t + b^n`, in all four gates of the
*tensor* cell (eqs. 1, 5 to 7), so that h^n is a function of x^n alone; in the *full* cell (eqs. 1
to 4) only the candidate j does, and i, f and o are those of an LSTM over [x_t; vec h_{t-1}]:

.. math::
    c_t = f_t \odot c_{t-1} + i_t \odot j_t, \qquad h_t = o_t \odot \tanh c_t.

Next file to read: ``imv_unroll.py``, all steps in one call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import whole
from .base import LSTMState, RecurrentCell
from .imv_unroll import unroll

__all__ = ["IMVFullLSTM", "IMVFullLSTMCell", "IMVTensorLSTM", "IMVTensorLSTMCell"]


class _IMVCell(RecurrentCell):
    """What both cells share: sizes, states, and all steps over given inputs."""

    bias: Tensor

    def __init__(
        self,
        num_variables: int,
        units: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.num_variables = whole(type(self).__name__, "num_variables", num_variables, 1)
        self.units = whole(type(self).__name__, "units", units, 1)
        super().__init__(self.num_variables, self.num_variables * self.units)
        for name, shape in self._shapes().items():
            value = torch.empty(*shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(value))
        self.reset_parameters()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def _augmented(self) -> tuple[Tensor, ...]:
        """Weights over [h^n; x^n; 1], as :func:`~pyro_ssl.cells.imv_unroll.unroll` asks."""
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        raise NotImplementedError

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> LSTMState:
        """Return h = c = 0, each ``batch_shape + (N d,)``."""
        zeros = self.bias.new_zeros((*batch_shape, self.hidden_size))
        return LSTMState(zeros, zeros)

    def _unroll(self, x: Tensor, state: LSTMState | None) -> tuple[Tensor, LSTMState]:
        """All steps, batch last: x ``(T, N, B)`` to h ``(T, N, d, B)``; the state is batch first.

        :raises ValueError: if x has another number of variables.
        """
        if x.dim() != 3 or x.shape[1] != self.num_variables:
            found = tuple(x.transpose(-1, -2).shape) if x.dim() > 1 else tuple(x.shape)
            raise ValueError(
                f"{type(self).__name__}: found inputs of shape {found}, steps and sequences in "
                f"either order, expected {self.num_variables} variables last; write "
                f"{type(self).__name__}(num_variables={found[-1]}, units={self.units})."
            )
        state = self.initial_state(x.shape[2:]) if state is None else state
        rows = (x.shape[2], self.num_variables, self.units)
        before = tuple(s.reshape(rows).permute(1, 2, 0) for s in state)  # (N, d, B)
        h, c = unroll(x, *before, *self._augmented())
        last = h[-1] if len(h) else before[0]
        return h, LSTMState(*(s.permute(2, 0, 1).flatten(1) for s in (last, c)))

    def sequence(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """All steps in one call; see the base class."""
        h, last = self._unroll(x.transpose(1, 2), state)
        return h.permute(0, 3, 1, 2).flatten(2), last

    def _next(self, c: Tensor, j: Tensor, i: Tensor, f: Tensor, o: Tensor) -> LSTMState:
        """Eqs. 3, 4, 6 and 7, from the gates before their nonlinearities."""
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(j)
        return LSTMState(torch.sigmoid(o) * torch.tanh(c), c)


class IMVTensorLSTMCell(_IMVCell):
    """The tensor cell: N independent LSTMs side by side; G = 4 N d.

    The rows of a projected input are ``(N, 4, d)``, flat: [j; i; f; o] of each variable.

    :param int num_variables: N, size of x_t.
    :param int units: d, units of each variable; h_t has N d.

    *Reference*: Guo et al. 2019, section 3.1, eqs. (1) and (5) to (7).

    Example::

        >>> cell = IMVTensorLSTMCell(num_variables=3, units=4)
        >>> h, state = cell.sequence(torch.randn(7, 2, 3))     # (T, B, N)
        >>> h.shape, state.c.shape
        (torch.Size([7, 2, 12]), torch.Size([2, 12]))
    """

    weight_hh: Tensor  # W
    weight_ih: Tensor  # U

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        N, d = self.num_variables, self.units
        return {"weight_hh": (N, 4 * d, d), "weight_ih": (N, 4 * d), "bias": (N, 4 * d)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew, as :class:`torch.nn.LSTM` does; forget gates start open."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.units**-0.5), self.units**-0.5)
        self.bias[:, 2 * self.units : 3 * self.units] = 1.0

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return U as a block matrix ``(N 4 d, N)``, zero across variables, and the bias."""
        blocks = torch.diag_embed(self.weight_ih.T).transpose(0, 1)  # (N, 4d, N)
        return blocks.flatten(0, 1), self.bias.flatten()

    def advance(self, projected: Tensor, state: LSTMState) -> LSTMState:
        """One step over any leading dimensions; see the base class."""
        shape = (self.num_variables, self.units)
        h, c = (s.unflatten(-1, shape) for s in state)
        recurrent = torch.einsum("...nd,ngd->...ng", h, self.weight_hh)
        gates = projected.unflatten(-1, (self.num_variables, -1)) + recurrent
        after = self._next(c, *gates.chunk(4, -1))  # (..., N, d)
        return LSTMState(*(s.flatten(-2) for s in after))

    def _augmented(self) -> tuple[Tensor, ...]:
        columns = [self.weight_hh, self.weight_ih.unsqueeze(-1), self.bias.unsqueeze(-1)]
        scale = self.bias.new_ones(4 * self.units, 1)
        scale[: self.units] = 2.0
        return (torch.cat(columns, -1) * scale,)  # (N, 4d, d + 2)


class IMVFullLSTMCell(_IMVCell):
    """The full cell: a candidate per variable, and gates that read all of them; G = 4 N d.

    The rows of a projected input are ``(4, N, d)``, flat: [i; f; o], then j.

    :param int num_variables: N, size of x_t.
    :param int units: d, units of each variable; h_t has N d.

    *Reference*: Guo et al. 2019, section 3.1, eqs. (1) to (4).

    Example::

        >>> cell = IMVFullLSTMCell(num_variables=3, units=4)
        >>> h, state = cell.sequence(torch.randn(7, 2, 3))     # (T, B, N)
        >>> h.shape, state.c.shape
        (torch.Size([7, 2, 12]), torch.Size([2, 12]))
    """

    weight_hh: Tensor  # W_j
    weight_ih: Tensor  # U_j; bias is b_j
    gate_weight_hh: Tensor
    gate_weight_ih: Tensor
    gate_bias: Tensor

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        N, d = self.num_variables, self.units
        D = N * d
        return {
            **{"weight_hh": (N, d, d), "weight_ih": (N, d), "bias": (N, d)},
            **{"gate_weight_hh": (3 * D, D), "gate_weight_ih": (3 * D, N), "gate_bias": (3 * D,)},
        }

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew, as :class:`torch.nn.LSTM` does; forget gates start open."""
        for name, parameter in self.named_parameters():
            bound = (self.hidden_size if name.startswith("gate") else self.units) ** -0.5
            nn.init.uniform_(parameter, -bound, bound)
        self.gate_bias[self.hidden_size : 2 * self.hidden_size] = 1.0

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return the gates' weight over U_j as a block matrix, ``(4 N d, N)``, and the bias."""
        blocks = torch.diag_embed(self.weight_ih.T).transpose(0, 1).flatten(0, 1)  # (N d, N)
        bias = torch.cat([self.gate_bias, self.bias.flatten()])
        return torch.cat([self.gate_weight_ih, blocks]), bias

    def advance(self, projected: Tensor, state: LSTMState) -> LSTMState:
        """One step over any leading dimensions; see the base class."""
        h = state.h.unflatten(-1, (self.num_variables, self.units))
        candidate = torch.einsum("...nd,ngd->...ng", h, self.weight_hh).flatten(-2)
        gates = F.linear(state.h, self.gate_weight_hh)
        i, f, o, j = (projected + torch.cat([gates, candidate], -1)).chunk(4, -1)
        return self._next(state.c, j, i, f, o)

    def _augmented(self) -> tuple[Tensor, ...]:
        N, D = self.num_variables, self.hidden_size
        columns = [
            self.gate_weight_hh.view(3 * D, N, self.units),
            self.gate_weight_ih.unsqueeze(-1),
            # Every variable has a 1 for its bias; the gates' bias uses that of the first.
            F.pad(self.gate_bias[:, None, None], (0, 0, 0, N - 1)),
        ]
        gates = torch.cat(columns, -1).flatten(1).unsqueeze(0)  # (1, 3D, N (d + 2))
        own = [self.weight_hh, self.weight_ih.unsqueeze(-1), self.bias.unsqueeze(-1)]
        return gates, 2.0 * torch.cat(own, -1)  # (N, d, d + 2)


class _IMVLayer(_IMVCell):
    """A cell that is called as a layer, batch first."""

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, LSTMState]:
        """All steps of given inputs.

        :param Tensor x: batch first, ``(B, T, N)``.
        :param state: (h, c) before the first step, each ``(B, N, d)``; zeros where left out.
        :returns: h of every step, ``(B, T, N, d)``, which lies in memory with the batch last, and
            the state (h, c) after the last, each ``(B, N, d)``.
        :raises ValueError: if x has another number of variables.
        """
        before = None if state is None else LSTMState(*(s.flatten(1) for s in state))
        h, last = self._unroll(x.permute(1, 2, 0), before)
        shape = (self.num_variables, self.units)
        return h.permute(3, 0, 1, 2), LSTMState(*(s.unflatten(-1, shape) for s in last))


class IMVTensorLSTM(IMVTensorLSTMCell, _IMVLayer):
    """A layer of :class:`IMVTensorLSTMCell`, batch first: h^n_t depends on x^n_{1:t} alone.

    :param int num_variables: N.
    :param int units: d, units of each variable.

    Example::

        >>> layer = IMVTensorLSTM(num_variables=3, units=4)
        >>> h, (h_last, c_last) = layer(torch.randn(2, 7, 3))  # (B, T, N)
        >>> h.shape, h_last.shape
        (torch.Size([2, 7, 3, 4]), torch.Size([2, 3, 4]))
    """


class IMVFullLSTM(IMVFullLSTMCell, _IMVLayer):
    """A layer of :class:`IMVFullLSTMCell`, batch first.

    :param int num_variables: N.
    :param int units: d, units of each variable.

    Example::

        >>> layer = IMVFullLSTM(num_variables=3, units=4)
        >>> h, (h_last, c_last) = layer(torch.randn(2, 7, 3))  # (B, T, N)
        >>> h.shape, h_last.shape
        (torch.Size([2, 7, 3, 4]), torch.Size([2, 3, 4]))
    """
