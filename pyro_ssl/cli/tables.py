"""Results as lines: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..models import Topic

__all__ = ["json_line", "table_lines", "topic_lines"]


def json_line(row: dict[str, Any]) -> str:
    """Return a JSON object on one line; numbers that are not finite are null.

    Example::

        >>> json_line({"word": "é", "p": 0.123456789, "x": float("nan")})
        '{"word": "é", "p": 0.123457, "x": null}'
    """
    return json.dumps(_plain(row), ensure_ascii=False)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table whose first column is at the left, and the others at the right.

    Example::

        >>> table_lines(["file", "words"], [["a.txt", "7"]])
        ['file   words', 'a.txt      7']
    """
    cells = [[*head], *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def topic_lines(topics: Sequence[Topic]) -> list[str]:
    """Return topics with their numbers, shares and words.

    Example::

        >>> topic_lines([Topic(3, ["to", "be"], [0.5, 0.2], 0.25)])
        ['  3  25.0%  to be']
    """
    return [f"{t.index:3d} {t.occupancy:6.1%}  {' '.join(t.words)}" for t in topics]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
