"""From raw texts to words with ids.

::

    texts --tokenize--> token lists --Vocabulary.build--> vocabulary
                                    --batchify----------> TextBatch: words (T, B), lengths (B,)

There is no pad word and no start word: a vocabulary holds the words of the text and ``"<unk>"``,
which stands for all others and has id 0. Next: :mod:`pyro_ssl.datasets.batch`.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from ..storage import read_file, reading, write_durably
from .arguments import as_ids, integer
from .counting import WordCounts

__all__ = ["UNKNOWN", "Vocabulary", "split_passages", "tokenize"]

_FORMAT = 1
_LARGEST_FILE = 2**26

#: The word that stands for every word outside a vocabulary; its id is 0.
UNKNOWN = "<unk>"

# A letter, then letters, digits and inner underscores, then contractions; the look-behind keeps
# the tail of "2nd" from being a word.
_WORD = re.compile(r"(?<![^\W_])[^\W\d_](?:\w*[^\W_])?(?:'[^\W\d_]+)*")


def tokenize(text: str, *, lowercase: bool = True) -> list[str]:
    """Cut a text into words, lower-cased by default.

    A word starts with a letter, of any alphabet. Inner apostrophes and underscores stay, and so
    do digits after the first letter (``don't``, ``target_list``, ``utf8``): a reader of topics
    knows these as words. Numbers, ordinals, punctuation and markup go; a hyphen separates.

    :param str text: The raw text.
    :param bool lowercase: Whether ``The`` and ``the`` are one word.
    :returns: Its words, in order.

    **Example**::

        >>> tokenize("The __init__ method's 2nd line isn't re-run: see *target_list*, UTF8.")
        ['the', 'init', "method's", 'line', "isn't", 're', 'run', 'see', 'target_list', 'utf8']
    """
    text = text.lower() if lowercase else text
    return _WORD.findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def split_passages(tokens: Sequence[str], length: int, min_length: int = 1) -> list[list[str]]:
    """Cut a long document into consecutive passages of ``length`` words.

    :param tokens: The words of one document.
    :param int length: Words in each passage.
    :param int min_length: A last passage shorter than this is dropped.
    :returns: The passages, in order; none where the document is shorter than ``min_length``.
    :raises ValueError: unless ``1 <= min_length <= length``.

    **Example**::

        >>> split_passages("a b c d e".split(), length=2)
        [['a', 'b'], ['c', 'd'], ['e']]
        >>> split_passages("a b c d e".split(), length=2, min_length=2)
        [['a', 'b'], ['c', 'd']]
    """
    tokens = check_tokens(tokens, "split_passages(tokenize(text), length)")
    length, min_length = (
        integer(value, name, "split_passages", least=None)
        for name, value in (("length", length), ("min_length", min_length))
    )
    if not 1 <= min_length <= length:
        raise ValueError(
            f"split_passages: found length={length} and min_length={min_length}, expected "
            "1 <= min_length <= length. Write split_passages(tokens, length=100, min_length=20)."
        )
    passages = (list(tokens[start : start + length]) for start in range(0, len(tokens), length))
    return [passage for passage in passages if len(passage) >= min_length]


class Vocabulary(Sequence[str]):
    """The words that a model knows, each with its id; id 0 is :data:`UNKNOWN`.

    It is a sequence of its words.

    :param words: The words in the order of their ids, ``"<unk>"`` first, each once.
    :raises TypeError: if a word is not a string.
    :raises ValueError: if the first word is another, or a word stands twice.

    **Example**::

        >>> vocabulary = Vocabulary.build([["to", "be", "or", "not", "to", "be"]], size=3)
        >>> vocabulary.words
        ('<unk>', 'be', 'to')
        >>> vocabulary.encode(["not", "to", "be"])
        [0, 2, 1]
        >>> vocabulary.decode([2, 1])
        ['to', 'be']
        >>> "or" in vocabulary
        False
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words: tuple[str, ...] = tuple(words)
        for i, word in enumerate(self.words):
            if not isinstance(word, str):
                raise TypeError(
                    f"Vocabulary: found {word!r:.40} at id {i}, expected a string. Write "
                    "Vocabulary(map(str, words))."
                )
        self._ids = {word: i for i, word in enumerate(self.words)}
        if self.words[:1] != (UNKNOWN,):
            raise ValueError(
                f"Vocabulary: found {self.words[:1]} at id 0, expected {(UNKNOWN,)}. Write "
                f"Vocabulary([{UNKNOWN!r}, *words]), or Vocabulary.build(token_lists, size)."
            )
        if len(self._ids) < len(self.words):
            [(word, count)] = Counter(self.words).most_common(1)
            raise ValueError(
                f"Vocabulary: found {word!r} {count} times, expected every word once. Write "
                "Vocabulary(dict.fromkeys(words))."
            )

    @classmethod
    def build(cls, token_lists: Iterable[Sequence[str]], size: int) -> "Vocabulary":
        """Take the most frequent words of a text.

        Words that occur equally often come in alphabetical order: the same text always gives the
        same ids.

        :param token_lists: One list of words for each document; a generator will do.
        :param int size: V, the number of words, ``"<unk>"`` **included**; fewer where the text
            has fewer.
        :raises TypeError: if texts are given in place of token lists.
        :raises ValueError: if ``size`` is below 1.
        """
        if (size := integer(size, "size", "Vocabulary.build", least=None)) < 1:
            raise ValueError(
                f"Vocabulary.build: found size={size}, expected 1 or more ({UNKNOWN!r} is one of "
                "the words). Write Vocabulary.build(token_lists, size=2000)."
            )
        counts = WordCounts(without=UNKNOWN)
        for tokens in check_token_lists(token_lists, "Vocabulary.build(token_lists, size)"):
            counts.add(tokens)
        return cls([UNKNOWN, *counts.most_frequent(size - 1)])

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Turn words into ids; a word outside the vocabulary has id 0.

        :raises TypeError: if a text is given in place of its words, or one of them is no string.
        """
        tokens = check_tokens(tokens, "vocabulary.encode(tokenize(text))")
        return [self._ids.get(token, 0) for token in tokens]

    def decode(self, ids: Iterable[int] | Tensor) -> list[str]:
        """Turn ids into words.

        :param ids: ``(N,)``, a list, an array or a tensor of whole numbers.
        :raises IndexError: if an id is negative, or V or more.
        :raises ValueError: if an id has a fraction, or there is more than one dimension.
        """
        line = "Write vocabulary.decode(batch.words[: batch.lengths[b], b]) for column b."
        found = as_ids(ids if isinstance(ids, Tensor) else list(ids), "Vocabulary.decode")
        if found.dim() != 1:
            raise ValueError(
                f"Vocabulary.decode: found ids of shape {tuple(found.shape)}, expected (N,). {line}"
            )
        for i in found.tolist():
            if not 0 <= i < len(self):
                raise IndexError(
                    f"Vocabulary.decode: found id {i}, expected 0 to {len(self) - 1}. {line}"
                )
        return [self.words[i] for i in found.tolist()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the words to a JSON file, whole or not at all.

        :raises OSError: if it cannot be written; a file that was there before stays as it was.
        """
        target = Path(path).resolve()  # a link goes on pointing to what it names
        content = {"format": _FORMAT, "sha256": _digest(self.words), "words": self.words}
        write_durably(target.parent, {target.name: json.dumps(content, indent=0).encode()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read what :meth:`save` has written, or a file ``{"words": ["<unk>", ...]}`` by hand.

        :raises CheckpointError: a ValueError, if the file is missing, damaged, or not one of these.
        """
        expected = f'JSON of the form {{"words": ["{UNKNOWN}", ...]}}. Write it with '
        with reading(path, expected + "vocabulary.save(path)."):
            return cls(_checked_words(json.loads(read_file(Path(path), _LARGEST_FILE))))

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.words[index]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words)"


def check_tokens(tokens: Any, call: str) -> list[str]:
    """Return words as a list.

    :raises TypeError: if it is a text, whose letters Python would take for words, or no words.
    """
    if isinstance(tokens, str):
        raise TypeError(
            f"found the string {tokens[:20]!r}, expected a list of words. Write {call}."
        )
    words = list(tokens) if isinstance(tokens, Iterable) else [tokens]
    for word in words:
        if not isinstance(word, str):
            raise TypeError(
                f"found {word!r:.40} among words, expected a list of strings. Write {call}."
            )
    return words


def check_token_lists(token_lists: Any, call: str) -> Iterator[list[str]]:
    """Pass token lists on, one by one, and raise at the first that is none."""
    line = call.replace("token_lists", "[tokenize(text) for text in texts]")
    if isinstance(token_lists, str) or not isinstance(token_lists, Iterable):
        token_lists = [token_lists]
    for tokens in token_lists:
        yield check_tokens(tokens, line)


def _checked_words(content: Any) -> list[str]:
    """The words that a vocabulary's file holds."""
    if not isinstance(content, dict) or not isinstance(content.get("words"), list):
        raise ValueError("no list of words")
    if isinstance(version := content.get("format"), int) and version > _FORMAT:
        raise ValueError(
            f"a vocabulary of format {version}, not {_FORMAT}: a newer version of pyro_ssl saved "
            "it. Write pip install --upgrade pyro-ssl; this version"
        )
    sealed = {"format": _FORMAT, "sha256": _digest(content["words"]), "words": content["words"]}
    if content not in (sealed, {"words": content["words"]}):
        raise ValueError("words that were altered after they were saved")
    return content["words"]


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()
