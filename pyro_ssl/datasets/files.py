"""Find and open the files of a data set, in any of the packagings that they come in.

What the loaders share: a path may be a file or its folder, and a file plain or compressed.
"""

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = ["check_limit", "check_split", "find_file", "named_for_other_split", "open_text"]

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
_DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, UnicodeDecodeError)


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
    :param str expected: What the message says after what was found.
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
def open_text(path: Path, plain: Sequence[str], caller: str) -> Iterator[TextIO]:
    """Open a UTF-8 text, unpacked on the way where its name ends in ``.gz`` or ``.xz``.

    :param Path path: The file.
    :param plain: The endings of a file that is not compressed, such as ``.txt``.
    :param str caller: Which function asks, for the message.
    :raises ValueError: if the name ends otherwise, or the file is damaged; the latter while it is
        read.
    """
    if path.suffix not in (*plain, *_OPENERS):
        raise ValueError(
            f"{caller}: found {path.name}, expected a name that ends in {', '.join(plain)}, "
            ".gz or .xz."
        )
    with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
        try:
            yield lines
        except _DAMAGE as error:
            raise ValueError(
                f"{caller}: found {error!r} in {path}, expected a whole file of UTF-8 text, "
                "packed as its name says. Fetch it again."
            ) from error


def check_split(split: str, splits: Sequence[str], caller: str) -> None:
    """Refuse a split that there is not."""
    if split not in splits:
        *others, last = map(repr, splits)
        raise ValueError(
            f"{caller}: found split={split!r}, expected {', '.join(others)} or {last}."
        )


def check_limit(limit: int | None, caller: str, name: str = "limit") -> None:
    """Refuse a limit below 1."""
    if limit is not None and limit < 1:
        raise ValueError(f"{caller}: found {name}={limit}, expected 1 or more, or None.")


def named_for_other_split(path: Path, split: str, splits: Sequence[str]) -> str | None:
    """Return the split that a file is named for, if it is not the one asked for."""
    if split in path.name:
        return None
    return next((other for other in splits if other in path.name), None)
