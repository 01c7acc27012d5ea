"""How many topics: by the perplexity of text that no model learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..arguments import at_least, hides_progbar
from .topical import TopicalSSL

__all__ = ["NumTopics", "choose_num_topics"]


class NumTopics(NamedTuple):
    """What :func:`choose_num_topics` found.

    ``candidates`` are the numbers of topics, ``perplexity`` float64 ``(N, S)`` the validation
    perplexity of each in each of S fits, and ``best`` the number whose mean logarithm is lowest.
    """

    candidates: tuple[int, ...]
    perplexity: Tensor
    best: int


def choose_num_topics(
    candidates: Sequence[int],
    vocabulary: Sequence[str] | int,
    words: Tensor,
    lengths: Tensor | None = None,
    *,
    valid: tuple[Any, ...],
    seeds: Sequence[int] = (0,),
    options: Mapping[str, Any] | None = None,
    disable_progbar: bool | None = None,
    **fit: Any,
) -> NumTopics:
    """Fit a :class:`TopicalSSL` for each number of topics, and compare their best epochs.

    Perplexities are of whole documents, from an estimate of the evidence, which a twisted filter
    makes nearly exact at every number of topics; more topics are not flattered.

    :param candidates: numbers of topics.
    :param vocabulary: as :class:`TopicalSSL` takes it.
    :param Tensor words: int64 ``(T, B)``, to learn from, with their ``lengths`` ``(B,)``.
    :param valid: ``(words, lengths)`` or ``(words, lengths, start)`` to compare by.
    :param seeds: one fit of each for each seed; random generators are left as they were.
    :param options: further arguments of :class:`TopicalSSL`; of priors of words those that fit
        every number of topics: ``anchors``, or a ``concentration`` ``(V,)``.
    :param bool disable_progbar: hide the progress bar; by default where ``CI`` is set.
    :param fit: further arguments of :meth:`TopicalSSL.fit`.
    :raises ValueError: if there is no candidate or no seed, or one is no whole number.

    Example::

        >>> words = torch.randint(9, (6, 20))
        >>> how = {"markov_steps": 5, "transition_steps": 5, "disable_progbar": True}
        >>> chosen = choose_num_topics([2, 3], 9, words, valid=(words[:, :5],), num_epochs=1, **how)
        >>> chosen.perplexity.shape, chosen.best in (2, 3)
        (torch.Size([2, 1]), True)
    """
    for name, given, least in (("candidates", candidates, 1), ("seeds", seeds, 0)):
        if not len(given) or not at_least(least, *given):
            raise ValueError(
                f"choose_num_topics: {name} are {list(given)}, expected whole numbers of {least} "
                f"or more; write {name}={[least, least + 1]}."
            )
    for K in candidates:  # what does not fit one of them is told before any is fitted
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            TopicalSSL(K, vocabulary, **(options or {}))
    found = torch.empty(len(candidates), len(seeds), dtype=torch.float64, device="cpu")
    cells = [(i, j) for j in range(len(seeds)) for i in range(len(candidates))]
    bar = tqdm(cells, desc="topics", unit="fit", disable=hides_progbar(disable_progbar))
    for i, j in bar:
        bar.set_postfix_str(f"K={candidates[i]}")
        with torch.random.fork_rng():
            torch.manual_seed(seeds[j])
            model = TopicalSSL(candidates[i], vocabulary, **(options or {}))
            model = model.to(words.device) if isinstance(words, Tensor) else model
            history = model.fit(words, lengths, valid=valid, disable_progbar=True, **fit)
        found[i, j] = min(record.score for record in history)
    best = candidates[int(found.log().mean(1).argmin())]
    return NumTopics(tuple(candidates), found, best)
