r"""A recurrent network's gates as beliefs over binary units.

For every gate and unit, at every step: the prior log-odds W_h h_{t-1}, the log-odds of the evidence
W_y y_t + b, and the posterior, σ of their sum. Read in this way, k units are a product belief over
2^k joint states (Rodu & Sedoc 2019, "Towards Understanding LSTM Networks", HMI talk). It is a view,
not a theorem: the posterior is exact where h_{t-1} is a known state and mean-field otherwise, and
an LSTM feeds back o tanh(c) rather than a gate. That the bias counts as evidence is a convention.

Next file to read: ``decode.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import whole
from .decode import JointStates, most_probable_states, product_belief
from .gates import read_gates

__all__ = ["BeliefView", "GateBelief", "belief_view"]


class GateBelief(NamedTuple):
    """One gate's belief at every step, each ``(T, B, H)``.

    ``posterior`` is σ(``prior_log_odds`` + ``evidence_log_odds``), ``entropy`` that of each unit,
    in nats, and ``bits`` the likelier value of each, bool: together the likeliest joint state.
    """

    prior_log_odds: Tensor
    evidence_log_odds: Tensor
    posterior: Tensor
    entropy: Tensor
    bits: Tensor

    @property
    def log_odds(self) -> Tensor:
        """Log-odds of the posterior, ``(T, B, H)``."""
        return self.prior_log_odds + self.evidence_log_odds


@dataclass(frozen=True, eq=False)
class BeliefView:
    """What :func:`belief_view` returns.

    ``gates`` is a :class:`GateBelief` by name: ``"input"``, ``"forget"`` and ``"output"`` of an
    LSTM, ``"posterior"`` of a :class:`GateRNN`. ``h`` and ``c`` ``(T, B, H)`` are the states after
    each input, ``candidate`` what the input gate lets into c; both ``None`` where there are none.
    ``evidence_of`` names what the network reads: ``"x_t"``, or ``"z_{t-1}"`` by a transition.
    """

    gates: dict[str, GateBelief]
    h: Tensor
    c: Tensor | None
    candidate: Tensor | None
    evidence_of: str

    def joint(self, gate: str, units: Sequence[int] | None = None) -> Tensor:
        """Return a gate's belief over the joint states of its units, ``(T, B, 2^k)``.

        :param units: which; by default all, if there are no more than 12. The first is the most
            significant bit; see :func:`product_belief`.
        """
        return product_belief(_of(self._gate(gate).posterior, units))

    def most_probable(
        self, gate: str, num_states: int, units: Sequence[int] | None = None
    ) -> JointStates:
        """Return the likeliest joint states of any number of units; see
        :func:`most_probable_states`.
        """
        return most_probable_states(None, num_states, logits=_of(self._gate(gate).log_odds, units))

    def _gate(self, name: str) -> GateBelief:
        if name not in self.gates:
            raise ValueError(
                f'BeliefView: found no gate "{name}", expected one of {[*self.gates]}.'
            )
        return self.gates[name]

    def __str__(self) -> str:
        T, B, H = self.h.shape
        lines = [f"{H} units over {T} steps of {B} sequences; evidence of {self.evidence_of}"]
        lines += [
            f"{name:>9}: mean posterior {float(belief.posterior.mean()):.3f}, "
            f"mean entropy {float(belief.entropy.mean()):.3f} nats a unit"
            for name, belief in self.gates.items()
        ]
        return "\n".join(lines)


@torch.no_grad()
def belief_view(
    lstm: nn.Module,
    inputs: Tensor,
    state: Any = None,
    *,
    layer: int = 0,
    exogenous: Tensor | None = None,
) -> BeliefView:
    """Read the gates of a network over given inputs as beliefs.

    :param lstm: ``nn.LSTM``, ``nn.LSTMCell``; this library's ``LSTMCell``,
        ``MultiplicativeLSTMCell``, an IMV-LSTM or :class:`GateRNN`; or a transition over one of
        them, as ``TopicalSSL(...).transition``, whose gates read z_{t-1} in place of symbols.
    :param Tensor inputs: ``(T, B, I)``, or int64 symbols ``(T, B)`` for one-hot vectors, time
        first unless the layer is batch first. Of a transition: paths as its
        ``log_prob`` takes them, ``(B, T)`` or ``(B, T, D)``, as drawn from a posterior.
    :param state: before the first input, as the network itself takes it; zeros where left out.
    :param int layer: of an ``nn.LSTM`` with several.
    :param Tensor exogenous: a transition's further inputs, ``(B, T, input_size)``.
    :raises TypeError: if the network is of another kind.
    :raises ValueError: on inputs of another shape.

    Example::

        >>> from pyro_ssl import LSTMTransition
        >>> view = belief_view(LSTMTransition(3, 8), torch.tensor([[0, 2, 1, 1]]))
        >>> view.evidence_of, view.gates["forget"].posterior.shape
        ('z_{t-1}', torch.Size([4, 1, 8]))
        >>> view.joint("forget").shape
        torch.Size([4, 1, 256])
        >>> view.most_probable("forget", 3).states.shape
        torch.Size([4, 1, 3, 8])
    """
    reading = read_gates(lstm, inputs, state, layer=layer, exogenous=exogenous)
    gates = {}
    for name, prior in reading.prior.items():
        evidence = reading.evidence[name]
        odds = prior + evidence
        # -Σ p log p, from log-odds: p may round to 1.
        entropy = F.softplus(-odds.abs()) + odds.abs() * torch.sigmoid(-odds.abs())
        gates[name] = GateBelief(prior, evidence, torch.sigmoid(odds), entropy, odds > 0)
    return BeliefView(gates, reading.h, reading.c, reading.candidate, reading.evidence_of)


def _of(value: Tensor, units: Sequence[int] | None) -> Tensor:
    """The chosen units of ``(..., H)``.

    :raises ValueError: if there is no such unit, none at all, or one twice.
    """
    if units is None:
        return value
    H, listed = value.shape[-1], hasattr(units, "__iter__")
    chosen = [whole("BeliefView", "a unit", unit, 0) for unit in units] if listed else []
    if not chosen or max(chosen) >= H or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"BeliefView: found units={units}, expected different numbers from 0 to {H - 1}, one "
            "at least; write units=[0]."
        )
    return value[..., chosen]
