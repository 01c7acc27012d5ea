"""Pieces of pages: figures, tables, topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ..datasets import UNKNOWN
from ..models import Topic

__all__ = ["figures", "shown_word", "table", "topic_cards"]


def figures(values: Mapping[str, str]) -> str:
    """Show a few large figures, by what they are.

    Example::

        >>> figures({"of 50 epochs": "12"})
        '<div class="figures"><div><b>12</b><span>of 50 epochs</span></div></div>'
    """
    each = (f"<div><b>{escape(v)}</b><span>{escape(n)}</span></div>" for n, v in values.items())
    return f'<div class="figures">{"".join(each)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Show plain text in a table, which may be wider than the page.

    Example::

        >>> table(["a"], [["1"]])
        '<div class="wide"><table><tr><th>a</th></tr><tr><td>1</td></tr></table></div>'
    """
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if head:
        lines.insert(0, "".join(f"<th>{escape(name)}</th>" for name in head))
    inner = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>{inner}</table></div>'


def topic_cards(
    topics: Sequence[Topic], colors: Sequence[str], typical: Sequence[Sequence[str]] | None = None
) -> str:
    """Show topics: their likeliest words with bars, and probabilities in per cent.

    :param colors: by the topics' numbers, ``"#rrggbb"``.
    :param typical: by the topics' numbers, the words that set each apart from the others.

    Example::

        >>> topic = Topic(0, ["a", "b"], [0.75, 0.25], 1.0)
        >>> topic_cards([topic], ["#77AADD"]).count("<li>")
        2
    """
    cards = (
        _card(t, colors[t.index], None if typical is None else typical[t.index]) for t in topics
    )
    return '<div class="topics">\n' + "\n".join(cards) + "\n</div>"


def shown_word(word: str) -> str:
    """Return a word as HTML; what is outside the vocabulary is a square.

    Example::

        >>> shown_word("<b>"), shown_word("<unk>")
        ('&lt;b&gt;', '□')
    """
    return "\N{WHITE SQUARE}" if word == UNKNOWN else escape(word)


def _card(topic: Topic, color: str, typical: Sequence[str] | None) -> str:
    longest = max(topic.probs[0], 1e-30)
    rows = "".join(
        f'<li><i style="width:{78 * p / longest:.0f}%;background:{color}"></i>'
        f"<b>{shown_word(word)}</b><em>{100 * p:.1f}</em></li>"
        for word, p in zip(topic.words, topic.probs, strict=True)
    )
    its_own = "" if typical is None else " ".join(map(shown_word, typical))
    below = f"<p><small>most its own:</small> {its_own}</p>" if its_own else ""
    return (
        f'<section class="topic"><h3><span class="chip" style="background:{color}">{topic.index}'
        f"</span><small>{topic.occupancy:.1%} of the words</small></h3><ol>{rows}</ol>"
        f"{below}</section>"
    )
