"""Topics of texts, by scikit-learn's conventions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..datasets import STOP_WORDS, UNKNOWN, TextBatch, Vocabulary, batchify, tokenize
from ..models import Topic, TopicalSSL
from ..reading.context import all_or_nothing
from .base import Estimator, seeded

__all__ = ["TextTopics"]


class TextTopics(Estimator):
    """A topical SSL from texts to document-topic shares, as scikit-learn's topic models.

    Unlike those it reads words in their order: an LSTM over the topics of the words so far.

    :param int n_components: K, the number of topics.
    :param int vocab_size: V, the most frequent words, ``"<unk>"`` included.
    :param tokenizer: from a text to its words; by default
        :func:`pyro_ssl.datasets.tokenize`. Texts that are lists of words are taken as they are.
    :param stop_words: words that are dropped from the texts: ``"english"``, a collection, or
        ``None``. To drop them from lists of topics alone, see :meth:`topics`.
    :param int max_len: longer texts are cut.
    :param int hidden_size: H, units of the LSTM.
    :param float concentration: of the Dirichlet prior of each topic's words.
    :param anchors: words that belong to a topic, ``{0: ["film", "actor"]}``, or a list of lists,
        and their ``anchor_weight``: see :class:`~pyro_ssl.TopicalSSL`. Topics keep these places.
    :param int max_iter: epochs at most.
    :param int batch_size: texts in a step; by default all.
    :param float valid_share: of the texts, held out to choose the epoch by; 0: none.
    :param int patience: epochs without a better one before it ends.
    :param int random_state: seed of all random numbers; ``None``: torch's generator.
    :param bool verbose: show progress bars.
    :param dict fit_options: further arguments of :meth:`TopicalSSL.fit`.

    Example::

        >>> from pyro_ssl.estimators import TextTopics
        >>> texts = ["the cat sat on the mat", "stocks fell and bonds rose"] * 10
        >>> quick = {"markov_steps": 10, "markov_starts": 1, "transition_steps": 10}
        >>> topics = TextTopics(2, hidden_size=8, max_iter=2, random_state=0, fit_options=quick)
        >>> topics.fit_transform(texts).shape
        (20, 2)
    """

    #: the words, by their ids
    vocabulary_: Vocabulary

    def __init__(
        self,
        n_components: int = 20,
        *,
        vocab_size: int = 2000,
        tokenizer: Callable[[str], Sequence[str]] | None = None,
        stop_words: str | Collection[str] | None = None,
        max_len: int | None = None,
        hidden_size: int = 64,
        concentration: float = 0.1,
        anchors: Any = None,
        anchor_weight: float = 100.0,
        max_iter: int = 50,
        batch_size: int | None = None,
        valid_share: float = 0.1,
        patience: int | None = 10,
        random_state: int | None = None,
        verbose: bool = False,
        fit_options: dict[str, Any] | None = None,
    ) -> None:
        self.n_components, self.vocab_size = n_components, vocab_size
        self.tokenizer, self.stop_words, self.max_len = tokenizer, stop_words, max_len
        self.hidden_size, self.concentration = hidden_size, concentration
        self.anchors, self.anchor_weight = anchors, anchor_weight
        self.max_iter, self.batch_size = max_iter, batch_size
        self.valid_share, self.patience = valid_share, patience
        self.random_state, self.verbose, self.fit_options = random_state, verbose, fit_options

    @all_or_nothing
    def fit(self, X: Iterable[str | Sequence[str]], y: None = None) -> Self:
        """Learn the vocabulary and the topics of texts.

        :param X: the texts.
        :param y: is not used.
        :raises ValueError: if a setting is out of range, or no text has a word.
        """
        lists = self._words_of("fit", X)
        if not 0.0 <= self.valid_share < 1.0:
            raise ValueError(
                f"TextTopics.fit: valid_share is {self.valid_share}, expected a share from 0 to "
                "below 1; write valid_share=0.1."
            )
        with seeded("TextTopics", self.random_state):
            held_out = _held_out(len(lists), self.valid_share)
            train = [words for i, words in enumerate(lists) if i not in held_out]
            vocabulary = Vocabulary.build(train, self.vocab_size)
            batch = batchify(train, vocabulary, max_len=self.max_len)
            valid = [words for i, words in enumerate(lists) if i in held_out and words]
            scored = batchify(valid, vocabulary, max_len=self.max_len) if valid else None
            model = TopicalSSL(
                self.n_components,
                vocabulary.words,
                hidden_size=self.hidden_size,
                concentration=self.concentration,
                anchors=self.anchors,
                anchor_weight=self.anchor_weight,
            )
            model.fit(
                batch.words,
                batch.lengths,
                valid=None if scored is None else (scored.words, scored.lengths),
                num_epochs=self.max_iter,
                batch_size=self.batch_size,
                patience=None if scored is None else self.patience,
                **{"disable_progbar": not self.verbose, **(self.fit_options or {})},
            )
        self.model_, self.vocabulary_ = model, vocabulary
        return self

    def transform(self, X: Iterable[str | Sequence[str]]) -> np.ndarray:
        """Return the share of each topic in each text, ``(N, K)``; rows add up to 1.

        A text without a word has the shares of the whole training text.
        """
        model, lists = self._check_fitted(), self._words_of("transform", X)
        assert model.occupancy is not None
        shares = model.occupancy.expand(len(lists), -1).clone()
        if batch := self._batch(lists):
            with seeded("TextTopics", self.random_state):
                shares[batch.kept] = model.shares(batch.words, batch.lengths)
        return shares.double().numpy(force=True)

    def fit_transform(self, X: Iterable[str | Sequence[str]], y: None = None) -> np.ndarray:
        """Fit, and return :meth:`transform` of the same texts."""
        lists = self._words_of("fit_transform", X)
        return self.fit(lists).transform(lists)

    def score(self, X: Iterable[str | Sequence[str]], y: None = None) -> float:
        """Return log p̂ of all words of texts; the higher the better."""
        batch = self._scored("score", X)
        return -batch.num_tokens * math.log(self._perplexity(batch))

    def perplexity(self, X: Iterable[str | Sequence[str]]) -> float:
        """Return the perplexity of texts per word, each word given all before it in its text.

        Words outside the vocabulary count as ``"<unk>"``. Topic models without an order predict a
        word from the rest of a text, or from half of it: such figures do not compare.
        """
        return self._perplexity(self._scored("perplexity", X))

    @property
    def components_(self) -> np.ndarray:
        """p(word | topic), ``(K, V)``."""
        phi = self._check_fitted().phi
        assert phi is not None
        return phi.double().numpy(force=True)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return names of the columns of :meth:`transform`."""
        K = self._check_fitted().num_topics
        return np.array([f"texttopics{k}" for k in range(K)], dtype=object)

    def topics(
        self,
        num_words: int = 10,
        *,
        relevance: float = 0.6,
        leave_out: str | Collection[str] = "english",
    ) -> list[Topic]:
        """Return the topics by falling share; see :meth:`TopicalSSL.topics`.

        :param float relevance: λ; .6 is what people found best to read (Sievert & Shirley 2014).
        :param leave_out: words that are not listed beside ``"<unk>"``: a collection, or
            ``"english"`` for its function words.
        """
        hidden = {UNKNOWN, *_stop_words("leave_out", leave_out)}
        model = self._check_fitted()
        return model.topics(num_words, relevance=relevance, leave_out=hidden)

    def coherence(self, X: Iterable[str | Sequence[str]], **how: Any) -> np.ndarray:
        """Return the NPMI coherence of each topic in texts, ``(K,)``.

        :param how: arguments of :meth:`TopicalSSL.coherence`.
        """
        batch = self._scored("coherence", X)
        found = self._check_fitted().coherence(batch.words, batch.lengths, **how)
        return found.numpy(force=True)

    def generate(self, prompt: str | Sequence[str], num_words: int = 20) -> list[str]:
        """Continue a text by words that the model draws.

        :param prompt: a text with one word at least.
        """
        batch = self._scored("generate", [prompt])
        with seeded("TextTopics", self.random_state):
            ids: Tensor = self._check_fitted().generate(batch.words, horizon=num_words)
        return self.vocabulary_.decode(ids[:, 0])

    def _words_of(self, method: str, texts: Any) -> list[list[str]]:
        """The words of each text, stop words left out.

        :raises TypeError: if it is one text.
        """
        if isinstance(texts, str):
            raise TypeError(f"TextTopics.{method}: found one text, expected several; write [text].")
        cut, stop = self.tokenizer or tokenize, _stop_words("stop_words", self.stop_words or ())
        lists = (cut(text) if isinstance(text, str) else text for text in texts)
        return [[word for word in words if word not in stop] for words in lists]

    def _batch(self, lists: list[list[str]]) -> TextBatch | None:
        if not any(lists):
            return None
        device = self._check_fitted().transition.head.weight.device
        return batchify(lists, self.vocabulary_, max_len=self.max_len, device=device)

    def _scored(self, method: str, X: Any) -> TextBatch:
        """The texts that have words, as a batch.

        :raises ValueError: if none has.
        """
        self._check_fitted()
        batch = self._batch(self._words_of(method, X))
        if batch is None:
            raise ValueError(f"TextTopics.{method}: found no word in the texts, expected one.")
        return batch

    def _perplexity(self, batch: TextBatch) -> float:
        with seeded("TextTopics", self.random_state):
            return self._check_fitted().perplexity(batch.words, batch.lengths)


def _held_out(num_texts: int, share: float) -> set[int]:
    """Places of some texts, at random; none where there are fewer than ten."""
    if num_texts < 10 or not share:
        return set()
    return set(torch.randperm(num_texts, device="cpu")[: max(int(share * num_texts), 1)].tolist())


def _stop_words(name: str, given: str | Collection[str]) -> Collection[str]:
    """A collection of words by its name, or as given.

    :raises ValueError: if there is none of this name.
    """
    if not isinstance(given, str):
        return set(given)
    if given != "english":
        raise ValueError(
            f'TextTopics: {name} is "{given}", expected "english" or a collection of words; write '
            f'{name}=["{given}"].'
        )
    return STOP_WORDS
