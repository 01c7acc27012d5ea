"""What a model of topics keeps of a stream of documents: counts, a sample, and what moved.

Next file to read: ``streams.py``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .door import active_cells
from .learners import Learner

__all__ = ["Learned", "PartRecord"]


@dataclass(frozen=True)
class PartRecord:
    """What one part of a stream came to.

    ``perplexity`` is that of the part before anything was learned from it, NaN of a first part.
    ``loss`` is -log p(z, x) per word in the last pass, and ``change_rate`` the share of topics that
    this pass renewed. ``step_size`` is ρ, the weight of the part's words. ``movement`` says of each
    topic how far its words have moved: the total variation between p(word | topic) before and after
    the part, from 0 to 1, NaN of a first part. ``num_words`` are those of the part,
    ``num_new_words`` those that the vocabulary grew by.
    """

    part: int
    num_words: int
    num_new_words: int
    perplexity: float
    loss: float
    change_rate: float
    step_size: float
    movement: tuple[float, ...]
    seconds: float


@dataclass
class Learned:
    """What is kept of the documents that were learned from.

    ``num_words`` is how many they had, and ``num_at_start`` how many of them there were when topics
    last started from an HMM. ``counts`` is float64 ``(K, V)`` what is kept of their topics
    (``None`` after a fit: topics and shares tell it), and ``gone`` the share in it of those that
    are not kept themselves, ``None`` where all are. ``words`` ``(T, R)`` and ``lengths`` are those
    that are, and ``paths`` ``(T, R)`` their topics as last drawn, in the smallest type;
    ``optimiser`` is the state of the LSTM's, by parameter.
    """

    num_words: int
    num_at_start: int = 0
    counts: Tensor | None = None
    gone: Tensor | None = None
    words: Tensor | None = None
    paths: Tensor | None = None
    lengths: Tensor | None = None
    optimiser: dict[str, Any] = field(default_factory=dict)
    parts: list[PartRecord] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Return it as a tree that can be saved."""
        return {**vars(self), "parts": [asdict(record) for record in self.parts]}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Learned:
        """Return what :meth:`state` was of."""
        return cls(**{**state, "parts": [PartRecord(**record) for record in state["parts"]]})

    def check(self, num_topics: int, num_words: int) -> None:
        """Check that it is of a model of such sizes.

        :raises ValueError: if it is of another.
        """
        for table in (self.counts, self.gone):
            if table is not None and tuple(table.shape) != (num_topics, num_words):
                raise ValueError(f"counts of shape {tuple(table.shape)}")
            if table is not None and not bool((table >= 0).all()):
                raise ValueError("counts below 0")
        for table, size in ((self.words, num_words), (self.paths, num_topics)):
            if table is not None and table.numel():
                if int(table.min()) < 0 or int(table.max()) >= size:
                    raise ValueError(f"documents with words or topics not below {size}")
        if self.paths is not None and (self.words is None or self.paths.shape != self.words.shape):
            raise ValueError("topics of other documents than the words")

    def starts(self, num_words: int) -> bool:
        """Return whether topics start anew with so many more words.

        They do where all documents are kept, and are twice as many words as at the last start.
        """
        return self.gone is None and self.num_words + num_words >= 2 * self.num_at_start

    def of_words(self, phi: Any, occupancy: Any, concentration: Tensor) -> Learned:
        """Return it with the counts that topics are the estimates of, where it has none."""
        if self.counts is not None:
            return self
        n = occupancy.double() * self.num_words
        beta = concentration.double()
        mass = n + beta.sum(-1)
        counts = (phi.double() * mass.unsqueeze(-1) - beta).clamp(min=0.0)
        return replace(self, counts=counts, gone=counts)

    def widened(self, num_new_words: int, device: torch.device) -> Learned:
        """Return it on a device, with room for new words."""
        wide: dict[str, Any] = {"counts": self.counts, "gone": self.gone}
        wide = {k: n if n is None else F.pad(n, (0, num_new_words)) for k, n in wide.items()}
        wide |= {"words": self.words, "lengths": self.lengths, "paths": self.paths}
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in wide.items()}
        return replace(self, **moved)

    def faded(self, num_words: int, rho: float) -> Tensor | None:
        """Return the counts of what is gone as they weigh in a part of so many words."""
        if self.gone is None or self.counts is None:
            return None
        return self.gone * (num_words * (1.0 - rho) / rho / float(self.counts.sum()))

    def beside(self, words: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the documents that are kept, and those of a part after them."""
        if self.words is None or not self.words.numel():
            return words, lengths
        T = max(len(words), len(self.words))
        if lengths is None:
            lengths = torch.full_like(words[0], len(words))
        each = [F.pad(w, (0, 0, 0, T - len(w))) for w in (self.words, words)]
        kept = self.lengths
        assert kept is not None
        return torch.cat(each, 1), torch.cat([kept, lengths])

    def after(
        self,
        learner: Learner,
        data: tuple[Tensor, Tensor | None],
        memory: int,
        past: Tensor | None,
    ) -> Learned:
        """Return what is kept once all documents at hand were learned from.

        :param int memory: documents that are kept.
        :param Tensor past: counts of what was gone before, as they weigh now.
        """
        words, lengths = data
        order = torch.randperm(words.shape[1], device=words.device)
        kept, leaving = order[:memory].sort().values, order[memory:]
        active, gone = active_cells(words, lengths), past
        counts = learner.estimates.counts["phi"].clamp(min=0.0)  # rounding may leave -1e-7
        # Means over steps, before some of which not all documents were met: each word counts once.
        of_words = torch.bincount(words[active], minlength=counts.shape[1])
        tiny = torch.finfo(counts.dtype).tiny
        counts = counts * (of_words / counts.sum(0).clamp(min=tiny))
        if len(leaving):
            left = learner.counts_of(words, active, leaving)
            gone = left if past is None else past + left
        if lengths is None:
            lengths = torch.full_like(words[0], len(words))
        return Learned(
            0,
            counts=counts if past is None else past + counts,
            gone=gone,
            words=words[:, kept],
            paths=learner.paths[: len(words), kept],
            lengths=lengths[kept],
            optimiser=learner.optimiser_state(),
        )
