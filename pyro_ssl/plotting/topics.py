"""Topics as small multiples, and a text coloured by its topics.

Both lay words out on a grid of characters. The width of a fixed-pitch font is known, so no text has
to be drawn to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .colors import OTHER, topic_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..models import Topic

__all__ = ["plot_topic_path", "plot_topics"]

_INK, _FAINT = "#222222", "#777777"
_PITCH = 0.602  # a character's width over its height, in DejaVu Sans Mono


def plot_topics(
    topics: Sequence[Topic],
    *,
    num_columns: int = 5,
    colors: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw each topic as a panel: its words, likeliest first, each on a bar of its probability.

    Bars are to scale within a panel; the figures beside them, in per cent, compare across panels.

    :param topics: what :meth:`TopicalSSL.topics` returns.
    :param int num_columns: panels in a row.
    :param colors: one for each of the K topics, by its index, as :func:`topic_colors` gives; by
        default all bars have one colour.
    :param ax: where to draw; by default a new figure that fits.
    """
    import matplotlib.pyplot as plt

    num_words = max(len(topic.words) for topic in topics)
    num_columns = min(num_columns, len(topics))
    num_rows = -(-len(topics) // num_columns)
    height = num_words + 3.0  # of a panel, in lines
    if ax is None:
        size = (2.3 * num_columns, 0.175 * height * num_rows)
        ax = plt.figure(figsize=size).add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(-0.1, num_columns - 0.02), ylim=(num_rows * height, 0.0))
    ax.axis("off")
    for i, topic in enumerate(topics):
        left, top = float(i % num_columns), i // num_columns * height + 1.2
        color = "#BFD3E6" if colors is None else colors[topic.index]
        ax.text(left, top, f"topic {topic.index}", weight="bold", size=9, va="center", color=_INK)
        ax.text(
            left + 0.86,
            top,
            f"{topic.occupancy:.1%} of words",
            size=7.5,
            ha="right",
            va="center",
            color=_FAINT,
        )
        lines = [top + 1.2 + j for j in range(len(topic.words))]
        widths = [0.72 * p / max(topic.probs) for p in topic.probs]
        ax.barh(lines, widths, left=left, height=0.84, color=color)
        for line, word, p in zip(lines, topic.words, topic.probs, strict=True):
            ax.text(left + 0.015, line, _literal(word), size=8, va="center", color=_INK)
            ax.text(
                left + 0.86, line, f"{100 * p:.1f}", size=7, ha="right", va="center", color=_FAINT
            )
    return ax


def plot_topic_path(
    words: Sequence[str],
    probs: Tensor,
    *,
    topics: Sequence[Topic] = (),
    colors: Sequence[str] | None = None,
    line_width: int = 84,
    ax: Axes | None = None,
) -> Axes:
    """Lay a text out in reading order, each word on the colour of its likeliest topic.

    The stronger the colour, the surer the topic; its number stands below the word.

    :param words: T words.
    :param Tensor probs: p(z_t = k | x_{1:T}), ``(T, K)``, as :meth:`TopicalSSL.transform` gives.
    :param topics: for the legend, which then shows each topic's likeliest words.
    :param colors: one for each of the K topics; by default :func:`topic_colors` of this text.
    :param int line_width: characters in a line.
    :param ax: where to draw; by default a new figure that fits.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    shown = probs[: len(words)].detach()
    colors = topic_colors(shown) if colors is None else colors
    surest, which = (row.tolist() for row in shown.max(-1))
    places = _break_lines(words, line_width)
    legend = _legend(shown, colors, topics, line_width)
    num_text_lines = places[-1][0] + 1 if places else 0
    height = 2.2 * num_text_lines + 0.8 + 1.3 * len(legend)  # in characters' heights
    if ax is None:
        size = (line_width * _PITCH * 10 / 72 + 0.3, height * 10 * 1.2 / 72)
        ax = plt.figure(figsize=size).add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(-1.0, line_width + 1.0), ylim=(height, -0.6))
    ax.axis("off")
    room = ax.get_window_extent()
    pixels = min(room.width / (line_width + 2.0) / _PITCH, room.height / (height + 0.6) / 1.2)
    font_size = pixels * 72 / ax.figure.dpi

    def write(column: float, line: float, text: str, scale: float, color: str) -> None:
        ax.text(
            column,
            line,
            _literal(text),
            va="center",
            family="DejaVu Sans Mono",
            size=scale * font_size,
            color=color,
        )

    def patch(column: float, line: float, width: float, color: str, alpha: float) -> None:
        style = "round,pad=0,rounding_size=0.25"
        shape = (column - 0.35, line - 0.55), width + 0.7, 1.1
        box = FancyBboxPatch(*shape, boxstyle=style, mutation_aspect=0.5, fc=color, ec="none")
        ax.add_patch(box).set_alpha(alpha)

    for (row, column), word, p, k in zip(places, words, surest, which, strict=True):
        line = 2.2 * row + 0.3
        patch(column, line, len(word), colors[k], p)
        write(column, line, word, 1.0, _INK)
        write(column, line + 0.95, str(k), 0.55, _FAINT)
    for i, (color, label) in enumerate(legend):
        line = 2.2 * num_text_lines + 0.8 + 1.3 * i
        patch(0.0, line, 2.0, color, 1.0)
        write(3.5, line, label, 0.85, _INK)
    return ax


def _legend(
    probs: Tensor, colors: Sequence[str], topics: Sequence[Topic], line_width: int
) -> list[tuple[str, str]]:
    """Name the topics that have a colour and are some word's likeliest, most used first."""
    best = probs.argmax(-1)
    count = best.bincount(minlength=probs.shape[-1])
    names = {topic.index: " ".join(topic.words) for topic in topics}
    order = [k for k in count.argsort(descending=True, stable=True).tolist() if count[k] > 0]
    lines = [
        (colors[k], f"{k:>2}  {names.get(k, '')}"[: int(line_width / 0.85) - 5])
        for k in order
        if colors[k] != OTHER
    ]
    others = sum(colors[k] == OTHER for k in order)
    return (
        [*lines, (OTHER, f" \N{HORIZONTAL ELLIPSIS}  {others} other topics")] if others else lines
    )


def _break_lines(words: Sequence[str], line_width: int) -> list[tuple[int, int]]:
    """Give each word its line and column."""
    places: list[tuple[int, int]] = []
    row = column = 0
    for word in words:
        if column and column + len(word) > line_width:
            row, column = row + 1, 0
        places.append((row, column))
        column += len(word) + 2
    return places


def _literal(text: str) -> str:
    """Keep matplotlib from reading a dollar sign as mathematics."""
    return text.replace("$", r"\$")
