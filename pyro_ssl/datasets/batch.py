"""From token lists to a batch of word ids, time first.

What is lost on the way is counted, not hidden: words outside the vocabulary
(:attr:`TextBatch.unknown_rate`), empty texts (:attr:`TextBatch.kept` holds the places of the
others) and words cut off by ``max_len`` (:attr:`TextBatch.truncated`). Letters: T steps, B texts,
V words. Read :mod:`pyro_ssl.datasets.text` first.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..steps import steps_within
from .arguments import as_ids, as_indices
from .files import check_limit
from .text import Vocabulary, check_token_lists

__all__ = ["TextBatch", "UnknownWordsWarning", "batchify"]


class UnknownWordsWarning(UserWarning):
    """Most words of a batch are outside its vocabulary."""


@dataclass(frozen=True, eq=False)
class TextBatch:
    """A ragged batch of texts, as a model takes it: ``model(batch.words, batch.lengths)``.

    Cells below a column's length are padding. They hold id 0, the id of ``"<unk>"``, only so that
    no index can wrap; they are never read, because ``lengths`` masks them.

    Arrays, lists and floats without a fraction are taken as int64 tensors.

    :param Tensor words: ``(T, B)`` int64, word ids.
    :param Tensor lengths: ``(B,)`` int64, from 1 to T.
    :param Tensor kept: ``(B,)`` int64, the place of each column among the texts that were given,
        empty ones included.
    :param Tensor truncated: ``(B,)`` int64, how many words ``max_len`` has cut off each text.
    """

    words: Tensor
    lengths: Tensor
    kept: Tensor
    truncated: Tensor

    def __post_init__(self) -> None:
        names = ("words", "lengths", "kept", "truncated")
        for name in names:
            object.__setattr__(self, name, as_ids(getattr(self, name), f"TextBatch.{name}"))
        shapes = {name: tuple(getattr(self, name).shape) for name in names}
        columns = shapes["words"][1:]
        if len(shapes["words"]) != 2 or any(shapes[name] != columns for name in names[1:]):
            raise ValueError(
                f"TextBatch: found shapes {shapes}, expected words (T, B), time first, and (B,) of "
                "the others. Write batchify(token_lists, vocabulary)."
            )

    @property
    def mask(self) -> Tensor:
        """``(T, B)`` bool, True in the cells that hold a word."""
        return steps_within(self.lengths, len(self.words))

    @property
    def num_tokens(self) -> int:
        """How many words there are, unknown ones included."""
        return int(self.lengths.sum())

    @property
    def num_unknown(self) -> int:
        """How many words are outside the vocabulary."""
        return int(((self.words == 0) & self.mask).sum())

    @property
    def unknown_rate(self) -> float:
        """The share of the words that are outside the vocabulary; 0 in an empty batch."""
        return self.num_unknown / max(self.num_tokens, 1)

    def to(self, device: str | torch.device) -> "TextBatch":
        """Move to a device."""
        return TextBatch(*(tensor.to(device) for tensor in self._tensors()))

    def select(self, indices: Tensor | Sequence[int]) -> "TextBatch":
        """Take some columns, in the order given; T stays as it is.

        :param indices: ``(N,)`` column numbers, or a ``(B,)`` bool mask.
        :raises IndexError: if there is no such column.
        """
        places = as_indices(indices, len(self.lengths), "TextBatch.select", self.words.device)
        return TextBatch(*(tensor[..., places] for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.words, self.lengths, self.kept, self.truncated

    def __repr__(self) -> str:
        steps, columns = self.words.shape
        return (
            f"TextBatch(T={steps}, B={columns}, {self.num_tokens:,} words, "
            f"{self.unknown_rate:.1%} unknown, device={self.words.device})"
        )


def batchify(
    token_lists: Iterable[Sequence[str]],
    vocabulary: Vocabulary,
    *,
    max_len: int | None = None,
    device: str | torch.device | None = None,
) -> TextBatch:
    """Encode texts of any lengths and lay them side by side.

    No texts give a batch of shape ``(0, 0)``.

    :param token_lists: One list of words for each text.
    :param Vocabulary vocabulary: The words that have an id; others become 0.
    :param int max_len: Longer texts are cut to this; :attr:`TextBatch.truncated` tells by how much.
    :param device: Where the batch is put; by default the CPU.
    :returns: A :class:`TextBatch`, B being the number of texts that are not empty.
    :raises TypeError: if texts are given in place of token lists, or words that are no strings.
    :raises ValueError: if there are texts and all are empty, or ``max_len`` is below 1.

    Warns with :class:`UnknownWordsWarning` if more than half of the words are unknown.

    **Example**::

        >>> from pyro_ssl.datasets import Vocabulary, batchify, tokenize
        >>> token_lists = [tokenize(text) for text in ["To be or not to be.", "...", "To do!"]]
        >>> batch = batchify(token_lists, Vocabulary.build(token_lists, size=4))
        >>> batch.words.T
        tensor([[1, 2, 0, 0, 1, 2],
                [1, 3, 0, 0, 0, 0]])
        >>> batch.lengths.tolist(), batch.kept.tolist(), batch.num_unknown
        ([6, 2], [0, 2], 2)
    """
    max_len = check_limit(max_len, "batchify", "max_len")
    if not isinstance(vocabulary, Vocabulary):
        raise TypeError(
            f"batchify: found {type(vocabulary).__name__}, expected a Vocabulary. Write "
            "batchify(token_lists, Vocabulary.build(token_lists, size=2000))."
        )
    token_lists = list(check_token_lists(token_lists, "batchify(token_lists, vocabulary)"))
    kept = [i for i, tokens in enumerate(token_lists) if tokens]
    if token_lists and not kept:
        raise ValueError(
            f"batchify: found {len(token_lists)} texts without a single word, expected a word in "
            "one of them. Look at what went in: [tokenize(text) for text in texts[:3]]."
        )
    rows = [vocabulary.encode(token_lists[i][:max_len]) for i in kept]
    words = _long([]).new_zeros(max(map(len, rows), default=0), len(rows))  # (T, B)
    for column, row in enumerate(rows):
        words[: len(row), column] = _long(row)
    lengths = _long(list(map(len, rows)))  # (B,)
    truncated = _long([len(token_lists[i]) for i in kept]) - lengths
    batch = TextBatch(words, lengths, _long(kept), truncated)
    if batch.unknown_rate > 0.5:
        warnings.warn(
            f"batchify: found {batch.unknown_rate:.0%} of {batch.num_tokens:,} words outside the "
            f"vocabulary of {len(vocabulary):,}, expected fewer than half. Is it of another "
            "language or tokenisation, or too small? Write Vocabulary.build(token_lists, size) "
            "with texts like these.",
            UnknownWordsWarning,
            stacklevel=2,
        )
    return batch if device is None else batch.to(device)


def _long(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device="cpu")
