"""Lines and rows of the files that a command is given; ``-`` is the standard input."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..datasets.files import PACKED, open_text, text_lines

__all__ = ["FORMATS", "STDIN", "format_of", "lines_of", "rows_of"]

STDIN = "-"
#: formats by the endings of files; any other ending is plain text
FORMATS = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
_LONGEST_CELL = 2**22


def format_of(name: str, given: str | None = None) -> str:
    """Return ``"txt"``, ``"jsonl"`` or ``"csv"``: what is given, or what the name ends in.

    Example::

        >>> format_of("reviews.jsonl.gz"), format_of("-"), format_of("-", "csv")
        ('jsonl', 'txt', 'csv')
    """
    return given or FORMATS.get(_ending(name), "txt")


@contextmanager
def lines_of(name: str) -> Iterator[Iterator[str]]:
    """Open the lines of a UTF-8 file, unpacked if its name ends in ``.gz`` or ``.xz``.

    :raises OSError: if it cannot be read.
    :raises ValueError: if it is no such text.
    """
    if name == STDIN:
        yield text_lines(sys.stdin.buffer.read(), Path("standard input"), "reading")
        return
    path = Path(name)
    if path.is_dir():
        raise IsADirectoryError(
            f"{name}: found a folder, expected files; write {name.rstrip('/')}/*.txt."
        )
    with open_text(path, (path.suffix,), "reading") as lines:
        yield lines


def rows_of(name: str, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Return the rows of a CSV file, each with the number of its last line; no blank ones.

    :param str delimiter: between cells; by default a comma, or a tab where the name ends in
        ``.tsv``.
    :raises ValueError: if a row has another number of cells than the first.
    """
    delimiter = delimiter or ("\t" if _ending(name) == ".tsv" else ",")
    width = None
    longest = csv.field_size_limit(_LONGEST_CELL)
    try:
        with lines_of(name) as lines:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            for row in reader:
                if not row:
                    continue
                width = width or len(row)
                if len(row) != width:
                    raise ValueError(
                        f"{name}, line {reader.line_num}: found {len(row)} cells, expected "
                        f"{width}, as in its first row; write --delimiter if cells are not "
                        f"separated by {delimiter!r}."
                    )
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {reader.line_num}: found {error}, expected rows of CSV: cells with "
            "quotes or line breaks in them in double quotes, and quotes within these doubled."
        ) from error
    finally:
        csv.field_size_limit(longest)


def _ending(name: str) -> str:
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix
