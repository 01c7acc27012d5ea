"""Documents from files of text, JSON lines and CSV, cut into passages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..datasets import split_passages, tokenize
from .files import format_of, lines_of, rows_of

__all__ = ["PASSAGE", "Passage", "Reading", "read_passages"]

#: words of a passage of plain text, where nothing is said
PASSAGE = 100


class Passage(NamedTuple):
    """Words of a file: those of a document's passage, both counted from 1."""

    file: str
    document: int
    passage: int
    words: list[str]


class Reading(NamedTuple):
    """How files are read.

    ``format`` is that of all files, ``None``: by their endings. ``field`` of JSON lines and
    ``column`` of CSV hold the text. Documents are cut into passages of so many words; 0 leaves them
    whole, and ``None`` those of JSON lines and CSV alone.
    """

    format: str | None = None
    field: str = "text"
    column: str = "text"
    delimiter: str | None = None
    passage: int | None = None
    keep_case: bool = False

    def length(self, file: str) -> int:
        """Words of a passage in a file, 0 where documents stay whole."""
        if self.passage is None:
            return PASSAGE if format_of(file, self.format) == "txt" else 0
        return self.passage


def read_passages(files: Sequence[str], how: Reading, *, last: bool = False) -> list[Passage]:
    """Read documents and cut them; one without a word is left out.

    :param bool last: return of each document its last words alone, as many as a passage has.
    :raises OSError: if a file cannot be read.
    :raises ValueError: if a file is of another form, or there is no word in any.

    Example::

        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.jsonl")
        ...     _ = file.write_text('{"text": "To be or not"}')
        ...     [p.words for p in read_passages([str(file)], Reading(passage=3))]
        [['to', 'be', 'or'], ['not']]
    """
    found: list[Passage] = []
    for file in files:
        length = how.length(file)
        for number, text in _documents(file, how):
            words = tokenize(text, lowercase=not how.keep_case)
            if last:
                pieces = [words[-length:]] if words else []
            else:
                pieces = split_passages(words, length) if length else [words] if words else []
            found += [Passage(file, number, i, piece) for i, piece in enumerate(pieces, start=1)]
    if not found:
        raise ValueError(
            f"{', '.join(files[:3])}{', ...' * (len(files) > 3)}: found no word, expected text; "
            "a word begins with a letter. Give a file that has some."
        )
    return found


def _documents(file: str, how: Reading) -> Iterator[tuple[int, str]]:
    """Texts with their numbers, from 1."""
    kind = format_of(file, how.format)
    if kind == "jsonl":
        yield from _of_json(file, how.field)
    elif kind == "csv":
        yield from _of_csv(file, how.column, how.delimiter)
    else:
        with lines_of(file) as lines:
            yield 1, "".join(lines)


def _of_json(file: str, field: str) -> Iterator[tuple[int, str]]:
    number = 0
    with lines_of(file) as lines:
        for place, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            number += 1
            where, expected = f"{file}, line {place}", "expected a JSON object on each line"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{where}: found {error}, {expected}; write --format txt if it is plain text."
                ) from error
            if not isinstance(row, dict):
                raise ValueError(
                    f'{where}: found a {type(row).__name__}, {expected}, such as {{"text": "..."}}.'
                )
            if field not in row:
                names = ", ".join(map(repr, [*row][:10])) or "none"
                raise ValueError(
                    f"{where}: found no field {field!r} among {names}, expected the one that "
                    "holds the text; write --field NAME."
                )
            if not isinstance(row[field], str):
                raise ValueError(
                    f"{where}: found a {type(row[field]).__name__} in the field {field!r}, "
                    "expected text; write --field NAME of another one."
                )
            yield number, row[field]


def _of_csv(file: str, column: str, delimiter: str | None) -> Iterator[tuple[int, str]]:
    rows = rows_of(file, delimiter)
    _, names = next(rows, (0, []))
    if names.count(column) != 1:
        found = f"{names.count(column)} columns" if column in names else "no column"
        among = ", ".join(map(repr, names[:10])) or "none"
        raise ValueError(
            f"{file}: found {found} {column!r} among {among}, expected the one that holds the "
            "text, in the first row; write --column NAME."
        )
    place = names.index(column)
    for number, (_, row) in enumerate(rows, start=1):
        yield number, row[place]
