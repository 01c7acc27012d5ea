"""Bars side by side, by groups, as HTML that takes the colours and the width of its page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["grouped_bars"]


def grouped_bars(names: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Show shares of several kinds in each of several groups.

    :param names: of the kinds, plain text; there are colours for three.
    :param rows: each group's label, as HTML, and its shares from 0 to 1, one of each kind.

    Example::

        >>> html = grouped_bars(["now", "then"], [("<b>rain</b>", [0.25, 0.5])])
        >>> html.count("<i "), "25%" in html, "<b>rain</b>" in html
        (4, True, True)
    """
    longest = max((share for _, shares in rows for share in shares), default=0.0) or 1.0
    key = "".join(
        f'<span><i class="bar{n}"></i>{escape(name)}</span>' for n, name in enumerate(names)
    )
    groups = "".join(
        f'<li><div class="what">{label}</div><div>'
        + "".join(_bar(n, name, shares[n], longest) for n, name in enumerate(names))
        + "</div></li>"
        for label, shares in rows
    )
    return f'<div class="key">{key}</div><ul class="bars">{groups}</ul>'


def _bar(kind: int, name: str, share: float, longest: float) -> str:
    width = f"{100 * share / longest:.1f}%"
    return (
        f'<div title="{escape(name)}"><i class="bar{kind}" style="width:calc({width} * .84)"></i>'
        f"<em>{share:.0%}</em></div>"
    )
