r"""A recurrent network whose update *is* an HMM's filter: the oracle of this package.

The filter of an HMM with transition matrix T and emission O is

.. math:: b_t(j) \propto O_{j y_t} \sum_i T_{ij}\, b_{t-1}(i).

With two states, write h for b(1). In log-odds the evidence is linear in a one-hot y_t, and the
prior is linear in h_{t-1} *where h_{t-1} is 0 or 1*, that is, where the last state is known:

.. math::
    \operatorname{logit} h_t = \underbrace{W_h h_{t-1} + b}_{\text{prior}} +
    \underbrace{W_y y_t}_{\text{evidence}}, \quad
    W_h = \operatorname{logit} T_{11} - \operatorname{logit} T_{01}, \;
    b = \operatorname{logit} T_{01}, \; W_y[v] = \log (O_{1v} / O_{0v}).

That is the gate of an LSTM (Rodu & Sedoc 2019, "Towards Understanding LSTM Networks", HMI talk):
an exact posterior given the last state, an approximation given a belief. ``gap.py`` measures the
error; :class:`FilterRNN` is the filter itself, which is of second order in (h, y).

Next files to read: ``from_hmm.py``; ``gap.py``; ``hmm.py``, the way back from a network to an HMM.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..cells import RecurrentCell
from ..exact.chains import markov_filter
from .parameters import check_hmm, check_symbols

__all__ = [
    "BeliefCell",
    "ExactFilter",
    "FilterRNN",
    "FilterState",
    "GateRNN",
    "GateState",
    "exact_filter",
]


class GateState(NamedTuple):
    """``h`` ``(..., k)``, the belief of each unit."""

    h: Tensor


class GateRNN(RecurrentCell):
    """h_t = sigmoid(W_h h_{t-1} + W_y y_t + b): one gate, and nothing else.

    It is a cell, so that :class:`~pyro_ssl.transitions.RecurrentTransition` takes it.

    :param int input_size: I, size of y_t; for one-hot symbols, their number V.
    :param int hidden_size: k, the number of units.
    :param device: of the parameters, as torch's own modules take it.
    :param dtype: likewise.

    ``weight_hh`` is W_h ``(k, k)``, ``weight_ih`` W_y ``(k, I)``, ``bias`` b ``(k,)``, and the
    buffer ``start`` h_0 ``(k,)``, zero at first.

    Example::

        >>> gate = GateRNN(input_size=5, hidden_size=3)
        >>> h, state = gate.sequence(torch.randn(7, 2, 5))     # (T, N, I)
        >>> h.shape
        torch.Size([7, 2, 3])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        k, reach = self.hidden_size, 1.0 / math.sqrt(self.hidden_size)
        zeros = torch.zeros(k, device=device, dtype=dtype)
        self.weight_hh = nn.Parameter(zeros.new_empty(k, k).uniform_(-reach, reach))
        self.weight_ih = nn.Parameter(zeros.new_empty(k, self.input_size).uniform_(-reach, reach))
        self.bias = nn.Parameter(zeros.clone())
        self.start: Tensor
        self.register_buffer("start", zeros)

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> GateState:
        """Return h_0, ``batch_shape + (k,)``."""
        return GateState(self.start.expand(*batch_shape, self.hidden_size))

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return W_y and b; see the base class."""
        return self.weight_ih, self.bias

    def advance(self, projected: Tensor, state: GateState) -> GateState:
        """One step over any leading dimensions; see the base class."""
        return GateState(torch.sigmoid(projected + state.h @ self.weight_hh.T))


class FilterState(NamedTuple):
    """``h`` ``(..., K)`` is the belief p(s_t | y_{1:t}), ``predicted`` p(s_{t+1} | y_{1:t})."""

    h: Tensor
    predicted: Tensor


class BeliefCell(RecurrentCell):
    """A filter as a cell: its projected input is the evidence of each state.

    ``start`` ``(K,)`` is p(s_1), ``matrix`` ``(K, K)`` the chain's.
    """

    matrix: Tensor
    start: Tensor

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> FilterState:
        """Return p(s_1), the prediction before any symbol."""
        start = self.start.expand(*batch_shape, self.hidden_size)
        return FilterState(start, start)

    def advance(self, projected: Tensor, state: FilterState) -> FilterState:
        """One step over any leading dimensions; see the base class."""
        h = (projected + state.predicted.log()).softmax(-1)
        return FilterState(h, h @ self.matrix)


class FilterRNN(BeliefCell):
    r"""The exact filter of an HMM of K states as a cell over one-hot symbols.

    .. math:: h_t = \operatorname{softmax}(\log O\, y_t + \log T^\top h_{t-1})

    The input map is linear, log O, but the softmax makes a product of it and T'h: the network is of
    second order in (h, y), unlike any sum W_h h + W_y y (cf. Rabusseau, Li & Precup 2019, arXiv
    1807.01406). It has no parameters, only the buffers ``start`` ``(K,)``, ``matrix`` ``(K, K)``
    and ``emission`` ``(K, V)``.

    :param Tensor matrix: p(s_t = j | s_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor emission: p(y_t = v | s_t = j) in row j, ``(K, V)``.
    :param Tensor initial: p(s_1), ``(K,)``; by default the chain's stationary distribution.

    Example::

        >>> filter = FilterRNN(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.eye(2))
        >>> h, state = filter.sequence(torch.eye(2)[torch.tensor([[0], [1], [1]])])
        >>> h[:, 0].round().tolist(), state.predicted
        ([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], tensor([[0.2000, 0.8000]]))
    """

    def __init__(self, matrix: Tensor, emission: Tensor, initial: Tensor | None = None) -> None:
        initial = check_hmm(matrix, emission, initial, "FilterRNN")
        super().__init__(emission.shape[1], len(matrix))
        self.emission: Tensor
        for name, value in (("matrix", matrix), ("emission", emission), ("start", initial)):
            self.register_buffer(name, value)

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return log O and a bias of 0; see the base class.

        Where O is 0, the logarithm is that of the smallest float and not -inf, which the zeros of a
        one-hot would turn into NaN.
        """
        floor = torch.finfo(self.emission.dtype).tiny
        return self.emission.clamp(min=floor).log(), torch.zeros_like(self.start)


class ExactFilter(NamedTuple):
    """Beliefs and predictions at every step.

    ``filtered`` ``(T, B, K)`` is p(s_t | y_{1:t}), ``predicted`` ``(T, B, K)`` p(s_t | y_{1:t-1}),
    ``log_likelihood`` ``(T, B)`` log p(y_t | y_{1:t-1}), and ``log_predictive`` ``(T, B, V)`` the
    same of every symbol.
    """

    filtered: Tensor
    predicted: Tensor
    log_likelihood: Tensor
    log_predictive: Tensor


@torch.no_grad()
def exact_filter(
    matrix: Tensor,
    emission: Tensor,
    initial: Tensor | None,
    y: Tensor,
    lengths: Tensor | None = None,
) -> ExactFilter:
    """Filter symbols under an HMM, by the forward algorithm.

    :param Tensor matrix: p(s_t = j | s_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor emission: p(y_t = v | s_t = j) in row j, ``(K, V)``.
    :param Tensor initial: p(s_1), ``(K,)``; ``None``: the chain's stationary distribution.
    :param Tensor y: int64 ``(T, B)``, at least one step.
    :param Tensor lengths: ``(B,)``; past them ``log_likelihood`` is 0, the rest means nothing.

    Example::

        >>> T, O = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.7, 0.3], [0.1, 0.9]])
        >>> exact_filter(T, O, None, torch.tensor([[0], [1], [1]])).filtered[0, 0]
        tensor([0.9333, 0.0667])
    """
    initial = check_hmm(matrix, emission, initial, "exact_filter")
    y, _ = check_symbols(y, lengths, emission.shape[1], "exact_filter")
    filtered, log_p = markov_filter(initial, matrix, emission.T.log()[y], lengths)
    first = initial.expand(1, *filtered.shape[1:])
    predicted = torch.cat([first, filtered[:-1] @ matrix])
    return ExactFilter(filtered, predicted, log_p, (predicted @ emission).log())
