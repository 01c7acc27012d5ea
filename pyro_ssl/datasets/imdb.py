"""The Large Movie Review data, from the disk of who uses it.

:func:`load_imdb` reads the reviews; :func:`imdb_prefix_split` cuts them as the published "continue
this review" experiment does.

*References*

1. Maas, Daly, Pham, Huang, Ng, Potts, "Learning Word Vectors for Sentiment Analysis", ACL 2011:
   the data.
2. Kirscher, Remmache, Morisset, "State Space LSTM Model for NLP", ENSAE 2024: the experiment.
"""

import gzip
import json
import lzma
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from pyro_ssl.datasets.batch import TextBatch, batchify
from pyro_ssl.datasets.text import Vocabulary, tokenize

__all__ = ["PrefixSplit", "Review", "imdb_prefix_split", "load_imdb"]

_OTHER_SPLIT = {"train": "test", "test": "train"}
_OPENERS: dict[str, Callable[..., Any]] = {".jsonl": open, ".gz": gzip.open, ".xz": lzma.open}


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


class PrefixSplit(NamedTuple):
    """Reviews to be continued: a model learns from their first words and is judged on the rest.

    :param Vocabulary vocabulary: The words.
    :param TextBatch full: ``(T, B)``; the words to predict are ``full.words[len(train.words) :]``.
    :param TextBatch train: ``(train_length, B)``, the first rows of ``full``.
    """

    vocabulary: Vocabulary
    full: TextBatch
    train: TextBatch


def load_imdb(
    path: str | os.PathLike[str],
    *,
    split: Literal["train", "test"] = "train",
    limit: int | None = None,
) -> list[Review]:
    """Read the Large Movie Review data [1] from disk.

    In one of two layouts: folders as published (``aclImdb/train/pos/123_7.txt``), or JSON lines,
    plain or ``.gz`` or ``.xz``, with the keys ``id``, ``label``, ``rating``, ``text`` and, where
    both splits are in one file, ``split``. The folders are read neg before pos, by id; a file as
    it stands.

    :param path: ``aclImdb`` or the folder that it is in; or a file of JSON lines, or its folder
        (of several files there, the one that has ``split`` in its name is read).
    :param str split: ``"train"`` or ``"test"``.
    :param int limit: At most so many reviews, the first ones of each label in equal shares.
    :raises FileNotFoundError: if there is no such data, or it is not clear which file is meant.
    :raises ValueError: if a line is not a review, or the file is of the other split.

    **Example**::

        >>> import json, pathlib, tempfile
        >>> from pyro_ssl.datasets import load_imdb
        >>> row = {"id": 7, "label": "pos", "rating": 9, "text": "Fine.<br />See it."}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "train.jsonl").write_text(json.dumps(row))
        ...     load_imdb(folder)
        [Review(text='Fine.\\nSee it.', label='pos', rating=9, id=7)]
    """
    if split not in _OTHER_SPLIT:
        raise ValueError(f"load_imdb: found split={split!r}, expected 'train' or 'test'.")
    if limit is not None and limit < 1:
        raise ValueError(f"load_imdb: found limit={limit}, expected 1 or more, or None.")
    path = Path(path)
    for folder in (path / split, path / "aclImdb" / split):
        if (folder / "neg").is_dir() and (folder / "pos").is_dir():
            return _read_folder(folder, limit)
    reviews = _read_lines(_find_lines(path, split), split)
    return [reviews[i] for i in _in_equal_shares([review.label for review in reviews], limit)]


def imdb_prefix_split(
    path: str | os.PathLike[str],
    *,
    num_reviews: int = 200,
    length: int = 170,
    train_length: int = 100,
    vocab_size: int = 5000,
    vocabulary: Literal["corpus", "train"] = "corpus",
    seed: int = 0,
) -> PrefixSplit:
    """Cut IMDB as published in [2]: learn from words 1 to 100 of a review, predict 101 to 170.

    These are the first ``num_reviews`` reviews that have ``length`` words, in a shuffled order, as
    all the negative ones come first on disk. ``full.kept`` gives their places in
    ``load_imdb(path)``. The published cut counts the words of another packaging of the data, so its
    reviews are others.

    :param path: As for :func:`load_imdb`; the training split is read.
    :param int num_reviews: B.
    :param int length: T, the words kept of a review.
    :param int train_length: How many of them are for training.
    :param int vocab_size: V, ``"<unk>"`` included.
    :param str vocabulary: ``"corpus"``, as published: the most frequent words of all reviews on
        file, those to be predicted among them; or ``"train"``: of the training words alone, where
        ``"<unk>"`` occurs in training only if ``vocab_size`` leaves some of them out.
    :param int seed: Of the order, which has a generator of its own.
    :raises ValueError: if too few reviews are long enough, or an argument is out of range.
    """
    if vocabulary not in ("corpus", "train"):
        raise ValueError(
            f"imdb_prefix_split: found vocabulary={vocabulary!r}, expected 'corpus' or 'train'."
        )
    if not 1 <= train_length < length:
        raise ValueError(
            f"imdb_prefix_split: found train_length={train_length} and length={length}, expected "
            "1 <= train_length < length. Write length=170, train_length=100."
        )
    reviews = load_imdb(path)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    chosen: dict[int, list[str]] = {}
    for i in torch.randperm(len(reviews), generator=generator, device="cpu").tolist():
        if len(chosen) == num_reviews:
            break
        tokens = tokenize(reviews[i].text)
        if len(tokens) >= length:
            chosen[i] = tokens
    if len(chosen) < num_reviews:
        raise ValueError(
            f"imdb_prefix_split: found {len(chosen)} reviews of {length} words or more, expected "
            f"{num_reviews}. Write num_reviews={len(chosen)}, or take a smaller length."
        )
    if vocabulary == "corpus":
        words = Vocabulary.build((tokenize(review.text) for review in reviews), vocab_size)
    else:
        words = Vocabulary.build((text[:train_length] for text in chosen.values()), vocab_size)
    kept = torch.tensor(list(chosen), dtype=torch.long, device="cpu")  # (B,)
    full, train = (
        replace(batchify(chosen.values(), words, max_len=steps), kept=kept)
        for steps in (length, train_length)
    )
    return PrefixSplit(words, full, train)


def _read_folder(folder: Path, limit: int | None) -> list[Review]:
    files: list[tuple[str, int, int, Path]] = []
    for label in ("neg", "pos"):
        names = ((re.fullmatch(r"(\d+)_(\d+)\.txt", f.name), f) for f in (folder / label).iterdir())
        files += sorted((label, int(name[1]), int(name[2]), file) for name, file in names if name)
    chosen = (files[i] for i in _in_equal_shares([label for label, *_ in files], limit))
    return [
        Review(_with_line_breaks(file.read_text(encoding="utf-8")), label, rating, number)
        for label, number, rating, file in chosen
    ]


def _find_lines(path: Path, split: str) -> Path:
    """Find the file of JSON lines: the path itself, or the one in that folder that is meant."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.jsonl*")) if path.is_dir() else []
    candidates = [file for file in files if split in file.name] or files
    if len(candidates) == 1:
        return candidates[0]
    if files:
        names = ", ".join(file.name for file in files)
        found = f"{names}, expected one of them to be named for {split!r}"
    else:
        found = "neither layout there" if path.exists() else "no such file or folder"
    raise FileNotFoundError(
        f"load_imdb({str(path)!r}): found {found}. Expected a folder that holds {split}/neg and "
        f"{split}/pos, as aclImdb does once unpacked (it is published at "
        "http://ai.stanford.edu/~amaas/data/sentiment/), or JSON lines (.jsonl, .jsonl.gz, "
        ".jsonl.xz) with the keys id, label, rating, text. Write load_imdb('path/to/aclImdb') or "
        "load_imdb('path/to/train.jsonl.gz')."
    )


def _read_lines(path: Path, split: str) -> list[Review]:
    if path.suffix not in _OPENERS:
        raise ValueError(
            f"load_imdb: found {path.name}, expected a name that ends in .jsonl, .gz or .xz."
        )
    other = _OTHER_SPLIT[split]
    named_for_other = other in path.name and split not in path.name
    reviews = []
    with _OPENERS[path.suffix](path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                text = _with_line_breaks(row["text"])
                review = Review(text, row["label"], row["rating"], row["id"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"load_imdb: found {error!r} in {path}, line {number}; expected a JSON object "
                    "with the keys id, label, rating, text."
                ) from error
            if named_for_other and "split" not in row:
                raise ValueError(
                    f"load_imdb: found {path.name}, expected the {split!r} split. Write "
                    f"load_imdb(path, split={other!r})."
                )
            if row.get("split", split) == split:
                reviews.append(review)
    return reviews


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
