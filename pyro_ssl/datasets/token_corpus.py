"""A corpus on disk, larger than memory if need be: built once, opened by any number of processes.

Read ``token_files.py`` first, which says what is in its folder. Opened, it is mapped: what is
looked at is read, and nothing else. Parts of it, as passages of all texts, or nine tenths of them
to learn from, are corpora over the same files, and take memory by their sequences alone.
"""

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import hides_progbar
from ..errors import CheckpointError
from ..steps import minibatches_by_length
from .arguments import as_indices, generator, integer, real
from .batch import TextBatch
from .text import Vocabulary, tokenize
from .token_building import Tokenizer, write_ids, write_texts
from .token_files import TokenFiles, open_corpus

__all__ = ["TokenCorpus"]


class TokenCorpus:
    """Sequences of word ids that are read from disk as they are asked for.

    Make one by :meth:`build` or :meth:`from_ids`, once, and then by :meth:`open`. It is a sequence:
    ``corpus[i]`` is int64 ``(n,)``. Texts without a word are left out; :attr:`texts` has the places
    of the others.

    :param TokenFiles files: opened files.
    :param starts: int64 ``(N,)``, where each sequence begins among the tokens.
    :param ends: int64 ``(N,)``, where it ends.
    :param texts: int64 ``(N,)``, which of the texts it is of.

    **Example**::

        >>> import tempfile
        >>> from pyro_ssl.datasets import TokenCorpus
        >>> folder = tempfile.mkdtemp() + "/corpus"
        >>> texts = ["To be or not to be.", "...", "To do!"]
        >>> corpus = TokenCorpus.build(folder, texts, vocab_size=4, disable_progbar=True)
        >>> len(corpus), corpus[1], corpus.texts.tolist()
        (2, tensor([1, 3]), [0, 2])
        >>> corpus.batch([1, 0]).words.T
        tensor([[1, 3, 0, 0, 0, 0],
                [1, 2, 0, 0, 1, 2]])
        >>> [index.tolist() for index in corpus.batches(1, seed=0)]
        [[0], [1]]
        >>> TokenCorpus.open(folder).passages(2)
        TokenCorpus(4 sequences, 8 words, V=4)
    """

    def __init__(
        self, files: TokenFiles, starts: np.ndarray, ends: np.ndarray, texts: np.ndarray
    ) -> None:
        self._files, self._starts, self._ends = files, starts, ends
        #: which of the texts that were given each sequence is of, int64 ``(N,)``
        self.texts = torch.from_numpy(texts)
        #: words in each sequence, int64 ``(N,)``
        self.lengths = torch.from_numpy(ends - starts)

    # ---------------------------------------------------------------------------- made and opened

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        texts: Iterable[str | Iterable[str]],
        vocab_size: int | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        tokenize: Tokenizer = tokenize,
        max_words: int = 2**22,
        disable_progbar: bool | None = None,
    ) -> "TokenCorpus":
        """Fill a folder with texts that are read as they come, and open it.

        They are gone through once to count their words, which a ``vocabulary`` saves, and once to
        write their ids. Nothing is in place before all is; who is killed meanwhile starts again.

        :param folder: where nothing is yet.
        :param texts: strings, or texts in pieces: a list, a :class:`TextFiles`, or anything else
            that can be gone through twice.
        :param int vocab_size: V, ``"<unk>"`` included: the most frequent words.
        :param Vocabulary vocabulary: the words, in place of ``vocab_size``.
        :param tokenize: cuts a string into words.
        :param int max_words: different words that are counted at a time, which bounds the memory.
            Of more the rarest are forgotten, with a warning if that can change the vocabulary.
        :param bool disable_progbar: hide the progress bars; by default where ``CI`` is set.
        :raises FileExistsError: if something is in the folder.
        :raises TypeError: if ``texts`` can be gone through only once, or hold no strings.
        :raises ValueError: unless there is one of ``vocab_size`` and ``vocabulary``, and a word.
        """
        disable = hides_progbar(disable_progbar)
        sizes = vocab_size, max_words
        return cls.open(write_texts(folder, texts, sizes, vocabulary, tokenize, disable))

    @classmethod
    def from_ids(
        cls,
        folder: str | os.PathLike[str],
        rows: Iterable[Any],
        vocabulary: Vocabulary,
        *,
        disable_progbar: bool | None = None,
    ) -> "TokenCorpus":
        """Fill a folder with sequences of ids that are given one after the other, and open it.

        :param rows: whole numbers ``(n,)`` each, from 0 to V - 1.
        :raises IndexError: if an id is none of the vocabulary's.
        """
        disable = hides_progbar(disable_progbar)
        return cls.open(write_ids(folder, rows, vocabulary, disable))

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> "TokenCorpus":
        """Open a corpus that was built.

        :param bool verify: read the tokens once, and compare their hash with what was written.
        :raises CheckpointError: a ValueError, if there is none, or it is damaged.
        """
        files = open_corpus(folder, verify)
        sizes = np.diff(files.offsets)
        texts = np.flatnonzero(sizes)
        return cls(files, files.offsets[texts], files.offsets[texts + 1], texts)

    # --------------------------------------------------------------------------------- what it has

    @property
    def vocabulary(self) -> Vocabulary:
        """The words by id."""
        return self._files.vocabulary

    @property
    def num_tokens(self) -> int:
        """How many words its sequences have, unknown ones included."""
        return int(self.lengths.sum())

    @property
    def unknown_rate(self) -> float:
        """The share of words outside the vocabulary, in all texts of the folder."""
        return self._files.num_unknown / len(self._files.tokens)

    @property
    def digest(self) -> str:
        """A hash of its content: two corpora with the same have the same sequences."""
        found = hashlib.sha256(self._files.digest.encode())
        found.update(self._starts.tobytes())
        found.update(self._ends.tobytes())
        return found.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, i: int) -> Tensor:
        place = int(as_indices([i], len(self), "TokenCorpus", torch.device("cpu"))[0])
        return torch.from_numpy(self._tokens(np.arange(self._starts[place], self._ends[place])))

    def batch(
        self, indices: Any, *, device: str | torch.device | None = None, num_steps: int = 0
    ) -> TextBatch:
        """Read some sequences, side by side.

        :param indices: ``(B,)`` places, or an ``(N,)`` bool mask.
        :param device: where the batch is put; by default the CPU.
        :param int num_steps: T at least; by default the longest of them.
        :returns: a :class:`TextBatch`, whose ``kept`` are the places.
        :raises IndexError: if there is no such sequence.
        :raises CheckpointError: if the files hold what is no word.
        """
        index = as_indices(indices, len(self), "TokenCorpus.batch", torch.device("cpu"))
        index = index.remainder(max(len(self), 1))  # negative ones count from the end
        lengths = self.lengths[index]
        T = max(int(lengths.max()) if len(index) else 0, num_steps)
        steps = np.arange(T)[:, None]
        inside = steps < lengths.numpy()
        cells = np.where(inside, self._starts[index.numpy()] + steps, 0)  # (T, B)
        words = torch.from_numpy(np.where(inside, self._tokens(cells), 0))
        batch = TextBatch(words, lengths, index, torch.zeros_like(index))
        return batch if device is None else batch.to(device)

    def batches(self, batch_size: int, *, by_length: bool = True, seed: int = 0) -> list[Tensor]:
        """Return the minibatches of an epoch, as places for :meth:`batch`.

        :param int batch_size: sequences in each.
        :param bool by_length: put sequences of similar lengths together, so that little is padding;
            which ones, and in which order, is drawn all the same.
        :param int seed: of the order, which has a generator of its own. Write ``seed=epoch`` for
            another order in each epoch.
        """
        size = integer(batch_size, "batch_size", "TokenCorpus.batches")
        draw = generator(seed, "TokenCorpus.batches")
        order = torch.randperm(len(self), generator=draw, device="cpu")
        if not by_length:
            return list(order.split(size))
        return minibatches_by_length(order, self.lengths, size)

    # ------------------------------------------------------------------------------ parts of it

    def select(self, indices: Any) -> "TokenCorpus":
        """Return the corpus of some sequences, in the order given; see :meth:`batch`."""
        places = as_indices(indices, len(self), "TokenCorpus.select", torch.device("cpu")).numpy()
        return self._part(self._starts[places], self._ends[places], self.texts.numpy()[places])

    def split(self, valid: float = 0.1, *, seed: int = 0) -> tuple["TokenCorpus", "TokenCorpus"]:
        """Split it at random in a part to learn from and one to choose by, neither empty.

        Split texts first, and cut them into :meth:`passages` then, so that no text is in both.

        :param float valid: share of the sequences in the second part.
        :param int seed: of the split, which has a generator of its own.
        :raises ValueError: if it is no share, or there are fewer than two sequences.
        """
        share = real(valid, "valid", "TokenCorpus.split")
        if not 0.0 < share < 1.0 or len(self) < 2:
            raise ValueError(
                f"TokenCorpus.split: found valid={valid} of {len(self)} sequences, expected a "
                "number between 0 and 1, and two sequences or more. Write valid=0.1."
            )
        draw = generator(seed, "TokenCorpus.split")
        order = torch.randperm(len(self), generator=draw, device="cpu")
        number = min(max(round(share * len(self)), 1), len(self) - 1)
        return self.select(order[number:].sort().values), self.select(order[:number].sort().values)

    def passages(self, length: int, min_length: int = 1) -> "TokenCorpus":
        """Return the corpus of consecutive passages of its sequences.

        :param int length: words in each.
        :param int min_length: a last passage shorter than this is left out.
        :raises ValueError: unless ``1 <= min_length <= length``, and a passage is left.
        """
        length = integer(length, "length", "TokenCorpus.passages")
        min_length = integer(min_length, "min_length", "TokenCorpus.passages")
        sizes = self.lengths.numpy()
        number = -(-sizes // length)
        of = np.repeat(np.arange(len(self)), number)  # which sequence each passage is of
        first = np.repeat(np.cumsum(number) - number, number)
        starts = self._starts[of] + (np.arange(len(of)) - first) * length
        ends = np.minimum(starts + length, self._ends[of])
        keep = ends - starts >= min_length
        if min_length > length or not keep.any():
            raise ValueError(
                f"TokenCorpus.passages: found length={length} and min_length={min_length}, and no "
                f"passage of the {len(self):,} sequences is left, expected 1 <= min_length <= "
                "length. Write corpus.passages(100, min_length=20)."
            )
        return self._part(starts[keep], ends[keep], self.texts.numpy()[of[keep]])

    def __repr__(self) -> str:
        return (
            f"TokenCorpus({len(self):,} sequences, {self.num_tokens:,} words, "
            f"V={len(self.vocabulary):,})"
        )

    def _part(self, starts: np.ndarray, ends: np.ndarray, texts: np.ndarray) -> "TokenCorpus":
        return TokenCorpus(self._files, starts, ends, texts)

    def _tokens(self, cells: np.ndarray) -> np.ndarray:
        """Read ids, int64; what is no word is damage."""
        found = self._files.tokens[cells].astype(np.int64)
        if found.max(initial=0) >= len(self.vocabulary):
            raise CheckpointError(
                f"TokenCorpus: found id {found.max()} in its files, expected 0 to "
                f"{len(self.vocabulary) - 1}: they are damaged. Copy the folder again, or build it "
                "anew; TokenCorpus.open(folder, verify=True) compares all of it."
            )
        return found
