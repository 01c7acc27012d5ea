"""A corpus on disk where a model expects a tensor of words: a minibatch is read at a time."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..infer import MarkovEM
from ..reading.program import Program

__all__ = ["Corpus", "CorpusWords", "PathsOnDemand", "take_corpus"]


@runtime_checkable
class Corpus(Protocol):
    """What a model asks of a corpus: of :class:`~pyro_ssl.datasets.TokenCorpus`, or of another.

    ``lengths`` ``(N,)``; ``vocabulary``, the words by id; ``digest``, a text that other content has
    not; and ``batch(index, num_steps=0)`` with the ``words`` ``(T, B)`` of some sequences, T being
    the longest length of these, or ``num_steps`` where that is more.
    """

    lengths: Tensor

    @property
    def vocabulary(self) -> Sized:
        """The words by id."""

    @property
    def digest(self) -> str:
        """What tells its content."""

    def batch(self, indices: Any, *, num_steps: int = 0) -> Any:
        """Read some sequences."""

    def __len__(self) -> int: ...


class CorpusWords:
    """Words ``(T, N)`` of which ``words[:, index]`` are read, as long as the longest of them.

    Lengths are those of the corpus, ``(N,)``, and in memory.

    :param Corpus corpus: the corpus.
    :param device: where what is read is put.
    :param int least: T of what is read at least.

    Example::

        >>> import tempfile
        >>> from pyro_ssl.datasets import TokenCorpus
        >>> folder = tempfile.mkdtemp() + "/corpus"
        >>> corpus = TokenCorpus.build(folder, ["a b", "c"], 9, disable_progbar=True)
        >>> words = CorpusWords(corpus, torch.device("cpu"))
        >>> words.shape, words[:, torch.tensor([1])]
        (torch.Size([2, 2]), tensor([[3]]))
    """

    def __init__(self, corpus: Corpus, device: torch.device, least: int = 0) -> None:
        self.corpus, self.device, self.least = corpus, device, least
        longest = int(corpus.lengths.max()) if len(corpus) else 0
        self.shape = torch.Size([max(longest, least), len(corpus)])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: tuple[slice, Tensor]) -> Tensor:
        batch = self.corpus.batch(key[1].cpu(), num_steps=self.least)
        return batch.words.to(self.device)

    def scored_from(self, start: int) -> CorpusWords:
        """Return the same, each minibatch long enough to be scored from step ``start`` on."""
        return CorpusWords(self.corpus, self.device, start + 1)


class PathsOnDemand:
    """Paths of an HMM, ``(N, T)``, drawn for the sequences that are asked for.

    :param MarkovEM hmm: of a model of words, lengths and places.
    :param words: ``(T, B)``, a tensor or :class:`CorpusWords`.
    :param Tensor lengths: ``(B,)``.
    :param Tensor own: places of the N sequences, ``(N,)``.
    """

    def __init__(self, hmm: MarkovEM, words: Any, lengths: Tensor | None, own: Tensor) -> None:
        self.shape, self.device = torch.Size([len(own), len(words)]), own.device
        self._draw: Callable[[Tensor], Tensor] = lambda part: (
            hmm.draw(Program(hmm.model, (words, lengths, own[part])))[1].T
        )

    def __getitem__(self, part: Tensor) -> Tensor:
        return self._draw(part)


def take_corpus(
    where: str, corpus: Corpus, lengths: Any, vocab_size: int, device: torch.device
) -> tuple[Any, Tensor, Tensor]:
    """Return words, lengths, and a mask of the steps ``(T, 1)`` that some sequence has.

    :raises ValueError: if it has words that the model does not know, no sequence, or lengths were
        given.
    """
    if len(corpus.vocabulary) > vocab_size or lengths is not None or not len(corpus):
        raise ValueError(
            f"{where}: found a corpus of {len(corpus):,} sequences over V = "
            f"{len(corpus.vocabulary):,} words{' with lengths' * (lengths is not None)}, expected "
            f"one at least, V of {vocab_size:,} at most, and no lengths, which it has; write "
            "TopicalSSL(num_topics, corpus.vocabulary) and ssl.fit(corpus, batch_size=250)."
        )
    words = CorpusWords(corpus, device)
    return words, corpus.lengths.to(device), torch.ones(len(words), 1, dtype=torch.bool)
