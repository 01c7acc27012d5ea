r"""Where topics stand on a map, and which words are to be shown of each.

Places are by classical multidimensional scaling (Torgerson 1952) of the Jensen–Shannon distances
(square roots of divergences) of the topics' words, as in LDAvis (Sievert & Shirley 2014).

Next file to read: ``topic_page.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..models.topics import divergences, list_topics

__all__ = ["RELEVANCES", "Words", "places", "shown_words"]

#: λ where the page's slider stops
RELEVANCES = [i / 20 for i in range(21)]


def places(phi: Tensor) -> tuple[np.ndarray, float]:
    """Return where each topic stands, ``(K, 2)``, and the share of squared distances kept there.

    Axes are those of the largest spread; of each, the topic that is farthest out is on the
    positive side, so that a map does not turn over.

    Example::

        >>> at, kept = places(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> at.round(3).tolist(), round(kept, 3)
        ([[0.5, 0.0], [-0.5, 0.0]], 1.0)
    """
    square = divergences(phi).numpy(force=True)  # of distances
    K = len(square)
    centred = np.eye(K) - 1.0 / K
    values, vectors = np.linalg.eigh(-0.5 * centred @ square @ centred)
    values = values.clip(min=0.0)[::-1]
    at = np.zeros((K, 2))
    for axis in range(min(K, 2)):
        one = vectors[:, K - 1 - axis] * np.sqrt(values[axis])
        # Of some that are as far out, up to rounding, the first.
        farthest = (np.abs(one) >= (1.0 - 1e-9) * np.abs(one).max()).argmax()
        at[:, axis] = one * (np.sign(one[farthest]) or 1.0) + 0.0
    total = float(values.sum())
    return at, float(values[:2].sum() / total) if total > 0 else 1.0


class Words(NamedTuple):
    """Words of a topic, ``ids``, with their p(word | topic) and p(word), as long as one another."""

    ids: list[int]
    probs: list[float]
    overall: list[float]


def shown_words(
    phi: Tensor,
    occupancy: Tensor,
    vocabulary: Sequence[str],
    num_words: int,
    leave_out: Collection[str] = (),
) -> list[Words]:
    """Return for each topic all words that are among the first at one of :data:`RELEVANCES`.

    Example::

        >>> phi = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]])
        >>> shown_words(phi, torch.ones(2) / 2, ["a", "b", "c"], 1)[1].ids
        [0, 2]
    """
    ids = {word: v for v, word in enumerate(vocabulary)}
    found: list[set[int]] = [set() for _ in phi]
    for relevance in RELEVANCES:
        for topic in list_topics(phi, occupancy, vocabulary, num_words, relevance, leave_out):
            found[topic.index] |= {ids[word] for word in topic.words}
    p = phi.double()
    overall = occupancy.double() @ p
    each = [torch.tensor(sorted(words), dtype=torch.long, device=p.device) for words in found]
    return [Words(v.tolist(), p[k, v].tolist(), overall[v].tolist()) for k, v in enumerate(each)]
