"""What every head over a recurrent cell shares: the cell reads [encoding of z_{t-1}; u_t].

The encoding stands for z_{t-1}, or for the start where there is none yet. A head defines it, and
turns h_t into a distribution.

Next files to read: ``recurrent.py``, the categorical head; ``recurrent_gaussian.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_share
from ..cells import RecurrentCell
from ..cells.linear_add import linear_add
from .base import Transition

__all__ = ["ArrangedWeights", "RecurrentBase"]


class ArrangedWeights(NamedTuple):
    """A cell and its head, arranged for the steps of one sweep, without gradient."""

    #: ``(E, G)``, what each number of the encoding adds to the cell's projected input
    encoding: Tensor
    #: ``(G,)``
    bias: Tensor
    #: ``(T, N, G)``, what the exogenous inputs add; ``None`` if there are none
    exogenous: Tensor | None
    #: see :class:`~pyro_ssl.cells.CellStepper`
    advance: Callable[[Tensor, Any], Any]
    #: the output layer, of h ``(N, H)``
    head: Callable[[Tensor], Tensor]


class RecurrentBase(Transition):
    """A transition made of a cell and an output layer.

    A head inherits from it first, then from the kind of latent. It calls :meth:`_build`, sets
    :attr:`start_value`, and writes :meth:`_encode` and :meth:`_score`.
    """

    cell: RecurrentCell
    head: nn.Linear
    dropout: nn.Dropout
    #: E, how many numbers the encoding has
    encoding_size: int
    #: what stands for z_0 among the latents before each step
    start_value: int = 0

    def _build(
        self, cell: RecurrentCell, encoding_size: int, of: str, num_outputs: int, dropout: float
    ) -> None:
        """Take a cell that reads the encoding, then exogenous inputs; make the output layer.

        :param str of: what the numbers of the encoding are, for the message.
        :raises ValueError: if the cell's ``input_size`` is less than ``encoding_size``.
        """
        if not isinstance(cell, RecurrentCell):
            raise TypeError(
                f"{type(self).__name__}: the cell is a {type(cell).__name__}, expected a "
                "pyro_ssl.cells.RecurrentCell: a linear input map apart from the recurrence. Write "
                f"LSTMCell({encoding_size} + input_size, hidden_size), or a subclass with "
                "initial_state, input_map and advance."
            )
        self.encoding_size, self.input_size = encoding_size, cell.input_size - encoding_size
        if self.input_size < 0:
            raise ValueError(
                f"{type(self).__name__}: the cell reads {cell.input_size} numbers, expected at "
                f"least {encoding_size}, {of}; write "
                f"{type(cell).__name__}({encoding_size} + input_size, hidden_size)."
            )
        self.dropout = nn.Dropout(check_share(type(self).__name__, "dropout", dropout))
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, num_outputs)

    def _encode(self, previous: Tensor, at_start: bool, state: Any) -> list[Tensor]:
        """What the cell reads of the latents before each step.

        :param Tensor previous: time first, ``(S, N) + event_shape``.
        :param bool at_start: the first of them is ``start_value``, for there is no latent yet.
        :param state: before the first step; may be ``None`` at the start.
        :returns: parts ``(S, N, ...)``, with ``encoding_size`` numbers together.
        """
        raise NotImplementedError

    def _score(
        self, out: Tensor, z: Tensor, previous: Tensor, at_start: bool, inputs: Tensor | None
    ) -> Tensor:
        """log p(z_s | z_{1:s-1}), ``(S, N)``, from the output layer's ``out``, all time first."""
        raise NotImplementedError

    @torch.no_grad()
    def draw_weights(self) -> dict[str, Tensor]:
        """Return a draw of W by dropout's distribution (Gal & Ghahramani 2016, arXiv 1512.05287).

        Each unit of h_t is kept with probability 1 - ``dropout``, at all steps and in all
        sequences alike: its column of W is there, or 0. A weight that is given is left as it is.
        """
        weight = self.head._parameters.get("weight")
        if weight is None or not self.dropout.p:
            return {}
        return {"head.weight": weight * F.dropout(torch.ones_like(weight[0]), self.dropout.p)}

    @property
    def hidden_size(self) -> int:
        """H, the number of units of the cell."""
        return self.cell.hidden_size

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> Any:
        """Return the cell's state before the first latent."""
        return self.cell.initial_state(batch_shape)

    def _cell_state(self, state: Any) -> Any:
        return state

    # ------------------------------------------------------------------------------ whole paths

    def _previous(self, z: Tensor, z_prev: Tensor | None) -> Tensor:
        """The latent before each step, time first: ``(S, N) + event_shape``, S at least 1."""
        first = torch.full_like(z[0], self.start_value) if z_prev is None else z_prev
        return torch.cat([first.unsqueeze(0), z[:-1]])

    def _read(self, previous: Tensor, at_start: bool, state: Any, inputs: Tensor | None) -> Tensor:
        """All that the cell reads, ``(S, N, encoding_size + input_size)``."""
        parts = self._encode(previous, at_start, state) + ([] if inputs is None else [inputs])
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _hidden(self, z: Tensor, inputs: Tensor | None) -> Tensor:
        """h_t of every step of whole paths by one call of the cell, with dropout.

        :param Tensor z: ``(..., T) + event_shape``.
        :param Tensor inputs: exogenous inputs, which broadcast to ``(..., T, input_size)``.
        :returns: ``(..., T, H)``.
        """
        num_dims = z.dim() - len(self.event_shape)
        batch_shape, T = z.shape[: num_dims - 1], z.shape[num_dims - 1]
        N, out_shape = math.prod(batch_shape), (*batch_shape, T, self.hidden_size)
        if not z.numel():  # fused kernels refuse empty paths
            return self.like.new_zeros(out_shape)
        previous = self._previous(z.reshape(N, T, *self.event_shape).transpose(0, 1), None)
        if inputs is not None:
            inputs = inputs.expand(*batch_shape, T, -1).reshape(N, T, -1).transpose(0, 1)
        h, _ = self.cell.sequence(self._read(previous, True, None, inputs))  # (T, N, H)
        return self.dropout(h).transpose(0, 1).reshape(out_shape)

    @torch.no_grad()
    def replay(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> Tensor:
        """By one call of the cell over the rest of the paths; see the base class."""
        z = z.transpose(0, 1)  # time first, as cells read
        inputs = None if inputs is None else inputs.transpose(0, 1)
        at_start, previous = z_prev is None, self._previous(z, z_prev)
        h = self._replay_cell(previous, at_start, state, inputs)
        out = linear_add(h.flatten(0, 1), self.head.weight.detach(), self.head.bias.detach())
        out = out.unflatten(0, h.shape[:2])
        return self._score(out, z, previous, at_start, inputs).transpose(0, 1)

    def _replay_cell(
        self, previous: Tensor, at_start: bool, state: Any, inputs: Tensor | None
    ) -> Tensor:
        """h of every step, ``(S, N, H)``, without dropout."""
        x = self._read(previous, at_start, state, inputs)
        return self.cell.replay(x, self._cell_state(state))

    # ------------------------------------------------------------------------------ single steps

    def _input_map(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the encoding, ``(G, E)``, and of exogenous inputs, and the bias ``(G,)``."""
        weight, bias = self.cell.input_map()
        encoding, exogenous = weight.split([self.encoding_size, self.input_size], -1)
        return encoding, exogenous, bias

    @torch.no_grad()
    def _arranged(self, inputs: Tensor | None) -> ArrangedWeights:
        """What the steps of one sweep share; ``inputs`` are ``(T, N, input_size)``."""
        self._check_inputs(f"{type(self).__name__}.stepper", inputs, ("T", "N"))
        scale, advance = self.cell.stepper()
        encoding, exogenous, bias = self._input_map()
        head_weight, head_bias = self.head.weight.detach(), self.head.bias.detach()
        return ArrangedWeights(
            (encoding * scale[:, None]).T.contiguous(),
            bias * scale,
            None if inputs is None else _by_step(inputs, exogenous * scale[:, None]),
            advance,
            lambda h: linear_add(h, head_weight, head_bias),
        )


def _by_step(inputs: Tensor, weight: Tensor) -> Tensor:
    """What inputs ``(T, N, input_size)`` add: the rounding of a product goes with its rows."""
    steps = [F.linear(u, weight) for u in inputs]
    return torch.stack(steps) if steps else F.linear(inputs, weight)
