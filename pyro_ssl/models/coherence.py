r"""How well the words of a topic hold together: normalised pointwise mutual information.

.. math::
    \mathrm{NPMI}(v, w) = \frac{\log \frac{p(v, w)}{p(v) p(w)}}{-\log p(v, w)} \in [-1, 1],

p(v, w) being the share of documents that have both words (Bouma 2009; Aletras & Stevenson 2013;
Röder, Both & Hinneburg 2015). A topic's coherence is the mean over the pairs of its words: 0 where
they meet as by chance, -1 where they never do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["npmi"]


def npmi(topics: Sequence[Sequence[int]], words: Tensor, active: Tensor) -> Tensor:
    """Return the mean NPMI over the pairs of each topic's words, float64 ``(K,)``.

    A pair that never meets counts -1, one that meets in every document 0: it says nothing. NaN for
    a topic of fewer than two words.

    :param topics: word ids of each topic.
    :param Tensor words: documents, int64 ``(T, B)``.
    :param Tensor active: where a word stands, bool ``(T, B)``.

    Example::

        >>> words = torch.tensor([[0, 0, 2, 3], [1, 1, 3, 2]])
        >>> npmi([[0, 1], [0, 2]], words, torch.ones_like(words) > 0)
        tensor([ 1., -1.], dtype=torch.float64)
    """
    wanted = sorted({v for topic in topics for v in topic})
    place = {v: i for i, v in enumerate(wanted)}
    has = torch.stack([((words == v) & active).any(0) for v in wanted]).double()  # (N, B)
    p = has.mean(1)
    both = has @ has.T / has.shape[1]  # (N, N)
    pmi = (both / (p.unsqueeze(0) * p.unsqueeze(1))).log() / -both.log()
    pmi = torch.where(both > 0, torch.where(both < 1, pmi, 0.0), -1.0)
    means = []
    for topic in topics:
        index = torch.tensor([place[v] for v in topic], device=words.device)
        i, j = torch.triu_indices(len(topic), len(topic), 1, device=words.device)
        means.append(pmi[index[i], index[j]].mean())
    return torch.stack(means)
