r"""A gate as a partially observed Markov decision process, whose belief is h.

In σ(W_h h_{t-1} + W_y y_t + b) call W_y y_t + b the *action*, and the map from the observation y_t
to it the *policy* (Rodu & Sedoc 2019, "Towards Understanding LSTM Networks", HMI talk):

.. math::
    a_t = W_y y_t + b, \qquad
    T_a(s \to s') = \prod_j \mathrm{Bern}(s'_j;\, σ(W_h s + a)_j), \quad s \in \{0, 1\}^k.

The gate's own update puts a belief in place of the bits s, one number for each unit. That is exact
where the last state is known. Otherwise it makes two approximations: it takes σ of the mean in
place of the mean of σ, and treats the units as independent. :meth:`GatePOMDP.exact_update` makes
neither.

Next file to read: ``hmm.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..arguments import check_probabilities, check_range, check_tensor, check_unit, whole
from ..models import LanguageModel
from ..transitions import RecurrentTransition
from .decode import product_belief
from .filter import GateRNN
from .gates import gate_weights, read_gates

__all__ = ["GatePOMDP", "joint_states", "to_pomdp"]

#: kernels are refused for more units than this: 4^k numbers
MAX_UNITS = 10
_MOST_BITS = 24


def joint_states(num_units: int, *, device: torch.device | str | None = None) -> Tensor:
    """Return all strings of k bits, int64 ``(2^k, k)``, unit 0 the most significant.

    :raises ValueError: if k is no whole number, or more than 24.

    Example::

        >>> joint_states(2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    if whole("joint_states", "num_units", num_units, 0) > _MOST_BITS:
        raise ValueError(
            f"joint_states: num_units is {num_units}, expected at most {_MOST_BITS}; write "
            "most_probable_states(probs, m) for the likeliest of more units."
        )
    shifts = torch.arange(num_units - 1, -1, -1, device=device)
    return (torch.arange(2**num_units, device=device).unsqueeze(-1) >> shifts) & 1


class GatePOMDP(NamedTuple):
    """A gate of k units over V symbols: ``policy`` ``(V, k)`` is the action after each symbol,
    ``weight`` ``(k, k)`` is W_h, ``start`` ``(k,)`` the belief before the first symbol.

    An *action* below is a tensor ``(..., k)``, or symbols int64 ``(...)``, which the policy reads.
    """

    policy: Tensor
    weight: Tensor
    start: Tensor

    @property
    def num_units(self) -> int:
        """k."""
        return len(self.weight)

    def action(self, action: Tensor) -> Tensor:
        """Return the action ``(..., k)``, by the policy where symbols were given.

        :raises ValueError: if it is of another size, or a symbol is outside the policy.
        """
        where, like = "GatePOMDP", self.weight
        if isinstance(action, Tensor) and not action.is_floating_point():
            check_tensor(where, "symbols", action, (...,), like=like, integer=True)
            check_range(where, "symbols", action, len(self.policy), "0 to V - 1")
            return self.policy[action]
        write = "symbols, or one number for each unit"
        check_tensor(where, "action", action, (..., self.num_units), like=like, write=write)
        return action

    def update(self, belief: Tensor, action: Tensor) -> Tensor:
        """Return the gate's next belief σ(W_h h + a), ``(..., k)``.

        :param Tensor belief: ``(..., k)``; 0 and 1 stand for known states.
        :raises ValueError: if belief or action is of another size, or no probability.
        """
        self._check_belief(belief)
        return self._update(belief, self.action(action))

    def _update(self, belief: Tensor, action: Tensor) -> Tensor:
        return torch.sigmoid(belief @ self.weight.T + action)

    def _check_belief(self, belief: Tensor) -> None:
        where, shape = "GatePOMDP", (..., self.num_units)
        check_tensor(where, "belief", belief, shape, like=self.weight, write="one for each unit")
        check_unit(where, "belief", belief)

    def rollout(self, symbols: Tensor, belief: Tensor | None = None) -> Tensor:
        """Return the belief after each symbol, ``(T, B, k)``.

        :param Tensor symbols: int64 ``(T, B)``.
        :param Tensor belief: before the first, ``(B, k)``; by default ``start``.
        """
        where = "GatePOMDP.rollout"
        check_tensor(where, "symbols", symbols, ("T", "B"), integer=True, some="T")
        out, h = [], self.start if belief is None else belief
        self._check_belief(h)
        for action in self.action(symbols):
            h = self._update(h, action)
            out.append(h)
        return torch.stack(out)

    def kernel(self, action: Tensor) -> Tensor:
        """Return T_a ``(..., 2^k, 2^k)``, from the state in row to the state in column.

        :raises ValueError: if there are more than ``MAX_UNITS`` units.
        """
        if self.num_units > MAX_UNITS:
            raise ValueError(
                f"GatePOMDP: {self.num_units} units have 2^{self.num_units} joint states, expected "
                f"at most {MAX_UNITS} units; write to_hmm(network, words, num_states=64), which "
                "groups the states that are visited."
            )
        bits = joint_states(self.num_units, device=self.weight.device).to(self.weight.dtype)
        return product_belief(self.update(bits, self.action(action).unsqueeze(-2)))

    def exact_update(self, joint: Tensor, action: Tensor) -> Tensor:
        """Return the next distribution over joint states, ``(..., 2^k)``, from any other.

        :raises ValueError: if ``joint`` is of another size, or no distribution.
        """
        kernel, shape = self.kernel(action), (..., 2**self.num_units)
        write = "product_belief(belief)"
        check_tensor("GatePOMDP", "joint", joint, shape, like=self.weight, write=write)
        check_probabilities("GatePOMDP", "joint", joint)
        return (joint.unsqueeze(-2) @ kernel).squeeze(-2)


@torch.no_grad()
def to_pomdp(
    source: nn.Module, gate: str = "posterior", *, symbols: Tensor | None = None
) -> GatePOMDP:
    r"""Read a gate as a POMDP: its policy for each symbol, and its kernel for each action.

    An LSTM's h_t is not its gate's posterior: o_t tanh(c_t) stands between them. So a rollout of
    one gate of an LSTM is that gate fed with its own posterior, not a run of the LSTM; the kernel
    is that of the gate if h_{t-1} were bits.

    :param source: a :class:`GateRNN`; ``nn.LSTM`` (its first layer), ``nn.LSTMCell``,
        :class:`LSTMCell`; a :class:`LanguageModel` with an LSTM; or a transition over an LSTM,
        whose symbols are the K latents z_{t-1}, and K, the start symbol.
    :param str gate: of an LSTM, ``"input"``, ``"forget"`` or ``"output"``.
    :param Tensor symbols: what the network reads for each symbol, ``(V, I)``; by default one-hot
        vectors, and for a :class:`LanguageModel` its embedding.
    :raises ValueError: if there is no such gate, or its recurrent matrix depends on the input, as
        a multiplicative LSTM's does.
    :raises TypeError: if the source is none of these.

    Example::

        >>> pomdp = to_pomdp(nn.LSTM(5, 3), "forget")
        >>> pomdp.policy.shape, pomdp.kernel(torch.tensor(4)).shape
        (torch.Size([5, 3]), torch.Size([8, 8]))
    """
    if isinstance(source, LanguageModel):
        symbols = source.embedding.weight[: source.vocab_size] if symbols is None else symbols
        source = source.recurrent
    source = source.cell if isinstance(source, RecurrentTransition) else source
    weights = gate_weights(source)
    weights.pop("candidate", None)
    if gate not in weights:
        raise ValueError(
            f'to_pomdp: found no gate "{gate}" in a {type(source).__name__}, expected one of '
            f'{[*weights]}; write to_pomdp(lstm, "forget").'
        )
    weight = weights[gate]
    if weight.dim() != 2:
        raise ValueError(
            f"to_pomdp: the recurrent matrix of a {type(source).__name__} depends on its input, so "
            "the policy is not all of what a symbol does; expected an LSTM or a GateRNN."
        )
    if symbols is None:
        size = int(getattr(source, "input_size", 0))
        symbols = torch.eye(size, device=weight.device, dtype=weight.dtype)
    evidence = read_gates(source, symbols.unsqueeze(0)).evidence[gate]
    start = source.start if isinstance(source, GateRNN) else torch.zeros_like(weight[0])
    return GatePOMDP(evidence.reshape(len(symbols), -1), weight.clone(), start.clone())
