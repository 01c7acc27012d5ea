"""From raw texts to words with ids.

::

    texts --tokenize--> token lists --Vocabulary.build--> vocabulary
                                    --batchify----------> TextBatch: words (T, B), lengths (B,)

There is no pad word and no start word: a vocabulary holds the words of the text and ``"<unk>"``,
which stands for all others and has id 0. Next: :mod:`pyro_ssl.datasets.batch`.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

__all__ = ["UNKNOWN", "Vocabulary", "split_passages", "tokenize"]

#: The word that stands for every word outside a vocabulary; its id is 0.
UNKNOWN = "<unk>"

# A letter, then letters, digits and inner underscores, then contractions; the look-behind keeps
# the tail of "2nd" from being a word.
_WORD = re.compile(r"(?<![^\W_])[^\W\d_](?:\w*[^\W_])?(?:'[^\W\d_]+)*")


def tokenize(text: str) -> list[str]:
    """Cut a text into lower-cased words.

    A word starts with a letter, of any alphabet. Inner apostrophes and underscores stay, and so
    do digits after the first letter (``don't``, ``target_list``, ``utf8``): a reader of topics
    knows these as words. Numbers, ordinals, punctuation and markup go; a hyphen separates.

    :param str text: The raw text.
    :returns: Its words, in order.

    **Example**::

        >>> tokenize("The __init__ method's 2nd line isn't re-run: see *target_list*, UTF8.")
        ['the', 'init', "method's", 'line', "isn't", 're', 'run', 'see', 'target_list', 'utf8']
    """
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


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
    if isinstance(tokens, str):
        raise raw_text_error(tokens, "split_passages(tokenize(text), length)")
    if not 1 <= min_length <= length:
        raise ValueError(
            f"split_passages: found length={length} and min_length={min_length}, expected "
            "1 <= min_length <= length. Write split_passages(tokens, length=100, min_length=20)."
        )
    passages = (list(tokens[start : start + length]) for start in range(0, len(tokens), length))
    return [passage for passage in passages if len(passage) >= min_length]


class Vocabulary:
    """The words that a model knows, each with its id; id 0 is :data:`UNKNOWN`.

    :param words: The words in the order of their ids, ``"<unk>"`` first, each once.
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
        if size < 1:
            raise ValueError(
                f"Vocabulary.build: found size={size}, expected 1 or more ({UNKNOWN!r} is one of "
                "the words). Write Vocabulary.build(token_lists, size=2000)."
            )
        counts: Counter[str] = Counter()
        for tokens in refuse_raw_text(token_lists, "Vocabulary.build(token_lists, size)"):
            counts.update(tokens)
        del counts[UNKNOWN]
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([UNKNOWN, *ranked[: size - 1]])

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Turn words into ids; a word outside the vocabulary has id 0.

        :raises TypeError: if a text is given in place of its words.
        """
        if isinstance(tokens, str):
            raise raw_text_error(tokens, "vocabulary.encode(tokenize(text))")
        return [self._ids.get(token, 0) for token in tokens]

    def decode(self, ids: Iterable[int] | Tensor) -> list[str]:
        """Turn ids, a list or a tensor of shape ``(N,)``, into words.

        :raises IndexError: if an id is negative, or V or more.
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        for i in ids:
            if not 0 <= i < len(self):
                raise IndexError(
                    f"Vocabulary.decode: found id {i}, expected 0 to {len(self) - 1}. Write "
                    "vocabulary.decode(batch.words[: batch.lengths[b], b]) for column b."
                )
        return [self.words[i] for i in ids]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the words to a JSON file."""
        text = json.dumps({"words": self.words}, ensure_ascii=False, indent=0)
        Path(path).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read what :meth:`save` has written.

        :raises ValueError: if the file is not one of these.
        """
        try:
            words = json.loads(Path(path).read_text(encoding="utf-8"))["words"]
            if not all(isinstance(word, str) for word in words):
                raise TypeError("a word is not a string")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"Vocabulary.load: found {error!r} in {path}, expected JSON of the form "
                f'{{"words": ["{UNKNOWN}", ...]}}. Write it with vocabulary.save(path).'
            ) from error
        return cls(words)

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


def raw_text_error(text: str, call: str) -> TypeError:
    """Say that a list of words was expected: Python would take a text's letters for words."""
    return TypeError(f"found the string {text[:20]!r}, expected a list of words. Write {call}.")


def refuse_raw_text(token_lists: Iterable[Sequence[str]], call: str) -> Iterator[Sequence[str]]:
    """Pass token lists on, one by one, and raise at the first that is a text."""
    for tokens in [token_lists] if isinstance(token_lists, str) else token_lists:
        if isinstance(tokens, str):
            line = call.replace("token_lists", "[tokenize(text) for text in texts]")
            raise raw_text_error(tokens, line)
        yield tokens
