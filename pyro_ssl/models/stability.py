"""How stable topics are: whether other fits find them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import at_least
from .topics import divergences, matched

__all__ = ["TopicStability", "topic_stability"]


class TopicStability(NamedTuple):
    """How the topics of one fit come back in others.

    ``matches`` int64 ``(S, K)`` are the topics of each other fit that stand for those of the first.
    ``similarity`` float64 ``(S, K)`` is 1 minus the Jensen–Shannon divergence in bits between the
    two, 1 where they are equal; ``overlap`` float64 ``(S, K)`` the Jaccard index of their likeliest
    words. ``mean_similarity`` and ``mean_overlap`` are over fits and words: topics count by their
    share.
    """

    matches: Tensor
    similarity: Tensor
    overlap: Tensor
    mean_similarity: float
    mean_overlap: float


def topic_stability(models: Sequence[Any], num_words: int = 10) -> TopicStability:
    """Compare the topics of a fit with those of others: from other seeds, or on other samples.

    A topic that most fits find is one of the text; what each fit finds anew is its own. As Greene,
    O'Callaghan & Cunningham 2014 ("How many topics? Stability analysis for topic models") do, by
    their agreement over likeliest words; topics are matched by their whole distributions, the
    nearest pairs first.

    :param models: two fitted models at least, :class:`~pyro_ssl.TopicalSSL` or estimators that have
        one, of one vocabulary and as many topics; the first is what others are compared with.
    :param int num_words: likeliest words of each topic that are compared.
    :raises ValueError: if there are fewer, or they do not fit one another.

    Example::

        >>> from pyro_ssl import TopicalSSL
        >>> words, models = torch.randint(9, (7, 12)), []
        >>> for seed in range(2):
        ...     models.append(TopicalSSL(3, 9, hidden_size=4))
        ...     _ = torch.manual_seed(seed)
        ...     how = {"markov_steps": 5, "transition_steps": 5, "disable_progbar": True}
        ...     _ = models[-1].fit(words, num_epochs=1, **how)
        >>> topic_stability(models, num_words=3).overlap.shape
        torch.Size([1, 3])
    """
    fits = [getattr(model, "model_", model) for model in models]
    if len(fits) < 2 or not at_least(1, num_words):
        raise ValueError(
            f"topic_stability: found {len(fits)} models and num_words={num_words}, expected two "
            "models at least, and a word; write topic_stability([first, second])."
        )
    phi, occupancy = fits[0]._fitted()
    for i, fit in enumerate(fits):
        if fit.vocabulary != fits[0].vocabulary or fit.num_topics != len(phi):
            raise ValueError(
                f"topic_stability: model {i} has {fit.num_topics} topics over "
                f"{len(fit.vocabulary)} words, expected {len(phi)} over the {phi.shape[1]} words "
                "of the first; fit all with one vocabulary and num_topics."
            )
    num_words = min(num_words, phi.shape[1])
    matches, similarity, overlap = [], [], []
    for fit in fits[1:]:
        other = fit._fitted()[0].to(phi)
        match = matched(phi, other)
        matches.append(match)
        similarity.append(1.0 - divergences(phi, other[match]).diagonal())
        shared = _first(phi, num_words) & _first(other[match], num_words)
        common = shared.sum(-1).double()
        overlap.append(common / (2 * num_words - common))
    alike, words, weight = torch.stack(similarity), torch.stack(overlap), occupancy.double()
    means = [float((each * weight).sum(-1).mean() / weight.sum()) for each in (alike, words)]
    return TopicStability(torch.stack(matches), alike, words, *means)


def _first(phi: Tensor, num_words: int) -> Tensor:
    """Whether a word is among the likeliest, bool ``(K, V)``."""
    return torch.zeros_like(phi, dtype=torch.bool).scatter(-1, phi.topk(num_words).indices, True)
