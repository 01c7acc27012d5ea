"""All that the demonstration found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..datasets import Corpus
from ..models import EpochRecord
from ..pages import ReadableTopics
from .marked import Passage
from .memory import Memory
from .scores import Difference

__all__ = ["Report", "Row"]


class Row(NamedTuple):
    """A model in the comparison; shares are relative to the two baselines' perplexities."""

    model: str
    perplexity: float
    under_unigram: float
    against_hmm: float


@dataclass(frozen=True)
class Report:
    """All that the demonstration found out.

    ``baselines`` has the test perplexities of ``"unigram"`` and ``"exact HMM"``; ``test_curve`` has
    the SSL's, after every epoch, and ``valid_hmm`` is the HMM's on the validation text.
    ``coherence`` is NPMI by topic, ``usage`` how much of the test text each has, both ``(K,)``.
    ``difference`` is how different the topics are, ``chance`` how different topics are that differ
    by chance alone.
    """

    corpus: Corpus
    settings: dict[str, int]
    baselines: dict[str, float]
    valid_hmm: float
    test_curve: list[float]
    history: list[EpochRecord]
    topics: ReadableTopics
    coherence: Tensor
    phi: Tensor
    occupancy: Tensor
    difference: Difference
    chance: Difference
    passages: list[Passage]
    usage: Tensor
    memory: Memory | None
    seconds: float

    @property
    def kept(self) -> int:
        """The epoch with the lowest validation perplexity."""
        return min(self.history, key=lambda record: record.score).epoch

    @property
    def perplexity(self) -> float:
        """The SSL's test perplexity at the epoch that is kept."""
        return self.test_curve[self.kept - 1]

    def comparison(self) -> list[Row]:
        """Compare the models, the SSL last."""
        unigram, hmm = self.baselines["unigram"], self.baselines["exact HMM"]
        K = self.settings["topics"]
        models = {"unigram": unigram, f"exact HMM, {K} states": hmm}
        models[f"SSL, {K} topics"] = self.perplexity
        return [Row(name, v, 1.0 - v / unigram, v / hmm - 1.0) for name, v in models.items()]
