"""Topics for a reader: those of content words as cards, those of function words in one list.

What a topical model of running text finds is in good part grammar: topics of articles, of
prepositions, of auxiliaries. They hold sentences together and say nothing of what a text is about,
so they are told apart by their words and stand last. Words are ordered by relevance (Sievert &
Shirley 2014; see ``models/topics.py``), by one of three weights that the reader chooses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..datasets import STOP_WORDS, UNKNOWN
from ..models import Topic
from ..models.topics import list_topics
from .pieces import chip, signed

__all__ = ["GLUE", "LISTED", "ReadableTopics", "function_share", "readable_topics", "topic_section"]

#: How a topic's content words are listed, as :meth:`TopicalSSL.topics` takes it; .6 is what people
#: found best to read.
LISTED: dict[str, Any] = {"num_words": 8, "relevance": 0.6, "leave_out": STOP_WORDS | {UNKNOWN}}

#: A topic is glue from this share of function words on.
GLUE = 0.5

_ORDERS = {
    LISTED["relevance"]: "likely and its own, \N{GREEK SMALL LETTER LAMDA} = .6",
    1.0: "the likeliest, \N{GREEK SMALL LETTER LAMDA} = 1",
    0.0: "most its own, \N{GREEK SMALL LETTER LAMDA} = 0",
}


class ReadableTopics(NamedTuple):
    """Topics by falling share of the words, those of content words apart from those of glue.

    ``content`` has content words by relevance, ``glue`` the likeliest words. ``likeliest`` are all
    topics by their likeliest words, of both kinds. The unknown word is in none.
    """

    content: list[Topic]
    glue: list[Topic]
    likeliest: list[Topic]

    def names(self, num_words: int = 3) -> dict[int, str]:
        """Return each topic's likeliest words, by its index."""
        return {topic.index: " ".join(topic.words[:num_words]) for topic in self.likeliest}


def function_share(phi: Tensor, vocabulary: Sequence[str]) -> Tensor:
    """Return how much of each topic is function words, of its known words, float64 ``(K,)``.

    :param Tensor phi: p(word | topic), ``(K, V)``.

    Example::

        >>> function_share(torch.tensor([[0.5, 0.4, 0.1]]), ["<unk>", "the", "list"])
        tensor([0.8000], dtype=torch.float64)
    """
    words = [
        [word in STOP_WORDS for word in vocabulary],
        [word != UNKNOWN for word in vocabulary],
    ]
    function, known = (phi.double() * torch.tensor(w, device=phi.device) for w in words)
    return function.sum(-1) / known.sum(-1).clamp(min=1e-300)


def readable_topics(
    phi: Tensor,
    occupancy: Tensor,
    vocabulary: Sequence[str],
) -> ReadableTopics:
    """Tell topics of content words from glue, and list the words of each.

    :param Tensor phi: p(word | topic), ``(K, V)``.
    :param Tensor occupancy: the share of the words in each topic, ``(K,)``.

    Example::

        >>> vocabulary = ["<unk>", "a", "list"]
        >>> phi = torch.tensor([[0.2, 0.7, 0.1], [0.2, 0.1, 0.7]])
        >>> found = readable_topics(phi, torch.tensor([0.6, 0.4]), vocabulary)
        >>> [(t.index, t.words) for t in found.content], [(t.index, t.words) for t in found.glue]
        ([(1, ['list'])], [(0, ['a', 'list'])])
    """
    is_glue = (function_share(phi, vocabulary) >= GLUE).tolist()
    own = list_topics(phi, occupancy, vocabulary, **LISTED)
    likeliest = list_topics(phi, occupancy, vocabulary, LISTED["num_words"], 1.0, {UNKNOWN})
    return ReadableTopics(
        [topic for topic in own if not is_glue[topic.index]],
        [topic for topic in likeliest if is_glue[topic.index]],
        likeliest,
    )


def topic_section(
    phi: Tensor,
    occupancy: Tensor,
    vocabulary: Sequence[str],
    colors: Sequence[str],
    coherence: Tensor | None = None,
) -> str:
    """Show topics as HTML: cards of content words, with a choice of their order, then the glue.

    :param Tensor phi: p(word | topic), ``(K, V)``.
    :param Tensor occupancy: the share of the words in each topic, ``(K,)``.
    :param colors: by the topics' numbers, ``"#rrggbb"``.
    :param Tensor coherence: NPMI of each topic, ``(K,)``; see :meth:`TopicalSSL.coherence`.

    Example::

        >>> phi, vocabulary = torch.tensor([[0.9, 0.1], [0.1, 0.9]]), ["the", "list"]
        >>> html = topic_section(phi, torch.tensor([0.6, 0.4]), vocabulary, ["#77AADD"] * 2)
        >>> html.count('class="topic"'), html.count('class="glue"')
        (1, 1)
    """
    found = readable_topics(phi, occupancy, vocabulary)
    listed = [
        list_topics(phi, occupancy, vocabulary, **LISTED | {"relevance": weight})
        for weight in _ORDERS
    ]
    *lists, likeliest = ({t.index: t for t in topics} for topics in [*listed, found.likeliest])
    parts = []
    if found.content:
        cards = [
            _card([one[k] for one in lists], colors[k], coherence, likeliest[k])
            for k in (topic.index for topic in found.content)
        ]
        parts += [_choice(), '<div class="topics">', *cards, "</div>"]
    if found.glue:
        parts.append(_glue(found.glue))
    return "\n".join(parts)


def _choice() -> str:
    """Buttons that choose among lists by style alone, which they stand before."""
    return '<span class="order">Words by</span>' + "".join(
        f'<input type="radio" name="order" id="order{i}"{"" if i else " checked"}>'
        f'<label for="order{i}">{name}</label>'
        for i, name in enumerate(_ORDERS.values())
    )


def _card(lists: Sequence[Topic], color: str, coherence: Tensor | None, likeliest: Topic) -> str:
    topic = lists[0]
    longest = max([1e-30, *(p for one in lists for p in one.probs)])
    held = math.nan if coherence is None else float(coherence[topic.index])
    function = " ".join(
        f"{escape(word)}&nbsp;<small>{100 * p:.1f}</small>"
        for word, p in zip(likeliest.words, likeliest.probs, strict=True)
        if word in STOP_WORDS
    )
    told = "" if math.isnan(held) else f" \N{MIDDLE DOT} NPMI {signed(held)}"
    return (
        f'<section class="topic"><h3>{chip(topic.index, color)}'
        f"<small>{topic.occupancy:.1%}{told}</small></h3>"
        + "".join(_ordered(one, i, color, longest) for i, one in enumerate(lists))
        + (f"<p><small>+</small> {function}</p>" if function else "")
        + "</section>"
    )


def _ordered(topic: Topic, order: int, color: str, longest: float) -> str:
    rows = "".join(
        f'<li><i style="width:{78 * p / longest:.0f}%;background:{color}"></i>'
        f"<b>{escape(word)}</b><em>{100 * p:.1f}</em></li>"
        for word, p in zip(topic.words, topic.probs, strict=True)
    )
    return f'<ol class="order{order}">{rows}</ol>'


def _glue(topics: Sequence[Topic]) -> str:
    rows = "".join(
        f"<li>{chip(topic.index)}<span>{' '.join(map(escape, topic.words))}</span>"
        f"<small>{topic.occupancy:.1%}</small></li>"
        for topic in topics
    )
    share = sum(topic.occupancy for topic in topics)
    return (
        f"<h3>Glue</h3>\n<p>Topics of function words, {share:.0%} of the text: they hold sentences "
        f'together. Their likeliest words.</p>\n<ul class="glue">{rows}</ul>'
    )
