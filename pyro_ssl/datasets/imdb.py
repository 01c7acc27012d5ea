"""The Large Movie Review data, from the disk of who uses it.

:func:`load_imdb` reads the reviews; :func:`imdb_prefix_split` cuts them as the published "continue
this review" experiment does.

*References*

1. Maas, Daly, Pham, Huang, Ng, Potts, "Learning Word Vectors for Sentiment Analysis", ACL 2011:
   the data.
2. Kirscher, Remmache, Morisset, "State Space LSTM Model for NLP", ENSAE 2024: the experiment.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from pyro_ssl.datasets.batch import TextBatch, batchify
from pyro_ssl.datasets.files import (
    check_limit,
    check_split,
    find_file,
    named_for_other_split,
    open_text,
)
from pyro_ssl.datasets.text import Vocabulary, tokenize

__all__ = ["PrefixSplit", "Review", "imdb_prefix_split", "load_imdb"]

_SPLITS = ("train", "test")


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
    check_split(split, _SPLITS, "load_imdb")
    check_limit(limit, "load_imdb")
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
    return cut_reviews(
        path,
        num_reviews,
        length=length,
        train_length=train_length,
        vocab_size=vocab_size,
        vocabulary=vocabulary,
        seed=seed,
        caller="imdb_prefix_split",
    )[0]


def cut_reviews(
    path: str | os.PathLike[str],
    num_reviews: int,
    num_others: int = 0,
    *,
    length: int,
    train_length: int,
    vocab_size: int,
    vocabulary: str,
    seed: int,
    caller: str,
) -> tuple[PrefixSplit, TextBatch]:
    """Cut reviews as :func:`imdb_prefix_split` says, and ``num_others`` more, ``(length, B')``.

    The others come next in the shuffled order. None has the words of one of the first: the data
    hold some reviews twice.
    """
    if vocabulary not in ("corpus", "train"):
        raise ValueError(
            f"{caller}: found vocabulary={vocabulary!r}, expected 'corpus' or 'train'."
        )
    if not 1 <= train_length < length:
        raise ValueError(
            f"{caller}: found train_length={train_length} and length={length}, expected "
            "1 <= train_length < length. Write length=170, train_length=100."
        )
    reviews = load_imdb(path)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    order = torch.randperm(len(reviews), generator=generator, device="cpu").tolist()
    tokenised: dict[int, list[str]] = {}  # by place, so that no review is tokenised twice
    chosen, others = _choose(reviews, order, num_reviews, num_others, length, tokenised)
    found, expected = len(chosen) + len(others), num_reviews + num_others
    if found < expected:
        raise ValueError(
            f"{caller}: found {found} reviews of {length} words or more, expected {expected}. "
            f"Write num_reviews={max(found - num_others, 1)}, or take a smaller length."
        )
    if vocabulary == "corpus":
        texts = (tokenised.get(i) or tokenize(review.text) for i, review in enumerate(reviews))
    else:
        texts = (tokenised[i][:train_length] for i in chosen)
    words = Vocabulary.build(texts, vocab_size)
    full, train, more = (
        _lay_out({i: tokenised[i] for i in places}, words, steps)
        for places, steps in ((chosen, length), (chosen, train_length), (others, length))
    )
    return PrefixSplit(words, full, train), more


def _choose(
    reviews: Sequence[Review],
    order: Sequence[int],
    num_chosen: int,
    num_others: int,
    length: int,
    tokenised: dict[int, list[str]],
) -> tuple[list[int], list[int]]:
    """Choose the places of long reviews, in order; leave what was tokenised in ``tokenised``."""
    chosen: list[int] = []
    others: list[int] = []
    known: set[tuple[str, ...]] = set()
    for i in order:
        if len(chosen) == num_chosen and len(others) == num_others:
            break
        tokens = tokenised[i] = tokenize(reviews[i].text)
        start = tuple(tokens[:length])
        if len(start) == length and len(chosen) < num_chosen:
            chosen.append(i)
            known.add(start)
        elif len(start) == length and start not in known:
            others.append(i)
    return chosen, others


def _lay_out(texts: dict[int, list[str]], vocabulary: Vocabulary, max_len: int) -> TextBatch:
    """Make a batch of texts, whose ``kept`` is their places in the data."""
    kept = torch.tensor(list(texts), dtype=torch.long, device="cpu")  # (B,)
    return replace(batchify(texts.values(), vocabulary, max_len=max_len), kept=kept)


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
    with open_text(path, (".jsonl",), "load_imdb") as lines:
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
            if other and "split" not in row:
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
