"""Pieces of pages: figures, tables, a topic's number, a word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ..datasets import UNKNOWN

__all__ = ["chip", "figures", "shown_word", "signed", "table"]


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


def shown_word(word: str) -> str:
    """Return a word as HTML; what is outside the vocabulary is a square.

    Example::

        >>> shown_word("<b>"), shown_word("<unk>")
        ('&lt;b&gt;', '□')
    """
    return "\N{WHITE SQUARE}" if word == UNKNOWN else escape(word)


def chip(topic: int | str, color: str = "") -> str:
    """Show a topic's number on its colour, or in a frame where it has none.

    Example::

        >>> chip(3, "#77AADD"), chip(4)
        ('<b class="chip" style="background:#77AADD">3</b>', '<b class="chip plain">4</b>')
    """
    how = f'chip" style="background:{color}' if color else "chip plain"
    return f'<b class="{how}">{topic}</b>'


def signed(value: float, spec: str = ".2f") -> str:
    """Write a number with a true minus sign.

    Example::

        >>> signed(0.25), signed(-0.25)
        ('0.25', '−0.25')
    """
    return f"{value:{spec}}".replace("-", "\N{MINUS SIGN}")
