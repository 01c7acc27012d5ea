"""A corpus on disk is filled: texts are counted, and then written, as they come.

Next file to read: ``token_files.py``.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .arguments import as_ids, integer
from .counting import WordCounts
from .text import UNKNOWN, Vocabulary
from .token_files import check_place, new_corpus

__all__ = ["Tokenizer", "write_ids", "write_texts"]

#: cuts a string into words
Tokenizer = Callable[[str], Sequence[str]]


def write_texts(
    folder: str | os.PathLike[str],
    texts: Any,
    sizes: tuple[int | None, int],
    vocabulary: Vocabulary | None,
    tokenize: Tokenizer,
    disable: bool,
) -> Path:
    """Fill a folder with texts; see :meth:`TokenCorpus.build`.

    :param sizes: ``vocab_size`` and ``max_words``.
    :param bool disable: hide the progress bars.
    :returns: the folder.
    """
    place = check_place(folder, "TokenCorpus.build")
    vocab_size, max_words = sizes
    if (vocab_size is None) == (vocabulary is None):
        raise ValueError(
            f"TokenCorpus.build: found vocab_size={vocab_size} and vocabulary={vocabulary}, "
            "expected one of them. Write vocab_size=10_000."
        )
    bar: dict[str, Any] = {"unit": " texts", "disable": disable}
    total = len(texts) if hasattr(texts, "__len__") else None
    if vocabulary is None:
        vocab_size = integer(vocab_size, "vocab_size", "TokenCorpus.build")
        most = integer(max_words, "max_words", "TokenCorpus.build")
        counts = WordCounts(most, without=UNKNOWN)
        _check_twice(texts)
        num_texts = 0
        for text in tqdm(_checked(texts), desc="counting", total=total, **bar):
            num_texts += 1
            for piece in text:
                counts.add(tokenize(piece))
        vocabulary, total = _vocabulary(counts, vocab_size), num_texts
    with new_corpus(place, vocabulary) as writer:
        for text in tqdm(_checked(texts), desc="writing", total=total, **bar):
            writer.add(_ids(vocabulary, tokenize(piece)) for piece in text)
    return place


def write_ids(
    folder: str | os.PathLike[str], rows: Iterable[Any], vocabulary: Vocabulary, disable: bool
) -> Path:
    """Fill a folder with ids; see :meth:`TokenCorpus.from_ids`."""
    place = check_place(folder, "TokenCorpus.from_ids")
    with new_corpus(place, vocabulary) as writer:
        for i, row in enumerate(tqdm(rows, desc="writing", unit=" texts", disable=disable)):
            ids = as_ids(row, f"TokenCorpus.from_ids: row {i}").numpy()
            if ids.ndim != 1 or ids.size and not 0 <= ids.min() <= ids.max() < len(vocabulary):
                raise IndexError(
                    f"TokenCorpus.from_ids: found row {i} of shape {ids.shape} with ids from "
                    f"{ids.min(initial=0)} to {ids.max(initial=0)}, expected (n,) and 0 to "
                    f"V - 1 = {len(vocabulary) - 1}. Write vocabulary.encode(tokens)."
                )
            writer.add([ids])
    return place


def _check_twice(texts: Any) -> None:
    if isinstance(texts, Iterator):
        raise TypeError(
            f"TokenCorpus.build: found a {type(texts).__name__}, which can be gone through only "
            "once, expected texts that can be counted and then written. Write a list, "
            "TextFiles(paths), or vocabulary=, with which one pass is enough."
        )


def _checked(texts: Any) -> Iterator[Iterable[str]]:
    """Each text as its pieces."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(
            f"TokenCorpus.build: found {texts!r:.60}, expected texts. Write TextFiles(path) for a "
            "file's, and [text] for a single one."
        )
    for text in texts:
        if not isinstance(text, str | Iterable):
            raise TypeError(
                f"TokenCorpus.build: found {text!r:.60} among the texts, expected strings. Write "
                '[row["text"] for row in rows].'
            )
        yield [text] if isinstance(text, str) else text


def _ids(vocabulary: Vocabulary, tokens: Sequence[str]) -> np.ndarray:
    return np.array(vocabulary.encode(tokens), np.int64)


def _vocabulary(counts: WordCounts, size: int) -> Vocabulary:
    words = counts.most_frequent(size - 1)
    if not counts.is_certain(words, size - 1):
        warnings.warn(
            f"TokenCorpus.build: found more different words than the {counts.most:,} that are "
            f"counted at a time, so that words which occur up to {counts.forgotten:,} times may be "
            f"missing among the {len(words):,} of the vocabulary. Write a larger max_words, or a "
            "smaller vocab_size.",
            stacklevel=3,
        )
    return Vocabulary([UNKNOWN, *words])
