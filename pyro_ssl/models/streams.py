r"""Topics from a stream: documents come in parts, and most are gone when the next part comes.

Some documents are kept, and learned from again beside those of a part. What the others leave are
counts n of each word in each topic, by the paths that were drawn last: their posterior,
Dirichlet(β + n), is the prior of the next part, within which E-steps and M-steps are those of any
fit. With m_i the counts of part i, per word of its N_i,

.. math:: s_i = (1 - ρ_i) \, s_{i-1} + ρ_i \, m_i, \qquad
          ρ_i = \left(\frac{N_i}{N_1 + \dots + N_i}\right)^κ, \qquad n_i = \frac{N_i}{ρ_i} s_i:

the step sizes of Robbins and Monro (1951), as Cappé & Moulines 2009 ("On-line expectation
maximization algorithm for latent data models") have them for EM. At κ = 1 every word counts alike,
whichever part it came in; below it what is gone fades, and topics may follow what drifts.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pyro.optim import AdamW
from torch import Tensor
from tqdm.auto import trange

from ..arguments import hides_progbar
from ..gradients import gradients
from ..infer import MarkovEM
from ..infer.blocks import block_size
from ..infer.dirichlet import DirichletSite
from ..infer.sharded import check_alone
from ..infer.warm_start import batches_of, search_markov
from ..reading.context import private_store
from .epochs import ModelBefore
from .learned import Learned, PartRecord
from .learners import make_learner
from .settings import checked
from .topics import matched, movement, names_of
from .word_priors import HasWordPrior, exchangeable

__all__ = ["LearnsInParts"]

M = TypeVar("M", bound=Callable[..., Any])


def _whole(method: M) -> M:
    """Let a call be all or nothing, with gradients, and Pyro's parameter store to itself."""

    @functools.wraps(method)
    def call(model: Any, *args: Any, **kwargs: Any) -> Any:
        with gradients(), private_store():
            before = ModelBefore(model)
            try:
                return method(model, *args, **kwargs)
            except BaseException:
                before.restore(model)
                raise
            finally:
                model._past = None

    return call  # type: ignore[return-value]


class LearnsInParts(HasWordPrior):
    """How topics are learned part by part."""

    phi: Tensor | None
    occupancy: Tensor | None
    markov: MarkovEM | None
    #: what is kept of the documents so far; ``None`` before a fit
    learned: Learned | None

    @checked
    @_whole
    def partial_fit(
        self: Any,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        vocabulary: Sequence[str] | int | None = None,
        memory: int = 5000,
        step_power: float = 1.0,
        num_epochs: int = 4,
        batch_size: int | None = 250,
        inference: str = "particle_gibbs",
        num_particles: int = 10,
        num_sweeps: int = 1,
        num_gradient_steps: int = 2,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        ancestor_sampling: int | None = None,
        twist: Any = "markov",
        draw_topics: bool | None = None,
        draw_transition: bool | None = None,
        averaging: float = 0.9,
        markov_steps: int = 40,
        markov_starts: int = 1,
        transition_steps: int = 60,
        num_valid_particles: int = 20,
        disable_progbar: bool | None = None,
    ) -> PartRecord:
        r"""Learn from the next part of a stream of documents: new documents, and new words.

        Documents that are kept in memory are learned from again with those of the part. While
        all that ever came are, topics start anew, from the exact HMM of all of them matched to the
        topics before, whenever there are twice as many words; else they go on from where they are,
        and what is gone stays in their prior, as counts. A model that :meth:`fit` has fitted goes
        on from there. A call that is interrupted, or raises, leaves the model as it was.

        :param Tensor words: int64 ``(T, B)``; documents may be of any length.
        :param Tensor lengths: ``(B,)``.
        :param vocabulary: all words, those so far in their order and new ones after them; or their
            number. A new word has its share of the prior in every topic. By default there is none.
        :param int memory: R, documents that are kept, of those in memory and of the part at random.
        :param float step_power: κ, above 0.5 and 1 at most: at 1 nothing is forgotten, below it
            counts of documents that are gone fade: see ``pyro_ssl/models/streams.py``.
        :param int num_epochs: passes over the part and the memory, 1 at least.
        :param str inference: ``"particle_gibbs"`` or ``"smc"``, see :meth:`fit`.
        :param float learning_rate: of AdamW where topics start; times √ρ where they go on.
        :param int markov_steps: and ``markov_starts``, ``transition_steps``: of the start from the
            HMM, see :meth:`fit`; with 0 there is none.
        :param int num_valid_particles: P of the perplexity of the part before it is learned from.

        Other parameters as for :meth:`fit`.

        :returns: :class:`PartRecord`: what the part came to, and what moved; also in
            ``learned.parts``.
        :raises ValueError: if a setting is out of range, or the data do not fit.

        Example::

            >>> import torch
            >>> from pyro_ssl import TopicalSSL
            >>> ssl = TopicalSSL(num_topics=2, vocabulary=6, hidden_size=4)
            >>> quick = {"num_epochs": 2, "transition_steps": 5, "disable_progbar": True}
            >>> first = ssl.partial_fit(torch.randint(6, (9, 8)), markov_steps=5, **quick)
            >>> record = ssl.partial_fit(torch.randint(8, (9, 8)), vocabulary=8, **quick)
            >>> record.part, record.num_new_words, len(record.movement), ssl.phi.shape
            (2, 2, 2, torch.Size([2, 8]))
        """
        check_alone("TopicalSSL.partial_fit")
        _check_how(inference, num_epochs)
        started, num_known = time.perf_counter(), len(self.vocabulary)
        learned = self._grown(vocabulary)
        words, lengths, active = self._take_part(words, lengths)
        num_words, before, perplexity = int(active.sum()), self.phi, math.nan
        if learned is not None:
            perplexity = self.perplexity(words, lengths, num_particles=num_valid_particles)
        learned = learned or Learned(0)
        rho = (num_words / (num_words + learned.num_words)) ** step_power
        anew = learned.starts(num_words) and bool(markov_steps or not learned.num_words)
        rate = learning_rate if anew else learning_rate * math.sqrt(rho)
        how: dict[str, Any] = {"num_sweeps": num_sweeps, "num_gradient_steps": num_gradient_steps}
        how |= {"learning_rate": rate, "weight_decay": weight_decay, "twist": twist}
        how |= {"ancestor_sampling": ancestor_sampling, "draw_topics": draw_topics}
        how["draw_transition"] = draw_transition
        learner = make_learner(inference, self.model, num_particles, averaging=averaging, **how)
        data = learned.beside(words, lengths)
        if not anew:
            self._past = learned.faded(num_words, rho)
            block = self._block(data[0])
            topics = self.phi, learned.optimiser, rate, learned.paths
            learner.go_on(*topics, data[0], data[1], block)
        elif markov_steps:
            steps: dict[str, Any] = {"num_steps": markov_steps, "num_starts": markov_starts}
            steps["disable_progbar"] = disable_progbar
            self.markov = self._markov_of(data, before, **steps)
            optim = AdamW({"lr": rate, "weight_decay": weight_decay})
            steps = {"num_steps": transition_steps, "optim": optim, "batch_size": batch_size}
            steps["block"] = self._block(data[0])
            learner.begin(self.markov, self.transition, data[0], data[1], **steps)
        self.train()
        disable = hides_progbar(disable_progbar)
        for _ in trange(num_epochs, desc="part of a stream", unit="epoch", disable=disable):
            loss, moved = learner.epoch(data[0], data[1], batch_size, disable_progbar)
        self.eval()
        left = learned.after(learner, data, memory, self._past)
        self._past = None
        self._set_topics(left.counts)
        V, seconds = len(self.vocabulary), time.perf_counter() - started
        record = PartRecord(
            *(len(learned.parts) + 1, num_words, V - num_known, perplexity, loss, moved, rho),
            movement=movement(before, self.phi),
            seconds=seconds,
        )
        left.num_words = learned.num_words + num_words
        left.num_at_start = left.num_words if anew else learned.num_at_start
        left.parts = [*learned.parts, record]
        self.learned = left
        return record

    def _grown(self, vocabulary: Sequence[str] | int | None) -> Learned | None:
        """Take new words in, with their share of the prior; return what was learned before."""
        if vocabulary is None:
            names = self.vocabulary
        else:
            names = names_of(vocabulary)
        V = len(self.vocabulary)
        if names[:V] != self.vocabulary:
            at = next(
                (v for v, (a, b) in enumerate(zip(names, self.vocabulary, strict=False)) if a != b),
                None,
            )
            found = f"{len(names)} words" if at is None else f'"{names[at]}" at {at}'
            raise ValueError(
                f"TopicalSSL.partial_fit: vocabulary has {found}, expected the {V} words so far in "
                "their order, and new ones after them; write vocabulary=[*ssl.vocabulary, *new]."
            )
        if self.phi is not None and self.learned is None:
            raise RuntimeError(
                "TopicalSSL.partial_fit: the model was fitted, but it does not say of how many "
                "words, expected one that does: an earlier version saved it; fit it anew."
            )
        if self.learned is not None:
            self.learned = self.learned.of_words(self.phi, self.occupancy, self._prior)
            self.learned = self.learned.widened(len(names) - V, self._sizes[1])
        self._widen_prior(len(names) - V)
        self.vocabulary, self.config = names, {**self.config, "vocabulary": names}
        if self.learned is not None:
            self._set_topics(self.learned.counts)
        return self.learned

    def _beside(self) -> Any:
        return None if self.learned is None else self.learned.state()

    def _put_beside(self: Any, state: Any) -> None:
        learned = Learned.of_state(state)
        learned.check(self.num_topics, len(self.vocabulary))
        self.learned = learned

    def _take_part(self, words: Any, lengths: Any) -> tuple[Tensor, Tensor | None, Tensor]:
        """The part as tensors, and where a word stands."""
        words, lengths, active = self._take("partial_fit", words, lengths)
        if not bool(active.any()):
            raise ValueError(
                f"TopicalSSL.partial_fit: found no word in words of shape {tuple(active.shape)}, "
                "expected a document of length 1 or more; leave a part without words out."
            )
        return words, lengths, active

    def _set_topics(self, counts: Any) -> None:
        """Estimate topics, and their shares, from counts ``(K, V)``."""
        self.phi = DirichletSite(self._prior).point(counts, "mean")
        self.occupancy = (counts.sum(-1) / counts.sum()).to(self.phi)

    def _block(self: Any, words: Tensor) -> int:
        """How many documents are in memory at a time, as tables over topics."""
        return int(block_size(len(words) * self.num_topics))

    def _markov_of(
        self: Any, data: tuple[Tensor, Tensor | None], before: Tensor | None, **how: Any
    ) -> MarkovEM:
        """The exact HMM of all documents, its states in the order of the topics before.

        Those whose prior has a say are where they were.
        """
        size = self._block(data[0])
        found: list[MarkovEM] = []
        search_markov(self.model, *data, batch_size=size, reached=found.append, **how)
        hmm = found[-1]
        if before is None:
            return hmm
        order = matched(before, hmm.values["phi"], exchangeable(self._prior))
        matrix = hmm.matrix[order][:, order]
        hmm = MarkovEM(self.model).start_from(
            hmm.initial[order], matrix, phi=hmm.values["phi"][order]
        )
        hmm.epoch(batches_of(*data, size))
        return hmm


def _check_how(inference: str, num_epochs: int) -> None:
    if inference == "mean_field":
        raise ValueError(
            'TopicalSSL.partial_fit: inference is "mean_field", whose factors are those of one '
            'set of documents, expected "particle_gibbs" or "smc"; write inference="smc".'
        )
    if num_epochs < 1:
        raise ValueError(
            "TopicalSSL.partial_fit: num_epochs is 0, expected 1 or more: a part is learned from "
            "once at least; write num_epochs=4, or perplexity(words) to score it alone."
        )
