r"""The topical SSL, ready-made (Zheng et al. 2017, arXiv 1711.11179, Example 2).

.. math::
    φ_k \sim \mathrm{Dir}(β), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{Cat}(\mathrm{softmax}(W h_t + b)), \qquad
    x_t \mid z_t \sim \mathrm{Cat}(φ_{z_t})
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.optim import AdamW
from torch import Tensor

from ..infer import MarkovEM
from ..infer.warm_start import search_markov
from ..primitive import ssl_transition
from .base import EpochRecord
from .cell_options import check_options, make_transition
from .epochs import fit_epochs, whole_or_not
from .learned import Learned
from .learners import check_fit, make_learner
from .pruning import Prunable
from .saved_fit import saved
from .scoring import filtered_log_likelihood, filtered_perplexity, sampled_shares
from .settings import checked
from .streams import LearnsInParts
from .topic_reader import TopicReader
from .topics import check_shares, names_of
from .word_priors import word_prior
from .words import check_start

__all__ = ["TopicalSSL"]


class TopicalSSL(LearnsInParts, Prunable, TopicReader):
    r"""Topics with long memory: an LSTM over topics, a categorical over words for each.

    :param int num_topics: K.
    :param vocabulary: the words, in the order of their ids, as a list or a ``Vocabulary`` has them;
        or V, their number.
    :param int hidden_size: H, units of the LSTM.
    :param concentration: β of the Dirichlet prior of each topic's words: a number, or one for each
        word, ``(V,)``, or topic and word, ``(K, V)``. Topics stay where their prior has its say.
    :param anchors: words that belong to a topic: ``{0: ["film", "actor"], 3: ["war"]}``, or a list
        of lists. The other topics are free.
    :param float anchor_weight: what each anchor adds to β: as if it had been met so many times in
        its topic, before any text.
    :param float dropout: dropout of the LSTM's output while it learns.
    :param str cell: ``"lstm"``, or ``"mlstm"`` for the multiplicative LSTM.
    :param options: of the cell: ``forget_bias`` of :class:`~pyro_ssl.LSTMTransition`, or those of
        :class:`~pyro_ssl.MultiplicativeLSTMTransition`, ``weight_norm`` among them.

    Data are time first, ``words`` ``(T, B)`` and ``lengths`` ``(B,)``, as
    :func:`pyro_ssl.datasets.batchify` makes them: tensors, arrays or lists of any whole numbers,
    and anything past the lengths. :attr:`model` is the Pyro model, for any other inference.

    Example::

        >>> import torch
        >>> words = torch.randint(20, (7, 12))
        >>> ssl = TopicalSSL(num_topics=3, vocabulary=20, hidden_size=8)
        >>> history = ssl.fit(words, num_epochs=1, markov_steps=9, transition_steps=9)
        >>> len(ssl.topics(num_words=5)), ssl.transform(words, num_samples=3).shape
        (3, torch.Size([7, 12, 3]))
    """

    #: p(word | topic), ``(K, V)``, once fitted
    phi: Tensor | None
    #: share of the training words in each topic, ``(K,)``, once fitted
    occupancy: Tensor | None

    _how_to_fit, _read_corpora = "ssl.fit(words)", ("fit", "fit(valid=)", "perplexity")

    @checked
    def __init__(
        self,
        num_topics: int,
        vocabulary: Sequence[str] | int,
        *,
        hidden_size: int = 64,
        concentration: Any = 0.1,
        anchors: Any = None,
        anchor_weight: float = 100.0,
        dropout: float = 0.5,
        cell: str = "lstm",
        **options: Any,
    ) -> None:
        check_options("TopicalSSL", cell, options)
        names = names_of(vocabulary)
        beta = word_prior(concentration, anchors, anchor_weight, num_topics, names)
        config = {"num_topics": num_topics, "vocabulary": names, "hidden_size": hidden_size}
        super().__init__(**config, dropout=dropout, cell=cell, **options)
        self.vocabulary = names
        self.transition = make_transition(cell, num_topics, hidden_size, dropout, options)
        self._set_concentration(beta)
        for name in ("phi", "occupancy"):
            self.register_buffer(name, None)
        #: the exact HMM that the fit started from, which is also a baseline
        self.markov: MarkovEM | None = None
        self.learned: Learned | None = None

    def model(
        self, words: Tensor, lengths: Tensor | None = None, index: Tensor | None = None
    ) -> None:
        """Run the generative process of the class's docstring, as a Pyro model.

        :param Tensor index: documents to run it on, ``(N,)``; by default all.
        """
        pyro.module("transition", self.transition)
        phi = pyro.sample("phi", dist.Dirichlet(self._prior).to_event(1))
        with pyro.plate("documents", words.shape[1], subsample=index):
            if index is not None:
                words, lengths = words[:, index], None if lengths is None else lengths[index]
            for t, z in ssl_transition("z", self.transition, len(words), lengths=lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    @property
    def fitted_model(self) -> Callable[..., Any]:
        """The model with its topics given: what ``ParticleFilter`` and others take."""
        phi, _ = self._fitted()
        return poutine.condition(self.model, data={"phi": phi})

    @checked
    @whole_or_not
    @saved
    def fit(
        self,
        words: Any,
        lengths: Tensor | None = None,
        *,
        valid: Any = None,
        num_epochs: int = 50,
        batch_size: int | None = None,
        inference: str = "particle_gibbs",
        num_particles: int = 10,
        num_sweeps: int = 1,
        num_gradient_steps: int = 1,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        ancestor_sampling: int | None = None,
        twist: Any = "markov",
        draw_topics: bool | None = None,
        draw_transition: bool | None = None,
        averaging: float = 0.9,
        markov: MarkovEM | None = None,
        markov_steps: int = 150,
        markov_starts: int = 3,
        sparsity: float | None = None,
        transition_steps: int = 60,
        num_valid_particles: int = 20,
        patience: int | None = None,
        callback: Callable[[EpochRecord], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        resume: bool = False,
        disable_progbar: bool | None = None,
        paths_folder: str | os.PathLike[str] | None = None,
    ) -> list[EpochRecord]:
        r"""Fit by stochastic EM, from the exact Markov fit of the same model.

        :param words: int64 ``(T, B)``, with ``lengths`` ``(B,)``; or a ``TokenCorpus``, on disk.
        :param valid: ``(words, lengths)`` or ``(words, lengths, start)`` to choose by, scored from
            ``start`` on; or a corpus. HMM and epoch are those of the lowest perplexity.
        :param int num_epochs: at most so many.
        :param int batch_size: documents in a step of EM; by default all, at the price of memory.
            The HMM and the scores go through them in blocks that bound it, whatever this is.
        :param str inference: the E-step: ``"particle_gibbs"`` draws paths from their exact joint
            posterior; ``"smc"`` by unconditional SMC, biased (with one particle: LLA, Zaheer et
            al. 2017); ``"mean_field"`` factorises it, by Pyro's ``SVI``.
        :param int num_particles: P; under ``"mean_field"`` the draws that estimate the ELBO.
        :param int num_sweeps: sweeps of ``"particle_gibbs"`` in a step, each from the last path.
        :param int num_gradient_steps: of the LSTM on each step's paths, and of the factors.
        :param float learning_rate: of AdamW, for the LSTM (the factors' is ten times it).
        :param bool draw_topics: and ``draw_transition``, by ``dropout``: see ``draw_dirichlet`` of
            :class:`~pyro_ssl.StochasticEM`; both by default under ``"particle_gibbs"``.
        :param twist: lets particles look ahead; see :class:`~pyro_ssl.ParticleGibbs`.
        :param float averaging: weight of the past in the counts that topics are estimated from.
        :param MarkovEM markov: a fitted HMM of this model to start from.
        :param int markov_steps: else, EM iterations of the HMM at most; 0: from random topics.
        :param int markov_starts: random starts of the HMM, of which the best is kept.
        :param float sparsity: α of a prior that empties topics which the text has no need of, so
            that K is an upper bound: see ``infer/sparse_markov.py``; then :meth:`prune`.
        :param int transition_steps: gradient steps of the LSTM on the HMM's paths at the start.
        :param int num_valid_particles: P of the validation perplexity.
        :param checkpoint: a folder to save the fit in, after every so many epochs (``every``);
            with ``resume`` it goes on from there: see :class:`~pyro_ssl.models.Model`.
        :param paths_folder: see :class:`~pyro_ssl.StochasticEM`; ``patience``, ``callback``,
            ``disable_progbar``, and how a fit ends: see :func:`~pyro_ssl.models.fit_epochs`.
        :returns: :attr:`history`, one record per epoch; ``loss`` is -log p(z, x) per word, of the
            drawn topics z, or the bound on -log p(x) under ``"mean_field"``.
        :raises ValueError: if a setting is out of range, or the data do not fit.
        """
        words, lengths, valid = self._take_all(words, lengths, valid)
        check_fit(self, inference, words, batch_size, markov)
        how: dict[str, Any] = {"num_sweeps": num_sweeps, "num_gradient_steps": num_gradient_steps}
        how |= {"learning_rate": learning_rate, "weight_decay": weight_decay, "twist": twist}
        how |= {"ancestor_sampling": ancestor_sampling, "paths_folder": paths_folder}
        how |= {"draw_topics": draw_topics, "draw_transition": draw_transition}
        learner = make_learner(inference, self.model, num_particles, averaging=averaging, **how)

        def step() -> tuple[float, float]:
            found = learner.epoch(words, lengths, batch_size, disable_progbar)
            self.phi, self.occupancy = learner.topics()
            return found

        def score(words: Tensor, lengths: Tensor | None = None, start: int = 0) -> dict[str, float]:
            P = num_valid_particles
            return {"perplexity": self.perplexity(words, lengths, num_particles=P, start=start)}

        # Its own model would register the parameters of another one's LSTM.
        self.markov = markov and markov.for_model(self.model)
        quiet: dict[str, Any] = {"disable_progbar": disable_progbar}
        block, data = self._block(words), (words, lengths)
        goes_on = self._saving is not None and self._saving.found is not None
        if markov is None and markov_steps and goes_on:
            self.markov = MarkovEM(self.model)
        elif markov is None and markov_steps:
            how = {"num_steps": markov_steps, "num_starts": markov_starts, **quiet}
            how |= {"valid": valid, "sparsity": sparsity, "batch_size": block}
            search_markov(self.model, *data, reached=partial(setattr, self, "markov"), **how)
        parts = learner.parts | ({} if self.markov is None else {"markov": self.markov})
        if self.markov is not None and not goes_on:
            optim = AdamW({"lr": learning_rate, "weight_decay": weight_decay})
            how = {"num_steps": transition_steps, "optim": optim, "batch_size": batch_size}
            learner.begin(self.markov, self.transition, *data, block, **how)
            self.phi, self.occupancy = learner.topics()
        self.learned = Learned(words.shape.numel() if lengths is None else int(lengths.sum()))
        how = {"patience": patience, "callback": callback, "valid": valid, "score": score}
        return fit_epochs(self, num_epochs, step, monitor="perplexity", parts=parts, **how, **quiet)

    @checked
    def log_likelihood(
        self, words: Tensor, lengths: Tensor | None = None, *, num_particles: int = 100
    ) -> Tensor:
        """Return log p̂(x_t | x_{1:t-1}), float64 ``(T, B)``, by a particle filter.

        It is 0 past the lengths.
        """
        model = self.fitted_model
        words, lengths, _ = self._take("log_likelihood", words, lengths)
        return filtered_log_likelihood(model, words, lengths, num_particles, self._tables)

    @checked
    def perplexity(
        self,
        words: Any,
        lengths: Tensor | None = None,
        *,
        num_particles: int = 100,
        start: int = 0,
    ) -> float:
        """Return exp(-mean log p̂(x_t | x_{1:t-1})) per word, of a corpus too, by a particle filter.

        :param int start: score from this step on; earlier words are only conditioned on.
        """
        model = self.fitted_model
        words, lengths, active = self._take("perplexity", words, lengths)
        start = check_start("TopicalSSL.perplexity", start, active)
        return filtered_perplexity(model, words, lengths, num_particles, self._tables, start)

    @checked
    def transform(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        num_samples: int = 50,
        warmup_steps: int = 10,
        num_particles: int = 10,
    ) -> Tensor:
        """Return p(z_t = k | x_{1:T}) of every word, ``(T, B, K)``, by particle Gibbs.

        Past a document's length the probabilities are 0. Memory is bounded but for these.
        """
        model, weight = self.fitted_model, self.transition.head.weight
        words, lengths, _ = self._take("transform", words, lengths)
        how_long: dict[str, Any] = {"num_samples": num_samples, "warmup_steps": warmup_steps}
        return sampled_shares(
            model, words, lengths, num_particles, self._tables, weight, **how_long
        )

    def _sizes_of_buffers(self, tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {"phi": (self.num_topics, len(self.vocabulary)), "occupancy": (self.num_topics,)}

    def _check_values(self) -> None:
        super()._check_values()
        check_shares(*self._fitted())

    @property
    def _sizes(self) -> tuple[int, torch.device]:
        return len(self.vocabulary), self.transition.head.weight.device
