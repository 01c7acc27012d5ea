r"""What the gates of a recurrent network compute, taken apart.

A gate σ(W_h h_{t-1} + W_y y_t + b) is read as a belief update: W_h h_{t-1} are the log-odds before
y_t is seen, W_y y_t + b is the evidence of y_t (Rodu & Sedoc 2019, "Towards Understanding LSTM
Networks", HMI talk). The memory cell c_t = f c_{t-1} + i g is not a belief: the gates act on it.

In a multiplicative LSTM (Krause et al. 2016, arXiv 1609.07959) m_t takes the place of h_{t-1}, so
that each y_t has a recurrent matrix of its own, W_hm diag(W_mx y_t) W_mh: read as a belief update,
its transition depends on the input.

Next file to read: ``view.py``, the beliefs themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_kind
from ..cells import (
    IMVFullLSTM,
    IMVFullLSTMCell,
    IMVTensorLSTM,
    IMVTensorLSTMCell,
    LSTMCell,
    LSTMState,
    MultiplicativeLSTMCell,
    RecurrentCell,
)
from ..transitions.recurrent_base import RecurrentBase
from .filter import GateRNN
from .inputs import as_vectors, check_state, what_the_cell_reads

__all__ = ["GateReading", "gate_weights", "read_gates"]

_LSTM = ("input", "forget", "candidate", "output")  # rows of weights, in torch's order
_MULTIPLICATIVE = _IMV_TENSOR = ("candidate", "input", "forget", "output")
_IMV_FULL = ("input", "forget", "output", "candidate")
_SHOWN = _IMV_FULL
_WRITE = (
    "nn.LSTM, nn.LSTMCell, LSTMCell, MultiplicativeLSTMCell, an IMV-LSTM, GateRNN, or a transition "
    "over one of these cells; of a larger model write its recurrent part, as model.recurrent with "
    "model.embedding(words), or ssl.transition with paths z (B, T)"
)


class GateReading(NamedTuple):
    """A network's pass over given inputs, gate by gate.

    ``prior`` and ``evidence`` ``(T, B, H)`` are the two terms inside each gate's σ, by the gate's
    name: ``"input"``, ``"forget"`` and ``"output"``, or ``"posterior"`` of a :class:`GateRNN`.
    ``h`` and ``c`` ``(T, B, H)`` are the states after each input, ``candidate`` is what the input
    gate lets into c; both ``None`` where there is no c. ``evidence_of`` names what is read:
    ``"x_t"``; ``"z_{t-1}"`` by a transition, which reads latents; ``"h_t of layer 0"``.
    """

    prior: dict[str, Tensor]
    evidence: dict[str, Tensor]
    h: Tensor
    c: Tensor | None
    candidate: Tensor | None
    evidence_of: str


@torch.no_grad()
def read_gates(
    source: nn.Module,
    inputs: Tensor,
    state: Any = None,
    *,
    layer: int = 0,
    exogenous: Tensor | None = None,
) -> GateReading:
    """Run a network over inputs, without dropout, and take its gates apart.

    :param source: ``nn.LSTM``, ``nn.LSTMCell``; this library's :class:`LSTMCell`,
        :class:`MultiplicativeLSTMCell`, :class:`IMVTensorLSTMCell`, :class:`IMVFullLSTMCell` or
        :class:`GateRNN`; or a transition over one of them.
    :param Tensor inputs: ``(T, B, I)``, time first unless the source is a layer that is batch
        first, as an ``nn.LSTM`` may be and the IMV layers are; int64 symbols ``(T, B)`` stand for
        one-hot vectors. Of a transition: paths as its ``log_prob`` takes them, ``(B, T)`` or
        ``(B, T, D)``.
    :param state: before the first input, as the source itself takes it; zeros where left out.
    :param int layer: of an ``nn.LSTM`` with several.
    :param Tensor exogenous: a transition's further inputs, ``(B, T, input_size)``.
    :raises TypeError: if the source is of another kind.
    :raises ValueError: on inputs of another shape.

    Example::

        >>> reading = read_gates(nn.LSTM(5, 8), torch.randn(7, 3, 5))
        >>> list(reading.prior), reading.prior["forget"].shape
        (['input', 'forget', 'output'], torch.Size([7, 3, 8]))
    """
    if isinstance(source, RecurrentBase):
        x = what_the_cell_reads(source, inputs, exogenous)
        named = "[z_{t-1}; u_t]" if source.input_size else "z_{t-1}"
        return read_gates(source.cell, x, state)._replace(evidence_of=named)
    if exogenous is not None:
        raise ValueError(
            f"read_gates: a {type(source).__name__} has no exogenous inputs; join them to the "
            "inputs: write torch.cat([inputs, exogenous], -1)."
        )
    _check_kind(source, layer)
    check_kind("read_gates", "inputs", inputs, Tensor, "torch.as_tensor(inputs)")
    assert isinstance(source, nn.LSTM | nn.LSTMCell | RecurrentCell)
    imv_layer = isinstance(source, IMVFullLSTM | IMVTensorLSTM)
    if imv_layer or isinstance(source, nn.LSTM) and source.batch_first:
        inputs = inputs.transpose(0, 1)
    x = as_vectors(inputs, source)
    if state is not None:
        check_state(source, state, x)
    if imv_layer and state is not None:
        state = tuple(s.flatten(1) for s in state)
    if isinstance(source, _BY_STEP):
        return _read_cell(source, x, state)
    state = None if state is None else tuple(s.unbind() for s in _layered(state, source))
    for below in range(layer + 1):
        parameters = _lstm_parameters(source, below)
        before = None if state is None else (state[0][below], state[1][below])
        reading = _read_lstm(parameters, x, before)
        x = reading.h
    return reading if layer == 0 else reading._replace(evidence_of=f"h_t of layer {layer - 1}")


@torch.no_grad()
def gate_weights(source: nn.Module, *, layer: int = 0) -> dict[str, Tensor]:
    """Return W_h of each gate, and of an LSTM's candidate, by name: ``(H, H)``.

    Those of an IMV-LSTM are block-diagonal over variables, where a unit reads only those of its own
    variable. The recurrent matrix of a multiplicative LSTM is linear in its input, and is returned
    for each unit vector e: W_hm diag(W_mx e) W_mh, ``(I, H, H)``.

    :param source: what :func:`read_gates` takes.
    :param int layer: of an ``nn.LSTM`` with several.

    Example::

        >>> weights = gate_weights(nn.LSTM(5, 8))
        >>> {name: tuple(weight.shape) for name, weight in weights.items()}
        {'input': (8, 8), 'forget': (8, 8), 'candidate': (8, 8), 'output': (8, 8)}
    """
    if isinstance(source, RecurrentBase):
        return gate_weights(source.cell)
    _check_kind(source, layer)
    if isinstance(source, GateRNN):
        return {"posterior": source.weight_hh.detach()}
    if isinstance(source, MultiplicativeLSTMCell):
        w_mx = source.input_map()[0][: source.hidden_size]  # (H, I)
        per_input = w_mx.T.unsqueeze(-1) * source._weight("weight_mh")  # (I, H, H)
        blocks = source._weight("weight_hm").chunk(4)
        return {
            name: block @ per_input for name, block in zip(_MULTIPLICATIVE, blocks, strict=True)
        }
    if isinstance(source, IMVTensorLSTMCell):
        parts = source.weight_hh.detach().unflatten(1, (4, source.units)).unbind(1)  # (N, d, d)
        return dict(zip(_IMV_TENSOR, (torch.block_diag(*part) for part in parts), strict=True))
    if isinstance(source, IMVFullLSTMCell):
        gates = source.gate_weight_hh.detach().chunk(3)
        own = torch.block_diag(*source.weight_hh.detach())
        return dict(zip(_IMV_FULL, (*gates, own), strict=True))
    blocks = _lstm_parameters(source, layer)[1].chunk(4)
    return dict(zip(_LSTM, blocks, strict=True))


# ------------------------------------------------------------------------------- kinds of cells


def _read_lstm(
    parameters: tuple[Tensor, ...], x: Tensor, state: tuple[Tensor, Tensor] | None
) -> GateReading:
    """One LSTM layer of given parameters over ``(T, B, I)``."""
    weight_ih, weight_hh, bias_ih, bias_hh = parameters
    if state is None:
        zeros = x.new_zeros(x.shape[1], weight_hh.shape[1])
        state = zeros, zeros
    states = [state]
    for x_t in x:
        states.append(torch.lstm_cell(x_t, states[-1], weight_ih, weight_hh, bias_ih, bias_hh))
    h, c = (torch.stack(values) for values in zip(*states, strict=True))
    prior = _by_gate(F.linear(h[:-1], weight_hh), _LSTM)
    evidence = _by_gate(F.linear(x, weight_ih, bias_ih + bias_hh), _LSTM)
    candidate = torch.tanh(prior.pop("candidate") + evidence.pop("candidate"))
    return GateReading(prior, evidence, h[1:], c[1:], candidate, "x_t")


_BY_STEP = (GateRNN, MultiplicativeLSTMCell, IMVTensorLSTMCell, IMVFullLSTMCell)


def _read_cell(cell: RecurrentCell, x: Tensor, state: Any) -> GateReading:
    """Another cell of this library, by its own step."""
    state = cell.initial_state(x.shape[1:2]) if state is None else state
    if not isinstance(cell, GateRNN):
        state = LSTMState(*state)
    projected, states = cell.project(x), [state]
    for at_t in projected:
        states.append(cell.advance(at_t, states[-1]))
    h = torch.stack([s.h.expand_as(states[-1].h) for s in states])
    if isinstance(cell, GateRNN):
        prior = {"posterior": F.linear(h[:-1], cell.weight_hh)}
        return GateReading(prior, {"posterior": projected}, h[1:], None, None, "x_t")
    if isinstance(cell, MultiplicativeLSTMCell):
        H = cell.hidden_size
        m = projected[..., :H] * F.linear(h[:-1], cell._weight("weight_mh"))
        prior = _by_gate(F.linear(m, cell._weight("weight_hm")), _MULTIPLICATIVE)
        evidence = _by_gate(projected[..., H:], _MULTIPLICATIVE)
    else:
        weights = gate_weights(cell)
        prior = {name: F.linear(h[:-1], weights[name]) for name in _SHOWN}
        order = _IMV_FULL
        if isinstance(cell, IMVTensorLSTMCell):  # its rows go by variable, then by gate
            rows = projected.unflatten(-1, (cell.num_variables, 4, cell.units))
            order, projected = _IMV_TENSOR, rows.transpose(-3, -2).flatten(-3)
        evidence = _by_gate(projected, order)
    candidate = prior.pop("candidate") + evidence.pop("candidate")
    plain = isinstance(cell, MultiplicativeLSTMCell) and cell.squash != "cell"
    candidate = candidate if plain else torch.tanh(candidate)
    c = torch.stack([s.c for s in states[1:]])
    return GateReading(prior, evidence, h[1:], c, candidate, "x_t")


def _by_gate(value: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Split ``(..., 4H)`` into gates by name, in the order in which they are shown."""
    parts = dict(zip(names, value.chunk(4, -1), strict=True))
    return {name: parts[name] for name in _SHOWN}


def _lstm_parameters(source: nn.Module, layer: int) -> tuple[Tensor, ...]:
    """Weights and biases of one layer; biases of 0 where there are none."""
    lstm = source.lstm if isinstance(source, LSTMCell) else source
    suffix = "" if isinstance(lstm, nn.LSTMCell) else f"_l{layer}"
    weights = [getattr(lstm, f"weight_{of}{suffix}").detach() for of in ("ih", "hh")]
    if not lstm.bias:
        zeros = weights[1].new_zeros(len(weights[1]))
        return *weights, zeros, zeros
    return *weights, *(getattr(lstm, f"bias_{of}{suffix}").detach() for of in ("ih", "hh"))


def _layered(state: Any, source: nn.Module) -> tuple[Tensor, ...]:
    """(h, c) as ``(layers, B, H)``, which nn.LSTM's already are."""
    return tuple(s if isinstance(source, nn.LSTM) else s.unsqueeze(0) for s in state)


def _check_kind(source: nn.Module, layer: int) -> None:
    """Refuse a network of another kind, and a layer that it does not have."""
    known = (nn.LSTM, nn.LSTMCell, LSTMCell, *_BY_STEP)
    if not isinstance(source, known):
        raise TypeError(f"read_gates: found {type(source).__name__}, expected {_WRITE}.")
    if isinstance(source, nn.LSTM) and (source.bidirectional or source.proj_size):
        raise ValueError(
            f"read_gates: found an nn.LSTM with bidirectional={source.bidirectional} and "
            f"proj_size={source.proj_size}, expected one direction and no projection: h_t is not "
            "a belief about the past then."
        )
    layers = source.num_layers if isinstance(source, nn.LSTM) else 1
    if not isinstance(layer, int) or not 0 <= layer < layers:
        raise ValueError(f"read_gates: layer is {layer}, expected one from 0 to {layers - 1}.")
