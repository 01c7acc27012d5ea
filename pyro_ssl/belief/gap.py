r"""How much a gate loses by being linear in the belief, where an HMM's filter is not.

Read ``filter.py`` first, which makes the gate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import whole
from .filter import GateRNN, exact_filter
from .from_hmm import from_hmm
from .parameters import check_hmm, check_symbols

__all__ = ["LinearGap", "linear_gap"]


class LinearGap(NamedTuple):
    """How far a gate's linear prior log-odds are from the exact filter's, for two states.

    Over beliefs h = p(s_{t-1} = 1): ``belief`` ``(N,)`` from 0 to 1, ``exact`` and ``linear``
    ``(N,)`` log-odds of s_t = 1. Along sequences, where they were given: ``exact_path`` and
    ``gate_path`` ``(T, B)``, p(s_t = 1 | y_{1:t}) by the filter and by the gate, which feeds its
    own approximate belief back.
    """

    belief: Tensor
    exact: Tensor
    linear: Tensor
    exact_path: Tensor | None
    gate_path: Tensor | None

    @property
    def gap(self) -> Tensor:
        """Linear minus exact log-odds, ``(N,)``: 0 at both ends."""
        return self.linear - self.exact

    @property
    def path_kl(self) -> Tensor:
        """KL of the gate's belief from the filter's at each step, nats, ``(T, B)``.

        :raises ValueError: if no sequences were given.
        """
        if self.exact_path is None or self.gate_path is None:
            raise ValueError(
                "LinearGap.path_kl: no sequences were given; write "
                "linear_gap(matrix, emission, y=y) with y int64 (T, B)."
            )
        p, q = self.exact_path, self.gate_path
        return torch.special.xlogy(p, p / q) + torch.special.xlogy(1 - p, (1 - p) / (1 - q))


@torch.no_grad()
def linear_gap(
    matrix: Tensor,
    emission: Tensor,
    initial: Tensor | None = None,
    y: Tensor | None = None,
    *,
    num_points: int = 101,
) -> LinearGap:
    r"""Measure how far a two-state HMM's gate is from its filter.

    The gate is that of :func:`from_hmm`. The exact prior log-odds of a belief h are

    .. math:: \log \frac{T_{01} (1 - h) + T_{11} h}{T_{00} (1 - h) + T_{10} h},

    the gate's are the chord between h = 0 and h = 1. Along sequences errors add up, since the gate
    feeds its own belief back: for a chain that seldom moves W_h exceeds 4, and a gate that steep
    may stay in a state that the filter has left.

    :param Tensor matrix: ``(2, 2)``.
    :param Tensor emission: ``(2, V)``.
    :param Tensor initial: p(s_1), ``(2,)``; by default the chain's stationary distribution.
    :param Tensor y: int64 ``(T, B)``, sequences along which to compare the two.
    :param int num_points: N, beliefs from 0 to 1.
    :raises ValueError: if there are more than two states.

    Example::

        >>> T, O = torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([[0.7, 0.3], [0.2, 0.8]])
        >>> gap = linear_gap(T, O, y=torch.tensor([[0], [1], [1]]))
        >>> round(float(gap.gap.abs().max()), 2), gap.path_kl.shape
        (0.28, torch.Size([3, 1]))
    """
    num_points = whole("linear_gap", "num_points", num_points, 1)
    check_hmm(matrix, emission, initial, "linear_gap")
    if y is not None:
        check_symbols(y, None, emission.shape[1], "linear_gap")
    gate = from_hmm(matrix, emission, initial)
    if not isinstance(gate, GateRNN):
        raise ValueError(
            f"linear_gap: found {len(matrix)} states, expected 2; for more, from_hmm gives the "
            "exact filter, which has no gap."
        )
    h = torch.linspace(0.0, 1.0, num_points, device=matrix.device, dtype=matrix.dtype)
    prior = torch.stack([1.0 - h, h], -1) @ matrix  # (N, 2)
    linear = gate.weight_hh[0, 0] * h + gate.bias[0]
    exact_path = gate_path = None
    if y is not None:
        exact_path = exact_filter(matrix, emission, initial, y).filtered[..., 1]
        one_hot = F.one_hot(y, emission.shape[1]).to(matrix.dtype)
        gate_path = gate.sequence(one_hot)[0][..., 0]
    return LinearGap(h, prior[:, 1].log() - prior[:, 0].log(), linear, exact_path, gate_path)
