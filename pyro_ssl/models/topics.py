"""Topics as a person reads them: the likeliest words, and how much of the text is theirs."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..infer import MarkovEM

__all__ = [
    "Topic",
    "check_hmm",
    "check_shares",
    "divergences",
    "list_topics",
    "matched",
    "movement",
    "names_of",
]


@dataclass(frozen=True)
class Topic:
    """One topic: its first words with their probabilities, and its share of all words."""

    index: int
    words: list[str]
    probs: list[float]
    occupancy: float


def list_topics(
    phi: Tensor,
    occupancy: Tensor,
    vocabulary: Sequence[str],
    num_words: int,
    relevance: float = 1.0,
    leave_out: Collection[str] = (),
) -> list[Topic]:
    r"""Return the topics by falling occupancy, each with its words of the highest relevance

    .. math:: λ \log φ_{kw} + (1 - λ) \log (φ_{kw} / p_w), \qquad p_w = \sum_k s_k φ_{kw}

    (Sievert & Shirley 2014): at λ = 1 the likeliest words, at 0 those that tell it from the others.

    :param Tensor phi: p(word | topic), ``(K, V)``.
    :param Tensor occupancy: s, the share of the words in each topic, ``(K,)``.
    :param int num_words: how many words of each topic.
    :param float relevance: λ.
    :param leave_out: words that are not listed.

    Example::

        >>> phi, occupancy = torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([0.25, 0.75])
        >>> list_topics(phi, occupancy, ["a", "b"], 1)[1]
        Topic(index=0, words=['a'], probs=[0.75], occupancy=0.25)
        >>> list_topics(phi, occupancy, ["a", "b"], 1, relevance=0.0)[0].words
        ['b']
    """
    wide = phi.double()
    log_p = (occupancy.double() @ wide).log()
    left = set(leave_out)
    shown = [v for v, word in enumerate(vocabulary) if word not in left]
    kept = torch.tensor(shown, dtype=torch.long, device=phi.device)
    score = (wide.log() - (1.0 - relevance) * log_p)[:, kept]
    score = score.nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    words = kept[score.topk(min(num_words, len(kept)), -1).indices]
    probs = phi.gather(-1, words)
    return [
        Topic(k, [vocabulary[v] for v in words[k].tolist()], probs[k].tolist(), float(occupancy[k]))
        for k in occupancy.argsort(descending=True).tolist()
    ]


def names_of(vocabulary: Sequence[str] | int) -> list[str]:
    """Return the names of words in the order of their ids, of V numbers or of the words.

    :raises ValueError: if there is no word, or no order.

    Example::

        >>> names_of(3), names_of(["a", "b"])
        (['0', '1', '2'], ['a', 'b'])
    """
    try:
        words: Sequence[object] = range(operator.index(vocabulary))  # type: ignore[arg-type]
    except TypeError:
        words = vocabulary  # type: ignore[assignment]
    listed = hasattr(words, "__len__") and not isinstance(words, Mapping | Set | str | bytes)
    if not listed or len(words) == 0:
        found = repr(vocabulary) if isinstance(vocabulary, int | float) else type(vocabulary)
        raise ValueError(
            f"TopicalSSL: vocabulary is {found}, expected V, a whole number of 1 or more, or the "
            "words in the order of their ids; write sorted(ids, key=ids.get) for a dict of ids."
        )
    return [str(word) for word in words]


def check_hmm(markov: MarkovEM | None, num_topics: int, vocab_size: int) -> None:
    """Check that an HMM can be the start of a fit.

    :raises ValueError: if it is not fitted, or of other sizes.
    """
    if markov is None:
        return
    expected = (num_topics, vocab_size)
    phi = markov.values.get("phi") if isinstance(markov, MarkovEM) else None
    found = type(markov).__name__ if phi is None else tuple(phi.shape)
    if found != expected:
        raise ValueError(
            f"TopicalSSL.fit: markov has topics of shape {found}, expected a fitted MarkovEM with "
            f"{expected}; write markov=fit_markov(ssl.model, words), or leave it out."
        )


def check_shares(*shares: Tensor) -> None:
    """Check that rows are probabilities.

    :raises ValueError: if a number is negative, or a row's sum is not 1.
    """
    for value in shares:
        if bool((value < 0).any()) or bool(((value.double().sum(-1) - 1.0).abs() > 1e-3).any()):
            raise ValueError("shares that are negative or do not add up to 1")


def divergences(phi: Tensor, others: Tensor | None = None) -> Tensor:
    r"""Return the Jensen–Shannon divergence of each two topics in bits, float64 ``(K, K')``.

    .. math::
        \mathrm{JS}(p, q) = \mathrm{H}\bigl(\tfrac{p + q}{2}\bigr) - \tfrac{1}{2} \mathrm{H}(p)
        - \tfrac{1}{2} \mathrm{H}(q) \quad \text{from 0 (equal) to 1 (no word in common)}

    :param Tensor others: the second of the two, ``(K', V)``; by default the same.

    Example::

        >>> divergences(torch.eye(2)).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    p = phi.double()
    q = p if others is None else others.double()
    entropy, own = _entropy(q), _entropy(p)
    # One row of pairs at a time: (K', V), not (K, K', V).
    rows = [_entropy((row + q) / 2) - (own[k] + entropy) / 2 for k, row in enumerate(p)]
    found = torch.stack(rows).clamp(min=0.0, max=1.0)  # rounding may leave -1e-17
    return found.fill_diagonal_(0.0) if others is None else found


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(-1) / math.log(2.0)


def movement(before: Tensor | None, now: Any) -> tuple[float, ...]:
    """Return the total variation between each topic before and now, NaN where there was none.

    :param Tensor before: p(word | topic), ``(K, V)``, of fewer words where some are new.

    Example::

        >>> movement(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.25, 0.25]]))
        (0.25,)
    """
    if before is None:
        return (math.nan,) * len(now)
    old = F.pad(before, (0, now.shape[1] - before.shape[1])).double()
    return tuple((0.5 * (now.double() - old).abs().sum(-1)).tolist())


def matched(topics: Tensor, states: Tensor, exchangeable: Tensor | None = None) -> Tensor:
    """Return which state stands for each topic: the nearest pairs first, ``(K,)``.

    :param Tensor exchangeable: which topics may change places, bool ``(K, K)``; by default all.

    Example::

        >>> topics, states = torch.eye(3)[:, :2] + 0.1, torch.eye(3).flip(0)
        >>> matched(topics, states)
        tensor([2, 1, 0])
    """
    old = F.pad(topics, (0, states.shape[1] - topics.shape[1]))
    distance = torch.cdist(old.double(), states.double(), p=1.0)
    if exchangeable is not None:
        distance = distance.masked_fill(~exchangeable, math.inf)
    order = torch.zeros(len(old), dtype=torch.long, device=old.device)
    for _ in range(len(old)):
        k, state = divmod(int(distance.argmin()), len(old))
        order[k] = state
        distance[k], distance[:, state] = math.inf, math.inf
    return order
