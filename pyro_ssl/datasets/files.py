"""Find and open the files of a data set, in any of the packagings that they come in.

What the loaders share: a path may be a file or its folder, and a file plain or compressed. What is
wrong with a text is told with the number of the line, and a small archive cannot fill the memory.
"""

import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from .arguments import integer

__all__ = [
    "PACKED",
    "as_path",
    "check_limit",
    "check_split",
    "find_file",
    "named_for_other_split",
    "number_of",
    "open_text",
    "read_text",
    "stream_text",
    "text_lines",
]

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
#: Endings of files that are unpacked on the way.
PACKED = tuple(_OPENERS)
# A MemoryError where a damaged head of an .xz file asks for gigabytes.
_DAMAGE = (EOFError, MemoryError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
_LONGEST_LINE, _BLOCK = 2**22, 2**16
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def as_path(path: str | os.PathLike[str], caller: str) -> Path:
    """Return a path; refuse what is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"{caller}: found {path!r:.60}, expected a path. Write {caller}('path/to/data')."
        )
    return Path(path)


def find_file(
    path: Path,
    patterns: Sequence[str],
    caller: str,
    expected: str,
    *,
    split: str | None = None,
    absent: str = "no such file there",
) -> Path:
    """Find the file that is meant: the path itself, or the one in that folder.

    :param Path path: A file, which is taken as it is, or a folder.
    :param patterns: Names of the plain file, as :meth:`pathlib.Path.glob` reads them; a name with
        ``.gz`` or ``.xz`` after it is found too.
    :param str caller: Which function asks, for the message.
    :param str expected: What the message has after what was found.
    :param str split: Of several files the one that has this in its name is meant.
    :param str absent: What the message calls a folder without such a file.
    :raises FileNotFoundError: if there is none, or several.
    """
    if path.is_file():
        return path
    names = [pattern + suffix for pattern in patterns for suffix in ("", *_OPENERS)]
    files = sorted({file for name in names for file in path.glob(name) if file.is_file()})
    candidates = [file for file in files if split and split in file.name] or files
    if len(candidates) == 1:
        return candidates[0]
    if files:
        found = ", ".join(str(file.relative_to(path)) for file in files) + ", expected one of them"
        found += f" to be named for {split!r}" if split else "; write its own path"
    else:
        found = absent if path.exists() else "no such file or folder"
    raise FileNotFoundError(f"{caller}({str(path)!r}): found {found}. {expected}")


@contextmanager
def open_text(
    path: Path, plain: Sequence[str], caller: str, most: int = 2**28
) -> Iterator[Iterator[str]]:
    """Open the lines of a UTF-8 text, unpacked if its name ends in ``.gz`` or ``.xz``.

    It is unpacked as a whole, so that an archive's checksum is known to be right before the first
    line is used, also where only a few are asked for.

    :param Path path: The file.
    :param plain: The endings of a file that is not compressed, such as ``.txt``.
    :param str caller: Which function asks, for the message.
    :param int most: Bytes that the text may have once it is unpacked.
    :raises ValueError: if the name ends otherwise, or the file is damaged or too large. What is
        wrong with a line is told when it is read.
    """
    if path.suffix not in (*plain, *_OPENERS):
        raise ValueError(
            f"{caller}: found {path.name}, expected a name that ends in {', '.join(plain)}, "
            ".gz or .xz."
        )
    blocks: list[bytes] = []
    left = most
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            while left >= 0 and (block := file.read(_BLOCK)):
                blocks.append(block)
                left -= len(block)
    except _DAMAGE as error:
        raise _damaged(error, path, _last_line(blocks), caller) from error
    if left < 0:
        raise _too_much(path, _last_line(blocks), caller, most)
    yield text_lines(b"".join(blocks), path, caller, most)


def read_text(path: Path, caller: str, most: int = 2**22) -> str:
    """Read a whole UTF-8 text of at most so many bytes; its lines end in a line feed.

    :raises ValueError: if it is larger, or not such a text.
    """
    with open_text(path, (path.suffix,), caller, most) as lines:
        return "".join(lines).replace("\r", "\n")


def stream_text(path: Path, caller: str) -> Iterator[str]:
    """Read the lines of a UTF-8 text one at a time, of any size, unpacked by its name's ending.

    :raises ValueError: at a line that is too long, damaged, or no UTF-8; an archive's checksum is
        known at its end alone.
    """
    number = 0
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                yield _decoded(line, number, path, caller)
    except _DAMAGE as error:
        raise _damaged(error, path, number + 1, caller) from error


def number_of(cell: str) -> float:
    """Read a number as data sets have them, which float32 can hold.

    :raises ValueError: if it is something else, such as ``nan``, ``1_000`` or ``1e99``.
    """
    if not _NUMBER.fullmatch(cell) or not abs(number := float(cell)) < 1e38:
        raise ValueError(f"{cell!r:.40}")
    return number


def check_split(split: str, splits: Sequence[str], caller: str) -> None:
    """Refuse a split that there is not."""
    if split not in splits:
        *others, last = map(repr, splits)
        raise ValueError(
            f"{caller}: found split={split!r}, expected {', '.join(others)} or {last}."
        )


def check_limit(limit: Any, caller: str, name: str = "limit") -> int | None:
    """Return a limit; refuse one below 1."""
    if limit is None:
        return None
    if (found := integer(limit, name, caller, least=None)) < 1:
        raise ValueError(f"{caller}: found {name}={found}, expected 1 or more, or None.")
    return found


def named_for_other_split(path: Path, split: str, splits: Sequence[str]) -> str | None:
    """Return the split that a file is named for, if it is not the one asked for."""
    if split in path.name:
        return None
    return next((other for other in splits if other in path.name), None)


def text_lines(content: bytes, path: Path, caller: str, most: int = 2**28) -> Iterator[str]:
    """Decode the lines of a UTF-8 text.

    :param Path path: Where it comes from, for the message.
    :raises ValueError: at a line that is no such text, or too long.
    """
    for number, line in enumerate(BytesIO(content), start=1):
        yield _decoded(line, number, path, caller, most)


def _decoded(line: bytes, number: int, path: Path, caller: str, most: int | None = None) -> str:
    if len(line) > _LONGEST_LINE:
        raise _too_much(path, number, caller, most)
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(error, path, number, caller) from error
    if "\0" in text:
        raise _damaged(EOFError("a hole: bytes that are 0"), path, number, caller)
    return text[:-2] + "\n" if text.endswith("\r\n") else text


def _last_line(blocks: list[bytes]) -> int:
    return 1 + sum(block.count(b"\n") for block in blocks)


def _damaged(error: Exception, path: Path, line: int, caller: str) -> ValueError:
    return ValueError(
        f"{caller}: found {type(error).__name__} ({error}) in {path}, line {line}, expected a "
        "whole file of UTF-8 text, packed as its name says. Fetch it again, or save it as UTF-8."
    )


def _too_much(path: Path, line: int, caller: str, most: int | None) -> ValueError:
    in_all = "" if most is None else f" and {most:,} in all"
    return ValueError(
        f"{caller}: found too much text in {path}, line {line}, expected at most "
        f"{_LONGEST_LINE:,} bytes in a line{in_all}. Is it another file, or damaged?"
    )
