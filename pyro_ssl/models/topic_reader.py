"""What a fitted topical model says: topics, how well they hold together, and what comes next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..infer import ParticleFilter
from ..reading.context import private_store
from .coherence import npmi
from .settings import checked
from .topics import Topic, list_topics
from .words import WordModel

__all__ = ["TopicReader", "WordForecast"]


class WordForecast(NamedTuple):
    """What comes after documents: ``topics`` ``(S, B, K)`` and ``words`` ``(S, B, V)``.

    p(z_{n+s} | x_{1:n}) and p(x_{n+s} | x_{1:n}) of the next S steps of each, n being its length.
    """

    topics: Tensor
    words: Tensor


class TopicReader(WordModel):
    """The methods of a topical model that read what was fitted.

    A subclass has ``vocabulary``, ``fitted_model``, ``transform``, and topics φ ``(K, V)`` with
    their shares ``(K,)`` as what :meth:`_fitted` returns.
    """

    vocabulary: list[str]
    transform: Callable[..., Tensor]

    @property
    def fitted_model(self) -> Callable[..., Any]:
        """The model with its topics given."""
        raise NotImplementedError

    @checked
    def topics(
        self, num_words: int = 10, *, relevance: float = 1.0, leave_out: Collection[str] = ()
    ) -> list[Topic]:
        """Return the topics by falling occupancy, each with its ``num_words`` likeliest words.

        :param float relevance: λ of Sievert & Shirley (2014), from 1, the likeliest words, to 0,
            those that tell a topic from the others; see ``topics.py``.
        :param leave_out: words that are not listed, such as ``"<unk>"`` and stop words.
        """
        phi, occupancy = self._fitted()
        return list_topics(phi, occupancy, self.vocabulary, num_words, relevance, leave_out)

    @checked
    def coherence(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        num_words: int = 10,
        relevance: float = 1.0,
        leave_out: Collection[str] = (),
    ) -> Tensor:
        """Return the NPMI coherence of each topic's first words, float64 ``(K,)``, from -1 to 1.

        See ``coherence.py``; the documents are what counts as together.

        :param Tensor words: documents, ``(T, B)``, not necessarily those of the fit.
        """
        listed = self.topics(num_words, relevance=relevance, leave_out=leave_out)
        ids = {word: v for v, word in enumerate(self.vocabulary)}
        chosen = [[ids[word] for word in topic.words] for topic in listed]
        words, _, active = self._take("coherence", words, lengths)
        found = npmi(chosen, words, active)
        order = torch.tensor([topic.index for topic in listed], device=found.device)
        return torch.zeros_like(found).index_copy_(0, order, found)

    def shares(self, words: Tensor, lengths: Tensor | None = None, **how: Any) -> Tensor:
        """Return the share of each topic in each document, ``(B, K)``.

        The mean of :meth:`transform` over a document's words, 0 for one that has none.

        :param how: further arguments of :meth:`transform`.
        """
        words, lengths, active = self._take("shares", words, lengths)
        total = self.transform(words, lengths, **how).sum(0)
        return total / active.sum(0).clamp(min=1).unsqueeze(-1)

    @checked
    def forecast(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        horizon: int = 1,
        num_particles: int = 100,
    ) -> WordForecast:
        """Return the distributions of the topics and words that come next; see the result's class.

        :param Tensor words: what came before, ``(T, B)``; each document has one word at least.
        :param int horizon: S.
        """
        phi, _ = self._fitted()
        topics = phi.new_empty(horizon, words.shape[1], len(phi))
        for index, found in self._futures("forecast", words, lengths, horizon, num_particles):
            topics[:, index] = found.state_probs
        return WordForecast(topics, topics @ phi)

    @checked
    def generate(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        horizon: int = 20,
        leave_out: Collection[str] = ("<unk>",),
        num_particles: int = 100,
    ) -> Tensor:
        """Continue documents: draw the next words, int64 ``(S, B)``, from their distribution.

        :param Tensor words: the prompts, ``(T, B)``; each has one word at least.
        :param int horizon: S.
        :param leave_out: words that are never drawn.
        """
        phi, _ = self._fitted()
        left = set(leave_out)
        kept = torch.tensor([w not in left for w in self.vocabulary], device=phi.device)
        out = torch.empty(horizon, words.shape[1], dtype=torch.long, device=phi.device)
        for index, found in self._futures("generate", words, lengths, horizon, num_particles):
            P, B, _ = found.paths.shape
            which = torch.randint(P, (B,), device=phi.device)
            z = found.paths[which, torch.arange(B, device=phi.device)].T  # (S, B)
            chosen = torch.multinomial((phi * kept)[z.flatten()], 1)
            out[:, index] = chosen.reshape(z.shape)
        return out

    def _futures(
        self, method: str, words: Any, lengths: Any, horizon: int, num_particles: int
    ) -> Iterator[tuple[Tensor, Any]]:
        """Forecasts of documents of one length at a time, with their places.

        :raises ValueError: if a document has no word.
        """
        model, where = self.fitted_model, f"{type(self).__name__}.{method}"
        words, lengths, active = self._take(method, words, lengths)
        n = active.sum(0)
        if n.numel() and not bool(n.min() > 0):
            raise ValueError(
                f"{where}: document {int(n.argmin())} has no word, expected one at least to go on "
                "from; leave empty documents out."
            )
        with private_store():
            for length in n.unique().tolist():
                (index,) = (n == length).nonzero(as_tuple=True)
                pf = ParticleFilter(model, num_particles)
                yield index, pf.forecast(words[:length, index], horizon=horizon)
