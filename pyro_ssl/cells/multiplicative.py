r"""The multiplicative LSTM (Krause, Lu, Murray and Renals 2016, arXiv 1609.07959).

.. math::
    m_t = (W_{mx} x_t) \odot (W_{mh} h_{t-1}), \qquad
    [g; i; f; o] = W_{hx} x_t + W_{hm} m_t + b,

where m_t takes the place of h_{t-1} in all four gates, the candidate g among them. With x one-hot,
each symbol has a recurrent matrix of its own, W_hm diag(W_mx x) W_mh.

It has more parameters than an LSTM of the same sizes: 5H² + 5HI + 4H against 4H² + 4HI + 4H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_share
from .base import CellStepper, LSTMState, RecurrentCell
from .linear_add import linear_add
from .lstm import times_tanh

__all__ = ["MultiplicativeLSTM", "MultiplicativeLSTMCell"]


class MultiplicativeLSTMCell(RecurrentCell):
    r"""The multiplicative LSTM cell: G = 5H, rows ``[m; g; i; f; o]``.

    The authors' code (github.com/benkrause/mLSTM) has two forms, which differ in where tanh stands:

    * ``squash="cell"`` (in Python): c_t = f c_{t-1} + i tanh(g), h_t = o tanh(c_t), as in an LSTM;
    * ``squash="output"`` (in MATLAB): c_t = f c_{t-1} + i g, h_t = tanh(o c_t + b_h), with H more
      biases (in theirs b_h replaces the bias of g; here g keeps its own).

    W_mx, W_mh and the four square blocks of W_hm start orthogonal, W_hx as in :class:`nn.LSTM
    <torch.nn.LSTM>`, biases at 0 but that of the forget gate.

    :param int input_size: I.
    :param int hidden_size: H.
    :param str squash: ``"cell"`` or ``"output"``.
    :param bool weight_norm: learn g and v of rows g v / ‖v‖ in the four matrices (Salimans and
        Kingma 2016); it adds 10H parameters, one per row.
    :param float variational_dropout: in ``train()`` mode, probability of dropping a unit of the h
        that is fed back, the same units at all steps of a sequence. It acts in :meth:`sequence`
        only, so that the samplers never see it. The h that is returned has no dropout: that is for
        the head.
    :param float forget_bias: initial bias of the forget gate; 3 in the authors' script.
    :raises ValueError: on another ``squash``, or a dropout outside [0, 1).

    Example::

        >>> cell = MultiplicativeLSTMCell(input_size=5, hidden_size=8, weight_norm=True)
        >>> h, state = cell.sequence(torch.randn(7, 3, 5))     # (T, N, I)
        >>> h.shape, state.c.shape
        (torch.Size([7, 3, 8]), torch.Size([3, 8]))
    """

    weight_ih: Tensor  # W_mx over W_hx
    weight_mh: Tensor
    weight_hm: Tensor
    bias: Tensor
    bias_h: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        squash: str = "cell",
        weight_norm: bool = False,
        variational_dropout: float = 0.0,
        forget_bias: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        where = type(self).__name__
        if squash not in ("cell", "output"):
            raise ValueError(
                f'{where}: squash is "{squash}", expected "cell" or "output"; write squash="cell".'
            )
        share = check_share(where, "variational_dropout", variational_dropout)
        self.squash, self.weight_norm = squash, bool(weight_norm)
        self.variational_dropout, self.forget_bias = share, float(forget_bias)
        H = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (5 * H, self.input_size),
            **{"weight_mh": (H, H), "weight_hm": (4 * H, H)},
        }
        if weight_norm:
            shapes |= {f"{name}_magnitude": shape[:1] for name, shape in shapes.items()}
        shapes |= {"bias": (4 * H,)} | ({"bias_h": (H,)} if squash == "output" else {})
        for name, shape in shapes.items():
            value = torch.empty(*shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(value))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        H = self.hidden_size
        nn.init.orthogonal_(self.weight_ih[:H])
        nn.init.uniform_(self.weight_ih[H:], -(H**-0.5), H**-0.5)
        for square in (self.weight_mh, *self.weight_hm.split(H)):
            nn.init.orthogonal_(square)
        self.bias.zero_()
        self.bias[2 * H : 3 * H] = self.forget_bias
        if self.squash == "output":
            self.bias_h.zero_()
        self.reset_magnitudes()

    @torch.no_grad()
    def reset_magnitudes(self) -> None:
        """Set g = ‖v‖: the weights are then ``weight_ih``, ``weight_mh`` and ``weight_hm``."""
        if self.weight_norm:
            for name in ("weight_ih", "weight_mh", "weight_hm"):
                norm = torch.linalg.vector_norm(getattr(self, name), dim=-1)
                getattr(self, f"{name}_magnitude").copy_(norm)

    def _weight(self, name: str) -> Tensor:
        """A weight matrix, with its rows at their magnitudes under weight normalisation."""
        weight: Tensor = getattr(self, name)
        if self.weight_norm:
            return F.normalize(weight, dim=-1) * getattr(self, f"{name}_magnitude").unsqueeze(-1)
        return weight

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> LSTMState:
        """Return h = c = 0, each ``batch_shape + (H,)``."""
        zeros = self.bias.new_zeros((*batch_shape, self.hidden_size))
        return LSTMState(zeros, zeros)

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return [W_mx; W_hx], ``(5H, I)``, and its bias ``(5H,)``: m_t has none, hence 0."""
        return self._weight("weight_ih"), F.pad(self.bias, (self.hidden_size, 0))

    def advance(self, projected: Tensor, state: LSTMState) -> LSTMState:
        """One step over any leading dimensions; see the base class."""
        weights = self._weight("weight_mh"), self._weight("weight_hm")
        return self._step(projected, state, state.h, *weights)

    def _step(
        self, projected: Tensor, state: LSTMState, h: Tensor, w_mh: Tensor, w_hm: Tensor
    ) -> LSTMState:
        """One step with the given weights, and h as it is fed back."""
        x_to_m, x_to_gates = projected.split([self.hidden_size, 4 * self.hidden_size], -1)
        m = x_to_m * F.linear(h, w_mh)
        g, i, f, o = (x_to_gates + F.linear(m, w_hm)).chunk(4, -1)
        i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
        if self.squash == "output":
            c = f * state.c + i * g
            return LSTMState(torch.tanh(o * c + self.bias_h), c)
        c = f * state.c + i * torch.tanh(g)
        return LSTMState(o * torch.tanh(c), c)

    def sequence(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """All steps; weights, projections and the dropout mask are made once."""
        state = self.initial_state(x.shape[1:2]) if state is None else state
        weights = self._weight("weight_mh"), self._weight("weight_hm")
        mask = None
        if self.training and self.variational_dropout:
            mask = F.dropout(torch.ones_like(state.h), self.variational_dropout)
        out = []
        for projected in self.project(x):
            h = state.h if mask is None else state.h * mask
            state = self._step(projected, state, h, *weights)
            out.append(state.h)
        if not out:
            return state.h.new_zeros((0, *state.h.shape)), state
        return torch.stack(out), state

    @torch.no_grad()
    def stepper(self) -> CellStepper:
        """Return the samplers' step, by sigmoids alone; see :meth:`LSTMCell.stepper`."""
        H = self.hidden_size
        scale = self.bias.new_ones(5 * H)
        if self.squash == "cell":
            scale[H : 2 * H] = -2.0
        w_mh, w_hm = self._weight("weight_mh").detach(), self._weight("weight_hm") * scale[H:, None]

        def gates_of(projected: Tensor, h: Tensor) -> Tensor:
            m = linear_add(h, w_mh).mul_(projected[:, :H])
            return linear_add(m, w_hm, projected[:, H:])

        def squash_cell(projected: Tensor, state: LSTMState) -> LSTMState:
            g, i, f, o = gates_of(projected, state.h).sigmoid_().chunk(4, -1)
            c = torch.addcmul(i, i, g, value=-2.0).addcmul_(f, state.c)
            return LSTMState(times_tanh(o, c), c)

        if self.squash == "cell":
            return CellStepper(scale, squash_cell)
        bias, one = -2.0 * self.bias_h, self.bias.new_ones(())

        def squash_output(projected: Tensor, state: LSTMState) -> LSTMState:
            gates = gates_of(projected, state.h)
            i, f, o = gates[:, H:].sigmoid_().chunk(3, -1)
            c = (f * state.c).addcmul_(i, gates[:, :H])
            half = torch.addcmul(bias, o, c, value=-2.0).sigmoid_()  # of 1 - tanh(o c + b_h)
            return LSTMState(torch.sub(one, half, alpha=2.0), c)

        return CellStepper(scale, squash_output)


class MultiplicativeLSTM(MultiplicativeLSTMCell):
    """A multiplicative LSTM layer, called as :class:`torch.nn.LSTM` is.

    It takes what :class:`MultiplicativeLSTMCell` takes, and has the same parameters.

    Example::

        >>> layer = MultiplicativeLSTM(input_size=5, hidden_size=8)
        >>> h, (h_last, c_last) = layer(torch.randn(7, 3, 5))  # (T, N, I)
        >>> h.shape, h_last.shape
        (torch.Size([7, 3, 8]), torch.Size([3, 8]))
        >>> h, state = layer(torch.randn(7, 3, 5), (h_last, c_last))
    """

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, LSTMState]:
        """All steps of given inputs.

        :param Tensor x: time first, ``(T, N, I)``.
        :param state: (h, c) before the first step, each ``(N, H)``; zeros where left out.
        :returns: h of every step, ``(T, N, H)``, and the state (h, c) after the last.
        """
        return self.sequence(x, None if state is None else LSTMState(*state))
