"""MSNBC.com anonymous web data: the page categories that a day's visitors saw, in order.

*Reference*: Cadez, Heckerman, Meek, Smyth, White, "Model-Based Clustering and Visualization of
Navigation Patterns on a Web Site", Data Mining and Knowledge Discovery 7, 2003. UCI data set 133.
"""

import os
import sys
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

from .arguments import integer
from .files import as_path, check_limit, find_file, open_text

__all__ = ["MSNBC_CATEGORIES", "load_msnbc"]

#: The names of the categories 1 to 17. ``Vocabulary([UNKNOWN, *MSNBC_CATEGORIES])`` gives each the
#: id that is its number on file.
MSNBC_CATEGORIES = (
    "frontpage",
    "news",
    "tech",
    "local",
    "opinion",
    "on-air",
    "misc",
    "weather",
    "msn-news",
    "health",
    "living",
    "business",
    "msn-sports",
    "sports",
    "summary",
    "bbs",
    "travel",
)


def load_msnbc(
    path: str | os.PathLike[str],
    *,
    min_len: int = 1,
    max_len: int | None = None,
    limit: int | None = None,
) -> list[list[str]]:
    """Read the MSNBC click streams (Cadez et al. 2003) from disk.

    One sequence for each of the 989,818 users of 28 September 1999: the categories of the pages
    viewed, by name, in order; 4,698,794 views. Half of the sequences have one or two views; 120,038
    have 10 or more, and the longest has 14,795. All of them take a few seconds.

    :param path: ``msnbc990928.seq``, plain or ``.gz`` or ``.xz``, or its folder.
    :param int min_len: Shorter sequences are left out.
    :param int max_len: Longer sequences are left out; :func:`~pyro_ssl.datasets.batchify` would cut
        them.
    :param int limit: At most so many sequences, the first ones.
    :returns: Lists of words out of :data:`MSNBC_CATEGORIES`.
    :raises FileNotFoundError: if there is no such file, or it is not clear which one is meant.
    :raises ValueError: if the file is another one or damaged, or a length is out of range.

    **Example**::

        >>> import pathlib, tempfile
        >>> from pyro_ssl.datasets import MSNBC_CATEGORIES, load_msnbc
        >>> text = "\\n".join([*MSNBC_CATEGORIES, "% Sequences:", "", "1 1", "2"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "msnbc990928.seq").write_text(text)
        ...     load_msnbc(folder)
        [['frontpage', 'frontpage'], ['news']]
    """
    caller = "load_msnbc"
    min_len = integer(min_len, "min_len", caller, least=None)
    max_len = None if max_len is None else integer(max_len, "max_len", caller, least=None)
    if min_len < 1 or (max_len is not None and max_len < min_len):
        raise ValueError(
            f"load_msnbc: found min_len={min_len} and max_len={max_len}, expected "
            "1 <= min_len <= max_len. Write load_msnbc(path, min_len=10, max_len=100)."
        )
    limit = check_limit(limit, caller)
    file = find_file(
        as_path(path, caller),
        ["msnbc990928.seq"],
        caller,
        "Expected msnbc990928.seq, plain or .gz or .xz, or its folder. Write "
        "load_msnbc('path/to/msnbc990928.seq'), or fetch it: load_msnbc(fetch_msnbc()).",
    )
    with open_text(file, (".seq", ".txt"), caller, 2**24) as lines:
        sequences = _sequences(lines, file, _skip_header(lines, file))
        fitting = (s for s in sequences if min_len <= len(s) <= (max_len or sys.maxsize))
        return list(islice(fitting, limit))


def _skip_header(lines: Iterator[str], file: Path) -> int:
    """Read to ``% Sequences:``, with the categories' names on the way; return how many lines."""
    header = list(takewhile(lambda line: not line.startswith("% Seq"), islice(lines, 99)))
    names = [name for line in header if not line.startswith("%") for name in line.split()]
    if tuple(names) != MSNBC_CATEGORIES:
        raise ValueError(
            f"load_msnbc: found another head in {file}, expected the names of the 17 categories "
            f"({', '.join(MSNBC_CATEGORIES[:3])}, ...) and then '% Sequences:', as in "
            "msnbc990928.seq. Write load_msnbc(fetch_msnbc())."
        )
    return len(header) + 1


def _sequences(lines: Iterator[str], file: Path, header: int) -> Iterator[list[str]]:
    names = {str(i): name for i, name in enumerate(MSNBC_CATEGORIES, start=1)}
    empty = True
    for number, line in enumerate(lines, start=header + 1):
        try:
            sequence = [names[code] for code in line.split()]
        except KeyError as error:
            raise ValueError(
                f"load_msnbc: found the category {error} in {file}, line {number}; expected "
                "numbers from 1 to 17. Is the file damaged? Write load_msnbc(fetch_msnbc())."
            ) from error
        if sequence:
            empty = False
            yield sequence
    if empty:
        raise ValueError(
            f"load_msnbc: found no sequence in {file} after line {header}, expected one a line. Is "
            "the file damaged? Write load_msnbc(fetch_msnbc())."
        )
