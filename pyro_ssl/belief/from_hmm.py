"""From an HMM to the recurrent network whose update is its filter, exact where it can be.

The weights of a gate are those of ``filter.py``'s docstring; over measurements the evidence is that
of ``gaussian.py``.

Next file to read: ``gap.py``, how far a gate is from the filter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .filter import FilterRNN, GateRNN
from .gaussian import GaussianEmission, GaussianFilterRNN
from .parameters import check_hmm

__all__ = ["from_hmm"]


def from_hmm(
    matrix: Tensor, emission: Tensor | GaussianEmission, initial: Tensor | None = None
) -> GateRNN | FilterRNN | GaussianFilterRNN:
    r"""Return the recurrent network whose update is this HMM's filter, exact where it can be.

    With K = 2 states it is a :class:`GateRNN` of one unit, h = p(s = 1): exact at the first step,
    and wherever the last state is known; :func:`~pyro_ssl.belief.linear_gap` measures its error
    elsewhere. With more states it is a :class:`FilterRNN`, or a :class:`GaussianFilterRNN` over
    measurements, exact everywhere; for two states, write these yourself to have that. Over
    measurements the network reads ``emission.features(x)``, which is x where states share a scale.

    :param Tensor matrix: p(s_t = j | s_{t-1} = i) in row i, ``(K, K)``.
    :param emission: p(y_t = v | s_t = j) in row j, ``(K, V)``; or a :class:`GaussianEmission`.
    :param Tensor initial: p(s_1), ``(K,)``; by default the chain's stationary distribution.
    :raises ValueError: if they are no HMM, or if K = 2 and a probability is 0: a gate's weights
        are finite.

    Example::

        >>> from pyro_ssl.belief import exact_filter
        >>> T, O = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.7, 0.3], [0.1, 0.9]])
        >>> gate = from_hmm(T, O)
        >>> y = torch.eye(2)[torch.tensor([[1]])]              # (T, N, V)
        >>> gate.sequence(y)[0].item() == exact_filter(T, O, None, y.argmax(-1)).filtered[0, 0, 1]
        tensor(True)
    """
    if isinstance(emission, GaussianEmission):
        table = emission.loc.new_ones(len(emission.loc), 1)  # what all states have in common
        evidence, offset = emission.evidence()
    else:
        table, evidence, offset = emission, emission.log(), torch.zeros_like(emission[:, 0])
    initial = check_hmm(matrix, table, initial, "from_hmm")
    if len(matrix) != 2:
        if isinstance(emission, GaussianEmission):
            return GaussianFilterRNN(matrix, emission, initial)
        return FilterRNN(matrix, emission, initial)
    if bool((matrix <= 0).any()) or bool((table <= 0).any()) or bool((initial <= 0).any()):
        raise ValueError(
            "from_hmm: found a probability of 0, expected positive ones for two states, since the "
            "weights of a gate are log-odds; write FilterRNN(matrix, emission, initial), which "
            "takes zeros, or mix in a little of the uniform distribution."
        )
    logit = matrix[:, 1].log() - matrix[:, 0].log()  # of T_01 and T_11
    slope = logit[1] - logit[0]
    # Before the first symbol the prior is p(s_1): h_0 is where the line takes that value.
    rise = initial[1].log() - initial[0].log() - logit[0]
    if bool((slope == 0) & (rise.abs() > 1e-6)):
        raise ValueError(
            "from_hmm: the rows of the matrix are the same, so the gate has one prior at every "
            f"step; found initial={initial.tolist()}, expected {matrix[0].tolist()}; leave "
            "initial out."
        )
    gate = GateRNN(evidence.shape[1], 1, device=matrix.device, dtype=matrix.dtype)
    with torch.no_grad():
        gate.weight_hh.copy_(slope)
        gate.weight_ih.copy_(evidence[1] - evidence[0])
        gate.bias.copy_(logit[0] + offset[1] - offset[0])
        gate.start.copy_(torch.where(slope == 0, 0.0, rise / slope))
    return gate
