"""Texts in files, read as they come: any number, of any size."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .arguments import several
from .files import as_path, stream_text

__all__ = ["TextFiles"]

_UNITS = ("line", "paragraph", "file")
_JSON_LINES = (".jsonl", ".ndjson")


class TextFiles:
    """The texts of some files, read anew each time they are gone through.

    JSON lines (``.jsonl`` or ``.ndjson``) have one text on each line; of any other file ``unit``
    says what a text is. Names that end in ``.gz`` or ``.xz`` too are unpacked on the way. A text
    comes in pieces, its lines, so that none has to fit in memory.

    :param paths: a file, or several.
    :param str unit: ``"line"``; ``"paragraph"``: lines up to an empty one; or ``"file"``.
    :param str field: which field of a JSON line is the text.
    :raises FileNotFoundError: if one of them is no file.

    **Example**::

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.jsonl"
        >>> _ = path.write_text('{"text": "To be."}\\n{"text": "Or not."}\\n')
        >>> [list(pieces) for pieces in TextFiles(path)]
        [['To be.'], ['Or not.']]
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        unit: str = "line",
        field: str = "text",
    ) -> None:
        if unit not in _UNITS:
            raise ValueError(
                f'TextFiles: found unit={unit!r}, expected one of {_UNITS}. Write unit="line".'
            )
        given = [paths] if isinstance(paths, str | os.PathLike) else several(paths)
        self.paths = [as_path(path, "TextFiles") for path in given]
        self.unit, self.field = unit, field
        for path in self.paths:
            if not path.is_file():
                raise FileNotFoundError(
                    f"TextFiles: found no file {path}, expected one. Write "
                    'TextFiles(sorted(Path("folder").glob("*.txt"))) for all of a folder.'
                )

    def __iter__(self) -> Iterator[Iterable[str]]:
        for path in self.paths:
            plain = path.with_suffix("") if path.suffix in (".gz", ".xz") else path
            lines = stream_text(path, "TextFiles")
            if plain.suffix in _JSON_LINES:
                numbered = enumerate(lines, start=1)
                yield from ([self._text_of(n, line, path)] for n, line in numbered if line.strip())
            elif self.unit == "line":
                yield from ([line] for line in lines)
            elif self.unit == "file":
                yield lines
            else:
                yield from _paragraphs(lines)

    def __repr__(self) -> str:
        return f"TextFiles({len(self.paths)} files, unit={self.unit!r})"

    def _text_of(self, number: int, line: str, path: Path) -> str:
        try:
            content: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            content = error
        text = content.get(self.field) if isinstance(content, dict) else None
        if not isinstance(text, str):
            found = f"fields {sorted(content)}" if isinstance(content, dict) else repr(content)
            raise ValueError(
                f"TextFiles: found {found:.80} in {path}, line {number}, expected a JSON object "
                f'with a text in "{self.field}". Write field= with the name of the field that has '
                "the texts."
            )
        return text


def _paragraphs(lines: Iterator[str]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph
