"""The Large Movie Review data, from the disk of who uses it, as folders or as lines of JSON.

*Reference*: Maas, Daly, Pham, Huang, Ng, Potts, "Learning Word Vectors for Sentiment Analysis", ACL
2011. Next file to read: ``imdb.py``, which cuts the reviews for an experiment.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .arguments import integer
from .files import (
    as_path,
    check_limit,
    check_split,
    find_file,
    named_for_other_split,
    open_text,
    read_text,
)

__all__ = ["Review", "load_imdb"]

_SPLITS = ("train", "test")
_LABELS = ("neg", "pos")


class Review(NamedTuple):
    """A film review.

    :param str text: As published, but for ``<br />``, which is a line break here.
    :param str label: ``"pos"`` or ``"neg"``.
    :param int rating: 1 to 4 stars (neg) or 7 to 10 (pos).
    :param int id: Its number, unique within its split and label.
    """

    text: str
    label: str
    rating: int
    id: int


def load_imdb(
    path: str | os.PathLike[str],
    *,
    split: Literal["train", "test"] = "train",
    limit: int | None = None,
) -> list[Review]:
    """Read the Large Movie Review data (Maas et al. 2011) from disk.

    In one of two layouts: folders as published (``aclImdb/train/pos/123_7.txt``), or JSON lines,
    plain or ``.gz`` or ``.xz``, with the keys ``id``, ``label``, ``rating``, ``text`` and, where
    both splits are in one file, ``split``. The folders are read neg before pos, by id; a file as
    it stands.

    :param path: ``aclImdb`` or the folder that it is in; or a file of JSON lines, or its folder
        (of several files there, the one that has ``split`` in its name is read).
    :param str split: ``"train"`` or ``"test"``.
    :param int limit: At most so many reviews, the first ones of each label in equal shares.
    :raises FileNotFoundError: if there is no such data, or it is not clear which file is meant.
    :raises ValueError: if a line or a file is not a review, or there is none of this split.

    **Example**::

        >>> import json, pathlib, tempfile
        >>> from pyro_ssl.datasets import load_imdb
        >>> row = {"id": 7, "label": "pos", "rating": 9, "text": "Fine.<br />See it."}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "train.jsonl").write_text(json.dumps(row))
        ...     load_imdb(folder)
        [Review(text='Fine.\\nSee it.', label='pos', rating=9, id=7)]
    """
    check_split(split, _SPLITS, "load_imdb")
    limit = check_limit(limit, "load_imdb")
    path = as_path(path, "load_imdb")
    for folder in (path / split, path / "aclImdb" / split):
        if (folder / "neg").is_dir() and (folder / "pos").is_dir():
            reviews = _read_folder(folder, limit)
            break
    else:
        folder = _find_lines(path, split)
        every = _read_lines(folder, split)
        reviews = [every[i] for i in _in_equal_shares([r.label for r in every], limit)]
    if not reviews:
        raise ValueError(
            f"load_imdb: found no review of the {split!r} split in {folder}, expected one at least."
        )
    return reviews


def _read_folder(folder: Path, limit: int | None) -> list[Review]:
    files: list[tuple[str, int, int, Path]] = []
    for label in _LABELS:
        names = ((re.fullmatch(r"(\d+)_(\d+)\.txt", f.name), f) for f in (folder / label).iterdir())
        files += sorted((label, int(name[1]), int(name[2]), file) for name, file in names if name)
    chosen = (files[i] for i in _in_equal_shares([label for label, *_ in files], limit))
    return [_review_on_file(*file) for file in chosen]


def _review_on_file(label: str, number: int, rating: int, file: Path) -> Review:
    if not file.is_file() or not 1 <= rating <= 10:
        raise ValueError(
            f"load_imdb: found {'a rating' if file.is_file() else 'a folder'} in {file}, expected "
            "a file named for its number and its rating of 1 to 10, such as 123_7.txt."
        )
    return Review(_with_line_breaks(read_text(file, "load_imdb")), label, rating, number)


def _find_lines(path: Path, split: str) -> Path:
    return find_file(
        path,
        ["*.jsonl"],
        "load_imdb",
        f"Expected a folder that holds {split}/neg and {split}/pos, as aclImdb does once unpacked "
        "(it is published at http://ai.stanford.edu/~amaas/data/sentiment/), or JSON lines "
        "(.jsonl, .jsonl.gz, .jsonl.xz) with the keys id, label, rating, text. Write "
        "load_imdb('path/to/aclImdb') or load_imdb('path/to/train.jsonl.gz'), or fetch it: "
        "load_imdb(fetch_imdb()).",
        split=split,
        absent="neither layout there",
    )


def _read_lines(path: Path, split: str) -> list[Review]:
    other = named_for_other_split(path, split, _SPLITS)
    reviews = []
    with open_text(path, (".jsonl",), "load_imdb", 2**27) as lines:
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
                review, of = _review(row), row.get("split")
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(
                    f"load_imdb: found {error!r:.200} in {path}, line {number}; expected a JSON "
                    "object with the keys id, label, rating, text: label is neg or pos, and rating "
                    "1 to 10."
                ) from error
            if other and of is None:
                raise ValueError(
                    f"load_imdb: found {path.name}, expected the {split!r} split. Write "
                    f"load_imdb(path, split={other!r})."
                )
            if of in (None, split):
                reviews.append(review)
    return reviews


def _review(row: dict[str, Any]) -> Review:
    """What a line of JSON holds."""
    rating, number = (integer(row[key], key, "load_imdb", least=0) for key in ("rating", "id"))
    if row["label"] not in _LABELS or not 1 <= rating <= 10:
        raise ValueError(f"label {row['label']!r} and rating {rating}")
    return Review(_with_line_breaks(row["text"]), row["label"], rating, number)


def _with_line_breaks(text: str) -> str:
    return re.sub(r"<br\s*/?>", "\n", text)


def _in_equal_shares(labels: Sequence[str], limit: int | None) -> list[int]:
    """Choose ``limit`` places, the first ones of each label in turn; in their old order."""
    seen: Counter[str] = Counter()
    ranks = []
    for i, label in enumerate(labels):
        ranks.append((seen[label], i))
        seen[label] += 1
    return sorted(i for _, i in sorted(ranks)[:limit])
