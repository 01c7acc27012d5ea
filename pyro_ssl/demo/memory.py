r"""Where the memory shows: two histories with the same last topic, and what is expected after each.

A Markov chain looks at the last topic alone, so it predicts the same after both. An LSTM need not.
How far two predictions p and q of the next topic are from each other is their total variation,

.. math:: \tfrac{1}{2} \sum_k |p_k - q_k|, \quad \text{from 0 (equal) to 1 (no topic in common)}:

the share of probability that has to be moved to make the one the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..datasets import TextBatch
from ..models import TopicalSSL
from ..models.topics import matched
from .marked import Passage

__all__ = ["Memory", "Pair", "markov_row", "most_different", "remember"]

_ROWS = 512  # of a table of distances, at a time


class Pair(NamedTuple):
    """Two histories with the same last topic whose predictions differ most.

    A history is ``path[b, :t]`` with the ``b`` of ``documents`` and the ``t`` of ``steps``, and
    ends in ``topic``. ``distance`` is the total variation of its two predictions, ``typical`` the
    mean over all ``num_pairs`` pairs of histories that have their last topic in common.
    """

    topic: int
    documents: tuple[int, int]
    steps: tuple[int, int]
    distance: float
    typical: float
    num_pairs: int


class Memory(NamedTuple):
    """A pair as a reader sees it.

    ``passages`` are the last words of both histories, and as their last the word that came next;
    ``predicted`` is what the LSTM expected there, ``(2, K)``, and ``markov`` what an HMM does,
    ``(K,)``.
    """

    pair: Pair
    passages: tuple[Passage, Passage]
    predicted: Tensor
    markov: Tensor

    def likeliest(self, num_topics: int = 6) -> list[int]:
        """Return the topics that any of the three expects most, by falling probability."""
        most = torch.cat([self.predicted, self.markov.unsqueeze(0)]).amax(0)
        return most.topk(min(num_topics, len(most))).indices.tolist()


def remember(ssl: TopicalSSL, batch: TextBatch, probs: Tensor, num_words: int = 9) -> Memory | None:
    """Find where a fitted model's memory shows most, given the likeliest topics of documents.

    :param Tensor probs: p(z_t = k | x_{1:T}), ``(T, B, K)``, as :meth:`TopicalSSL.transform` gives.
    :param int num_words: of each history, the last; so many are the least that a history has.
    :returns: None where no two histories have their last topic in common.
    """
    path = probs.argmax(-1).T
    with torch.no_grad():
        predicted = ssl.transition.path_logits(path).softmax(-1)
    pair = most_different(path, predicted, batch.mask.T, at_least=num_words)
    if pair is None:
        return None
    places = list(zip(pair.documents, pair.steps, strict=True))
    one, other = (
        Passage(
            [ssl.vocabulary[v] for v in batch.words[t - num_words : t + 1, b].tolist()],
            probs[t - num_words : t + 1, b],
        )
        for b, t in places
    )
    both = torch.stack([predicted[b, t] for b, t in places])
    return Memory(pair, (one, other), both, markov_row(ssl, pair.topic))


def most_different(
    path: Tensor, predicted: Tensor, active: Tensor, *, at_least: int
) -> Pair | None:
    """Find the two histories with the same last topic whose predictions differ most.

    :param Tensor path: topics, int64 ``(B, T)``.
    :param Tensor predicted: p(z_t = k | z_{1:t-1}), ``(B, T, K)``.
    :param Tensor active: where a word stands, bool ``(B, T)``.
    :param int at_least: topics in a history; one word comes after it.
    :returns: the first of those that differ as much, None where there is no such pair.

    Example::

        >>> path = torch.tensor([[0, 1, 0], [1, 1, 1]])
        >>> predicted = torch.tensor([[[0.5, 0.5]] * 2 + [[0.9, 0.1]], [[0.5, 0.5]] * 3])
        >>> pair = most_different(path, predicted, path >= 0, at_least=2)
        >>> pair.topic, pair.documents, pair.steps, round(pair.distance, 2)
        (1, (0, 1), (2, 2), 0.4)
    """
    documents, steps = active[:, at_least:].nonzero(as_tuple=True)
    steps = steps + at_least
    last, following = path[documents, steps - 1], predicted[documents, steps]
    best, found = -1.0, (0, 0)
    total, num_pairs = 0.0, 0
    for k in range(predicted.shape[-1]):
        (index,) = (last == k).nonzero(as_tuple=True)
        for i, j, apart in _distances(following[index]):
            total += float(apart.double().sum())
            num_pairs += len(apart)
            if len(apart) and float(apart.max()) > best:
                most = int(apart.argmax())
                best, found = float(apart[most]), (int(index[i[most]]), int(index[j[most]]))
    if not num_pairs:
        return None
    one, other = found
    return Pair(
        topic=int(last[one]),
        documents=(int(documents[one]), int(documents[other])),
        steps=(int(steps[one]), int(steps[other])),
        distance=best,
        typical=total / num_pairs,
        num_pairs=num_pairs,
    )


def markov_row(ssl: TopicalSSL, topic: int) -> Tensor:
    """Return what the HMM that a fit started from expects after a topic, ``(K,)``.

    Its states are taken for the topics that their words are nearest to.
    """
    assert ssl.markov is not None and ssl.phi is not None
    order = matched(ssl.phi, ssl.markov.values["phi"])
    return ssl.markov.matrix[order[topic]][order]


def _distances(probs: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Total variations of all pairs i < j, some rows at a time, with their i and j."""
    columns = torch.arange(len(probs), device=probs.device)
    for rows in columns.split(_ROWS):
        i, j = (rows.unsqueeze(1) < columns).nonzero(as_tuple=True)
        yield rows[i], j, torch.cdist(probs[rows], probs, p=1.0)[i, j] / 2
