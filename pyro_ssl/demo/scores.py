"""What the demonstration measures.

How different topics are, by two figures: the Jensen–Shannon divergence of two topics, averaged over
pairs; and how many of the topics' likeliest words belong to one topic alone. Neither is 0 for
topics that differ by chance alone, so both are also computed for such topics.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models import TopicalSSL
from ..models.topics import divergences

__all__ = [
    "Difference",
    "perplexity",
    "perplexity_of_probs_as_logits",
    "same_topics",
    "score_aside",
    "topic_difference",
    "typical_words",
    "unigram_probs",
]


class Difference(NamedTuple):
    """How different topics are.

    ``divergence``: mean Jensen–Shannon divergence of two of them in bits, pairs weighted by their
    occupancy. ``unique``: share of the topics' likeliest words that only one topic has.
    """

    divergence: float
    unique: float


def unigram_probs(words: Tensor, vocab_size: int) -> Tensor:
    """Return each word's share of the text, every count plus one, ``(V,)`` float64."""
    counts = torch.bincount(words.flatten(), minlength=vocab_size).double() + 1.0
    return counts / counts.sum()


def perplexity(log_p: Tensor) -> float:
    """Return exp(-mean log p)."""
    return math.exp(-float(log_p.double().mean()))


def perplexity_of_probs_as_logits(log_p: Tensor, vocab_size: int) -> float:
    r"""Return the figure that results if probabilities are taken for logits: not a perplexity.

    A softmax over V probabilities is nearly flat, since :math:`\sum_v e^{p_v} \approx V + 1`; so
    the figure, :math:`(V + 1)\, e^{-\overline{p}}` with the mean probability of the words that
    came, is close to V for every model.

    **Example**: a model that gives each of 5,000 words the same probability, and one that is
    right half of the time and gives the word probability 1 then::

        >>> round(perplexity_of_probs_as_logits(torch.full((10,), 1 / 5000).log(), 5000))
        5000
        >>> round(perplexity_of_probs_as_logits(torch.tensor([1.0, 1e-9]).log(), 5000))
        3033
    """
    return (vocab_size + 1) * math.exp(-float(log_p.double().exp().mean()))


def score_aside(ssl: TopicalSSL, *args: Any, **kwargs: Any) -> float:
    """Return :meth:`TopicalSSL.perplexity` during a fit, without a change to its random numbers."""
    with torch.random.fork_rng(devices=[]):
        return ssl.perplexity(*args, **kwargs)


def topic_difference(phi: Tensor, occupancy: Tensor, num_words: int = 10) -> Difference:
    """Measure how different topics are.

    :param Tensor phi: p(word | topic), ``(K, V)``.
    :param Tensor occupancy: share of the words in each topic, ``(K,)``.
    :param int num_words: how many of the likeliest words of each topic to compare.

    **Example**::

        >>> topic_difference(torch.eye(4), torch.ones(4) / 4, num_words=1)
        Difference(divergence=1.0, unique=1.0)
    """
    weight = occupancy.double()
    total = (weight.unsqueeze(-1) * weight * divergences(phi)).triu(1).sum()
    pairs = (weight.sum() ** 2 - (weight**2).sum()) / 2
    likeliest = phi.topk(min(num_words, phi.shape[1])).indices.flatten()
    appearances = torch.bincount(likeliest)[likeliest]
    return Difference(float(total / pairs), float((appearances == 1).double().mean()))


def same_topics(
    word_probs: Tensor, occupancy: Tensor, num_tokens: int, concentration: float
) -> Tensor:
    """Estimate topics that differ by chance alone, each from words drawn from one unigram.

    :param Tensor word_probs: ``(V,)``.
    :param Tensor occupancy: ``(K,)``; topic k sees ``occupancy[k] * num_tokens`` words.
    :param float concentration: β of the Dirichlet prior, as in the fit.
    :returns: posterior means, ``(K, V)``.
    """
    rows = []
    for share in occupancy.tolist():
        draws = torch.multinomial(word_probs, max(round(share * num_tokens), 1), replacement=True)
        counts = torch.bincount(draws, minlength=len(word_probs)).double() + concentration
        rows.append(counts / counts.sum())
    return torch.stack(rows)


def typical_words(phi: Tensor, occupancy: Tensor, num_words: int = 6) -> Tensor:
    """Return the words that set each topic apart, by p(v | k) log p(v | k) / p(v): ``(K, N)``."""
    share = occupancy / occupancy.sum()
    score = phi * (phi / (share @ phi)).log()
    return score.topk(min(num_words, phi.shape[1])).indices
