"""What a model asks of the words that it is given: shapes, lengths, device, vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Model
from .corpus_words import Corpus, CorpusWords, take_corpus
from .door import active_cells, integers, lengths_of, on_device

__all__ = ["WordModel", "check_start", "take_words"]


def take_words(
    where: str, words: Any, lengths: Any, vocab_size: int, device: torch.device
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return words int64 ``(T, B)``, their lengths, and :func:`active_cells`.

    It reads values back from the device, so it is called once per use, never in a loop over steps.

    :param str where: who asks, for the messages.
    :param words: whole numbers ``(T, B)`` of any type; past the lengths anything may stand, and 0
        comes.
    :param lengths: ``(B,)``.
    :param int vocab_size: V.
    :param device: where the model is.
    :raises ValueError: if they do not fit one another, or a word is outside the vocabulary.
    """
    words = on_device(f"{where}: words", words, device)
    if words.dim() != 2:
        raise ValueError(
            f"{where}: words have shape {tuple(words.shape)} and dtype {words.dtype}, expected "
            "integers (T, B), time first; write words = words[:, None] for one text."
        )
    lengths = lengths_of(where, lengths, len(words), words.shape[1], device)
    active = active_cells(words, lengths)
    words = integers(f"{where}: words", words, device, read=active)
    seen = words[active]
    if seen.numel():
        low, high = (int(value) for value in torch.aminmax(seen))
        if low < 0 or high >= vocab_size:
            write = f"Make the model with a vocabulary of {max(high + 1, vocab_size)}"
            if where.endswith("partial_fit"):
                write = "Take new words in by vocabulary=[*ssl.vocabulary, *new]"
            raise ValueError(
                f"{where}: found words from {low} to {high}, expected 0 to V - 1 = "
                f"{vocab_size - 1}. {write}, or give lengths=lengths, where the padding begins."
            )
    return words.clamp(min=0), lengths, active


def check_start(where: str, start: Any, active: Tensor) -> int:
    """Return the step that words are scored from.

    :param Tensor active: where a word stands, bool ``(T, B)``.
    :raises ValueError: if no word is left to score.
    """
    good = isinstance(start, int) and start >= 0 and bool(active[start:].any())
    if not good:
        raise ValueError(
            f"{where}: found no word to score from start={start} on, in words of shape "
            f"{tuple(active.shape)}; expected one at least. Write start=0, or a step below the "
            "longest length."
        )
    return int(start)


class WordModel(Model):
    """A model of words: how its methods take their data."""

    #: which of them read a corpus on disk
    _read_corpora: tuple[str, ...] = ()

    @property
    def _sizes(self) -> tuple[int, torch.device]:
        """V, and where the model is."""
        raise NotImplementedError

    def _take(self, method: str, words: Any, lengths: Any) -> tuple[Any, Tensor | None, Tensor]:
        """The data as tensors, and where a word stands; see :func:`take_words`."""
        where = f"{type(self).__name__}.{method}"
        self._check_dtype(where)
        if isinstance(words, CorpusWords):  # taken before
            return words, lengths, torch.ones(len(words), 1, dtype=torch.bool)
        if not isinstance(words, Corpus):
            return take_words(where, words, lengths, *self._sizes)
        if method not in self._read_corpora:
            raise ValueError(
                f"{where}: found a corpus on disk, expected words (T, B): what it returns, or "
                "learns from, is in memory. Write batch = corpus.batch(index), and give "
                "batch.words, batch.lengths."
            )
        return take_corpus(where, words, lengths, *self._sizes)

    def _take_all(
        self, words: Any, lengths: Any, valid: Any
    ) -> tuple[Any, Tensor | None, tuple[Any, Tensor | None, int] | None]:
        """The data of a fit as tensors, and those of validation, with the step to score from.

        :raises ValueError: if they are of another form, or without a word.
        """
        words, lengths, active = self._take("fit", words, lengths)
        name = f"{type(self).__name__}.fit"
        if not bool(active.any()):
            raise ValueError(
                f"{name}: found no word in words of shape {tuple(active.shape)}; expected a "
                "sequence of length 1 or more."
            )
        if valid is None:
            return words, lengths, None
        if isinstance(valid, Corpus):
            valid = (valid,)
        if not isinstance(valid, tuple | list) or not 1 <= len(valid) <= 3:
            raise ValueError(
                f"{name}: valid is a {type(valid).__name__}, expected (words, lengths) or (words, "
                "lengths, start); write valid=(words, None) where all texts are of one length."
            )
        given, n, start = [*valid, None, 0][:3] if len(valid) < 3 else valid
        held_out, held_lengths, active = self._take("fit(valid=)", given, n)
        start = check_start(f"{name}(valid=)", start or 0, active)
        if isinstance(held_out, CorpusWords):
            held_out = held_out.scored_from(start)
        return words, lengths, (held_out, held_lengths, start)
