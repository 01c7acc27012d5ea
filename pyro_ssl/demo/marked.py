"""Texts as HTML, each word on the colour of its topic.

Topics of content words that a text uses most have a colour each, and a number for who cannot tell
the colours apart; other topics of content words are grey. Glue has no colour: what is left is what
the text is about.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

import torch
from torch import Tensor

from ..pages import ReadableTopics, chip, shown_word
from ..plotting import OTHER, topic_colors

__all__ = ["Passage", "Palette", "legend", "marked"]


class Passage(NamedTuple):
    """A text, T words, and the posterior of their topics, ``(T, K)``."""

    words: list[str]
    probs: Tensor


class Palette(NamedTuple):
    """How topics are told apart, by their numbers: a colour, and a few words.

    ``plain`` are the topics that have no colour at all.
    """

    colors: list[str]
    names: dict[int, str]
    plain: frozenset[int]

    @classmethod
    def of(cls, topics: ReadableTopics, usage: Tensor) -> Palette:
        """Colour the topics of content words that are used most.

        :param Tensor usage: ``(..., K)``, as in :func:`~pyro_ssl.plotting.topic_colors`.
        """
        plain = [topic.index for topic in topics.glue]
        used = usage.detach().reshape(-1, usage.shape[-1]).sum(0).clone()
        used[torch.tensor(plain, dtype=torch.long, device=used.device)] = 0.0
        return cls(topic_colors(used), topics.names(), frozenset(plain))

    def chip(self, topic: int) -> str:
        """Return a topic's number on its colour, as HTML."""
        return chip(topic, "" if topic in self.plain else self.colors[topic])


def marked(passage: Passage, palette: Palette, *, number_all: bool = False) -> str:
    """Return a passage as a paragraph; a word's tip says its topic, and how sure it is.

    :param bool number_all: give the topics of glue their numbers too.
    """
    spans = []
    for word, probs in zip(passage.words, passage.probs, strict=True):
        p, k = (value.item() for value in probs.max(-1))
        k = int(k)
        tip = f"topic {k}, {p:.0%} sure: {palette.names[k]} \N{HORIZONTAL ELLIPSIS}"
        plain = k in palette.plain
        shade = "" if plain else f' style="--c:{_parts(palette.colors[k])};--p:{p:.2f}"'
        number = "" if plain and not number_all else f"<sub>{k}</sub>"
        spans.append(f'<span data-tip="{escape(tip)}"{shade}>{shown_word(word)}{number}</span>')
    return f'<p class="passage">{" ".join(spans)}</p>'


def legend(palette: Palette, topics: ReadableTopics, usage: Tensor) -> str:
    """Return the coloured topics with their words, those used most first."""
    used = usage.reshape(-1, usage.shape[-1]).sum(0)
    lines = []
    for topic in sorted(topics.content, key=lambda topic: -float(used[topic.index])):
        if palette.colors[topic.index] != OTHER:
            words = " ".join(map(escape, topic.words[:4]))
            lines.append(f"<li>{palette.chip(topic.index)} {words}</li>")
    lines.append(f"<li>{chip('n', OTHER)} another topic of content words</li>")
    lines.append("<li>no colour: glue, of function words</li>")
    return f'<ul class="legend">{"".join(lines)}</ul>'


def _parts(color: str) -> str:
    """Red, green and blue of ``"#rrggbb"``, as CSS reads them."""
    return " ".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))
