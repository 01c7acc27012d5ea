"""The files of a corpus on disk: ids one after the other, where each text begins, the vocabulary.

A folder holds ``tokens.bin``, the ids of all texts in the smallest type that holds V - 1;
``offsets.bin``, int64, text i being tokens ``offsets[i]`` to ``offsets[i + 1]``;
``vocabulary.json``; and ``corpus.json``, sealed, with sizes and the SHA-256 of each. It is filled
beside its place and moved there whole, so that what is there was built to the end.

Next file to read: ``token_corpus.py``.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..checkpoint import sealed, unsealed
from ..errors import CheckpointError
from ..storage import (
    blocks_of,
    filled_in_one_step,
    hash_of,
    map_file,
    read_file,
    reading,
)
from .files import as_path
from .text import Vocabulary

__all__ = ["TokenFiles", "TokenWriter", "new_corpus", "open_corpus"]

_FORMAT = 1
_HEADER, _TOKENS, _OFFSETS, _VOCABULARY = (
    "corpus.json",
    "tokens.bin",
    "offsets.bin",
    "vocabulary.json",
)
_LARGEST_HEADER = 2**20
_OFFSET = np.dtype("<i8")
_EXPECTED = (
    "what TokenCorpus.build(folder, texts, vocab_size) filled. Copy the folder again, or build it "
    "anew in another one."
)


class TokenFiles(NamedTuple):
    """A corpus that is opened: its vocabulary, and its arrays, mapped.

    ``tokens`` ``(num_tokens,)`` and ``offsets`` ``(num_texts + 1,)``; ``digest`` tells the content.
    """

    vocabulary: Vocabulary
    tokens: np.ndarray
    offsets: np.ndarray
    num_unknown: int
    digest: str


class TokenWriter:
    """Takes in texts one after the other, and keeps none of them in memory.

    :param Path folder: where its files go.
    :param Vocabulary vocabulary: of the ids.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        self.folder, self.vocabulary = folder, vocabulary
        self.dtype = smallest_type(len(vocabulary))
        self.num_tokens = self.num_texts = self.num_unknown = 0
        self._hashes = {name: hashlib.sha256() for name in (_TOKENS, _OFFSETS)}
        self._files = {name: open(folder / name, "xb") for name in self._hashes}
        self._write(_OFFSETS, np.zeros(1, _OFFSET))

    def add(self, pieces: Iterable[np.ndarray]) -> None:
        """Take in a text, as ids in pieces."""
        for piece in pieces:
            self.num_unknown += int((piece == 0).sum())
            self.num_tokens += len(piece)
            self._write(_TOKENS, piece.astype(self.dtype))
        self.num_texts += 1
        self._write(_OFFSETS, np.array([self.num_tokens], _OFFSET))

    def finish(self) -> None:
        """Write vocabulary and header."""
        self.close()
        self.vocabulary.save(self.folder / _VOCABULARY)
        words = read_file(self.folder / _VOCABULARY, 2**30)
        body = {
            "dtype": self.dtype.str,
            "num_texts": self.num_texts,
            "num_tokens": self.num_tokens,
            "num_unknown": self.num_unknown,
            "sha256": {name: found.hexdigest() for name, found in self._hashes.items()}
            | {_VOCABULARY: hash_of([words])},
        }
        (self.folder / _HEADER).write_bytes(sealed(body, _FORMAT))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _write(self, name: str, array: np.ndarray) -> None:
        content = array.tobytes()
        self._hashes[name].update(content)
        self._files[name].write(content)


def smallest_type(size: int) -> np.dtype:
    """Return the smallest type of whole numbers that holds ``size - 1``, little end first.

    Example::

        >>> smallest_type(256).name, smallest_type(257).name, smallest_type(70_000).name
        ('uint8', 'uint16', 'uint32')
    """
    return next(
        t for t in map(np.dtype, ("<u1", "<u2", "<u4", "<i8")) if size - 1 <= np.iinfo(t).max
    )


@contextmanager
def new_corpus(folder: Path, vocabulary: Vocabulary) -> Iterator[TokenWriter]:
    """Fill a folder, which is in its place once the block is over.

    :raises ValueError: if no text has a word.
    """
    with filled_in_one_step(folder) as filling:
        writer = TokenWriter(filling, vocabulary)
        try:
            yield writer
        finally:
            writer.close()
        if not writer.num_tokens:
            raise ValueError(
                f"TokenCorpus: found {writer.num_texts} texts without a single word, expected a "
                "word in one of them. Look at what went in: [tokenize(text) for text in texts[:3]]."
            )
        writer.finish()


def check_place(folder: str | os.PathLike[str], caller: str) -> Path:
    """Return where a new corpus is to go.

    :raises FileExistsError: if something is there.
    """
    place = as_path(folder, caller)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        found = "a corpus" if (place / _HEADER).exists() else "other files"
        raise FileExistsError(
            f"{caller}: found {found} at {place}, expected nothing there. Write "
            f"TokenCorpus.open({str(place)!r}) for a corpus that is built, or name another folder."
        )
    return place


def open_corpus(folder: str | os.PathLike[str], verify: bool) -> TokenFiles:
    """Map the files of a corpus.

    :param bool verify: read all tokens once, a block at a time, and compare their hash.
    :raises CheckpointError: if there is none, or it is damaged.
    """
    place = as_path(folder, "TokenCorpus.open")
    if not (place / _HEADER).is_file():
        raise CheckpointError(
            f"{place}: found no corpus, for {_HEADER} is missing; expected {_EXPECTED} A build "
            "that was stopped leaves nothing: start it again."
        )
    with reading(place, _EXPECTED):
        header = read_file(place / _HEADER, _LARGEST_HEADER, links=False)
        body = unsealed(place / _HEADER, header, _FORMAT, "corpus")
        vocabulary = Vocabulary.load(place / _VOCABULARY)
        dtype, sizes = np.dtype(body["dtype"]), (body["num_tokens"], body["num_texts"] + 1)
        tokens = _mapped(place / _TOKENS, dtype, sizes[0])
        offsets = _mapped(place / _OFFSETS, _OFFSET, sizes[1])
        _check(body, _VOCABULARY, [read_file(place / _VOCABULARY, 2**30)])
        _check(body, _OFFSETS, blocks_of(offsets))
        if verify:
            _check(body, _TOKENS, blocks_of(tokens))
        digest = hashlib.sha256(header).hexdigest()
        return TokenFiles(vocabulary, tokens, offsets, body["num_unknown"], digest)


def _mapped(path: Path, dtype: np.dtype, size: int) -> np.ndarray:
    """An array of the whole file, without the class of numpy's that is slow to slice."""
    array = map_file(path, dtype, (size,))
    if (found := path.stat().st_size) != array.nbytes:
        raise ValueError(f"{found:,} bytes in {path.name}, where {array.nbytes:,} should be")
    return array.view(np.ndarray)


def _check(body: dict[str, Any], name: str, blocks: Iterable[bytes]) -> None:
    if hash_of(blocks) != body["sha256"][name]:
        raise ValueError(f"a damaged {name}: its content is not what was written")
