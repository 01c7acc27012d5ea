"""Topics as a person reads them: the likeliest words, and how much of the text is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Topic", "list_topics", "state_shares"]


@dataclass(frozen=True)
class Topic:
    """One topic: its most probable words with their probabilities, and its share of the words."""

    index: int
    words: list[str]
    probs: list[float]
    occupancy: float


def list_topics(
    phi: Tensor, occupancy: Tensor, vocabulary: Sequence[str], num_words: int
) -> list[Topic]:
    """Return the topics by falling occupancy.

    :param Tensor phi: p(word | topic), ``(K, V)``.
    :param Tensor occupancy: share of the words in each topic, ``(K,)``.
    :param int num_words: how many words of each topic.

    Example::

        >>> phi, occupancy = torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([0.25, 0.75])
        >>> list_topics(phi, occupancy, ["a", "b"], 1)[1]
        Topic(index=0, words=['a'], probs=[0.75], occupancy=0.25)
    """
    probs, words = phi.topk(min(num_words, len(vocabulary)), -1)
    return [
        Topic(k, [vocabulary[v] for v in words[k].tolist()], probs[k].tolist(), float(occupancy[k]))
        for k in occupancy.argsort(descending=True).tolist()
    ]


def state_shares(z: Tensor, num_states: int, dtype: torch.dtype) -> Tensor:
    """Return the share of draws that each state has, ``(S, ...)`` to ``(..., K)``.

    Example::

        >>> state_shares(torch.tensor([[0], [1], [1], [1]]), 2, torch.float32)
        tensor([[0.2500, 0.7500]])
    """
    counts = torch.zeros(*z.shape[1:], num_states, device=z.device, dtype=dtype)
    one = torch.ones(*z.shape[1:], 1, device=z.device, dtype=dtype)
    for path in z:
        counts.scatter_add_(-1, path.unsqueeze(-1), one)
    return counts / len(z)  # after counting: a sum of shares may exceed 1
