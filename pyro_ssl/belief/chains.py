"""Transitions that are Markov chains, over their own states or over more: what ``to_hmm`` makes.

* a :class:`MarkovTransition` is one;
* a :class:`SemiMarkovTransition` is one over (z, how long it has lasted);
* a :class:`ProductTransition` of these, a factorial model, is one over the tuples of their states.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_tensor
from ..transitions import MarkovTransition, ProductTransition, SemiMarkovTransition, Transition

__all__ = ["CHAINS", "chain_of", "tables_of"]

#: the transitions that :func:`chain_of` takes
CHAINS = (MarkovTransition, SemiMarkovTransition, ProductTransition)


@torch.no_grad()
def tables_of(source: Transition, emission: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return a chain's first distribution, its matrix, and the emission of each of its states.

    :param Tensor emission: p(x | z) in row z, ``(K, V)``; by default the symbols are the states z.
    :raises ValueError: if it has not one row for each state z.
    """
    initial, matrix, state = chain_of(source)
    K = int(state[-1]) + 1
    if emission is None:
        return initial, matrix, F.one_hot(state, K).to(matrix)
    check_tensor(
        "to_hmm",
        "emission",
        emission,
        (K, "V"),
        like=matrix,
        write="emission with one row for each state",
    )
    return initial, matrix, emission[state]


@torch.no_grad()
def chain_of(source: Transition) -> tuple[Tensor, Tensor, Tensor]:
    """Return a chain's first distribution ``(N,)``, its matrix ``(N, N)``, and z of its states.

    :raises ValueError: if it reads inputs.
    :raises TypeError: if a part of a product is none of :data:`CHAINS`.

    Example::

        >>> both = ProductTransition([MarkovTransition(2), SemiMarkovTransition(2, 2)])
        >>> chain_of(both)[2]
        tensor([0, 0, 1, 1, 2, 2, 3, 3])
    """
    if source.input_size:
        raise ValueError(
            f"to_hmm: the chain reads {source.input_size} inputs per step, so it has no one "
            f"matrix; expected a {type(source).__name__} without inputs."
        )
    if isinstance(source, SemiMarkovTransition):
        initial, matrix, state = chain_of(source.expanded())
        return initial, matrix, state // source.max_duration
    if isinstance(source, MarkovTransition):
        initial, matrix = source.initial_logits.softmax(-1), source.transition_logits.softmax(-1)
        return initial, matrix, torch.arange(len(matrix), device=matrix.device)
    if not isinstance(source, ProductTransition):
        raise TypeError(
            f"to_hmm: one of several chains is a {type(source).__name__}, expected a "
            "MarkovTransition or a SemiMarkovTransition each; extract that one first: "
            "to_hmm(transition, z, num_states=16).transition."
        )
    parts: list[Any] = list(source.transitions)
    initial, matrix, state = chain_of(parts[0])
    for part, size in zip(parts[1:], source.sizes[1:], strict=True):
        more = chain_of(part)
        initial, matrix = torch.kron(initial, more[0]), torch.kron(matrix, more[1])
        state = (state.unsqueeze(-1) * size + more[2]).flatten()
    return initial, matrix, state
