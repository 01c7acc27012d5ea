"""How often words occur, counted in memory that may be bounded."""

import math
from collections import Counter
from collections.abc import Iterable

__all__ = ["WordCounts"]


class WordCounts:
    """Counts of words, those of the frequent ones exact.

    Where there are more different words than ``most``, the rarest half is forgotten, and it is kept
    in mind how often a forgotten word may have occurred at most (Manku & Motwani, "Approximate
    frequency counts over data streams", VLDB 2002: lossy counting). So it is known which of the
    answers are certain.

    :param int most: different words to keep; ``None``: any number.
    :param str without: a word that is not counted.

    Example::

        >>> counts = WordCounts()
        >>> counts.add("to be or not to be".split())
        >>> counts.most_frequent(2), counts.forgotten
        (['be', 'to'], 0)
    """

    def __init__(self, most: int | None = None, without: str | None = None) -> None:
        self.most, self.without = most, without
        #: how often a word that is not kept may have occurred
        self.forgotten = 0
        self._counts: Counter[str] = Counter()
        # By word, how many of its occurrences may have been forgotten before it came again.
        self._missed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, words: Iterable[str]) -> None:
        """Count words."""
        if self.forgotten:
            words = list(words)
            for word in words:
                if word not in self._counts:
                    self._missed[word] = self.forgotten
        self._counts.update(words)
        if self.without is not None:
            del self._counts[self.without]
        while self.most is not None and len(self._counts) > self.most:
            self._forget()

    def most_frequent(self, number: int) -> list[str]:
        """Return words by falling count; those that occur equally often by the alphabet.

        :param int number: at most so many.
        """
        counts = self._counts
        return sorted(counts, key=lambda word: (-counts[word], word))[:number]

    def is_certain(self, words: Iterable[str], number: int) -> bool:
        """Return whether no other word occurred more often than one of these.

        :param int number: how many were sought.
        """
        chosen = set(words)
        if len(chosen) < number and self.forgotten:
            return False
        least = min((self._counts[word] for word in chosen), default=math.inf)
        others = (
            self._counts[word] + self._missed.get(word, 0)
            for word in self._counts
            if word not in chosen
        )
        return least >= max(others, default=0) and least >= self.forgotten

    def _forget(self) -> None:
        """Forget the rarer half of the words."""
        missed = self._missed
        bounds = {word: count + missed.get(word, 0) for word, count in self._counts.items()}
        self.forgotten = sorted(bounds.values())[len(bounds) // 2]
        for word, bound in bounds.items():
            if bound <= self.forgotten:
                del self._counts[word]
                missed.pop(word, None)
