r"""The topical SSL, ready-made (Zheng et al. 2017, arXiv 1711.11179, Example 2).

.. math::
    φ_k \sim \mathrm{Dir}(β), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{Cat}(\mathrm{softmax}(W h_t + b)), \qquad
    x_t \mid z_t \sim \mathrm{Cat}(φ_{z_t})

Fitted by stochastic EM from an exact Markov start; scored by a particle filter.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.optim import AdamW
from torch import Tensor

from ..infer import MarkovEM, ParticleFilter, ParticleGibbs
from ..infer.dirichlet import normalised
from ..primitive import ssl_transition
from ..transitions import LSTMTransition, MultiplicativeLSTMTransition
from .checkpoint import load_checkpoint, save_checkpoint
from .fitting import (
    EpochRecord,
    Learner,
    StepSettings,
    fit_markov,
    keep_best,
    make_learner,
    teach_transition,
)

__all__ = ["EpochRecord", "Topic", "TopicalSSL"]

_TRANSITIONS = {"lstm": LSTMTransition, "mlstm": MultiplicativeLSTMTransition}


@dataclass(frozen=True)
class Topic:
    """One topic: its most probable words with their probabilities, and its share of the tokens."""

    index: int
    words: list[str]
    probs: list[float]
    occupancy: float


class TopicalSSL:
    r"""Topics with long memory: an LSTM over topics, a categorical over words for each.

    :param int num_topics: K.
    :param vocabulary: the words, in the order of their ids; or V, their number.
    :param int hidden_size: H, units of the LSTM.
    :param float concentration: β of the Dirichlet prior of each topic's words.
    :param float dropout: dropout of the LSTM's output while it learns.
    :param str cell: ``"lstm"``, or ``"mlstm"`` for the multiplicative LSTM.

    Data are time first, ``words`` int64 ``(T, B)`` and ``lengths`` ``(B,)``, as
    :func:`pyro_ssl.datasets.batchify` makes them. :attr:`model` is the Pyro model, for use with
    any other inference.

    Example::

        >>> words = torch.randint(20, (7, 12))
        >>> ssl = TopicalSSL(num_topics=3, vocabulary=20, hidden_size=8)
        >>> history = ssl.fit(words, num_epochs=2, disable_progbar=True)
        >>> len(ssl.topics(num_words=5)), ssl.transform(words, num_samples=3).shape
        (3, torch.Size([7, 12, 3]))
    """

    def __init__(
        self,
        num_topics: int,
        vocabulary: Sequence[str] | int,
        *,
        hidden_size: int = 64,
        concentration: float = 0.1,
        dropout: float = 0.5,
        cell: str = "lstm",
    ) -> None:
        if cell not in _TRANSITIONS:
            raise ValueError(f'cell is "{cell}", expected one of {sorted(_TRANSITIONS)}.')
        words = range(vocabulary) if isinstance(vocabulary, int) else vocabulary
        self.vocabulary = [str(word) for word in words]
        self.concentration = float(concentration)
        self.cell = cell
        self.transition = _TRANSITIONS[cell](num_topics, hidden_size, dropout=dropout)
        #: p(word | topic), ``(K, V)``, once fitted
        self.phi: Tensor | None = None
        #: share of the training words in each topic, ``(K,)``, once fitted
        self.occupancy: Tensor | None = None
        self.history: list[EpochRecord] = []
        #: the exact HMM that the fit started from, which is also a baseline
        self.markov: MarkovEM | None = None

    @property
    def num_topics(self) -> int:
        """K."""
        return self.transition.num_states

    def model(
        self, words: Tensor, lengths: Tensor | None = None, index: Tensor | None = None
    ) -> None:
        """Run the generative process of the class's docstring, as a Pyro model.

        :param Tensor index: documents to run it on, ``(N,)``; by default all.
        """
        pyro.module("transition", self.transition)
        weight = self.transition.head.weight
        beta = weight.new_full((self.num_topics, len(self.vocabulary)), self.concentration)
        phi = pyro.sample("phi", dist.Dirichlet(beta).to_event(1))
        with pyro.plate("documents", words.shape[1], subsample=index):
            if index is not None:
                words, lengths = words[:, index], None if lengths is None else lengths[index]
            for t, z in ssl_transition("z", self.transition, len(words), lengths=lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    @property
    def fitted_model(self) -> Callable[..., Any]:
        """The model with its topics given: what ``ParticleFilter`` and others take."""
        if self.phi is None:
            raise RuntimeError("TopicalSSL is not fitted yet; write ssl.fit(words) first.")
        return poutine.condition(self.model, data={"phi": self.phi})

    def fit(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        valid: tuple[Any, ...] | None = None,
        num_epochs: int = 50,
        batch_size: int | None = None,
        inference: str = "particle_gibbs",
        num_particles: int = 10,
        num_sweeps: int = 1,
        num_gradient_steps: int = 1,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        ancestor_sampling: int = 10,
        draw_topics: bool | None = None,
        averaging: float = 0.9,
        markov: MarkovEM | None = None,
        markov_steps: int = 150,
        markov_starts: int = 3,
        transition_steps: int = 60,
        num_valid_particles: int = 100,
        patience: int | None = None,
        callback: Callable[[EpochRecord], None] | None = None,
        disable_progbar: bool | None = None,
    ) -> list[EpochRecord]:
        r"""Fit by stochastic EM, from the exact Markov fit of the same model.

        :param Tensor words: int64 ``(T, B)``.
        :param Tensor lengths: ``(B,)``.
        :param valid: words and lengths to choose by, and where a third element says so, the step
            from which on they are scored. The HMM stops where their perplexity is lowest, and the
            epoch of the lowest is the one that is kept.
        :param int num_epochs: at most so many.
        :param int batch_size: documents in a step of EM; by default all.
        :param str inference: the E-step: ``"particle_gibbs"`` draws paths from their exact joint
            posterior; ``"smc"`` by unconditional SMC, biased (with one particle: LLA, Zaheer et
            al. 2017); ``"mean_field"`` factorises it, by Pyro's ``SVI``.
        :param int num_particles: P; under ``"mean_field"`` the draws that estimate the ELBO.
        :param int num_sweeps: sweeps of ``"particle_gibbs"`` in a step, each from the last path.
        :param int num_gradient_steps: steps of the LSTM on each step's paths; under
            ``"mean_field"``, of the factors too.
        :param float learning_rate: of AdamW, for the LSTM (the factors' is ten times it).
        :param bool draw_topics: the E-step sees topics drawn from their posterior, not their
            estimate; by default under ``"particle_gibbs"``. See
            ``StochasticEM(draw_dirichlet=)``.
        :param float averaging: weight of the past in the counts that topics are estimated from.
        :param MarkovEM markov: a fitted HMM of this model to start from.
        :param int markov_steps: otherwise, EM iterations of the HMM at most; 0 starts from random
            topics.
        :param int markov_starts: random starts of the HMM, of which the best is kept.
        :param int transition_steps: gradient steps of the LSTM on the HMM's paths at the start.
        :param int num_valid_particles: P of the validation perplexity.
        :param int patience: stop after so many epochs without a better validation perplexity.
        :param callback: called with each :class:`EpochRecord`.
        :returns: :attr:`history`, one record per epoch.
        """

        def optim_args(name: str) -> dict[str, float]:
            factors = name.endswith(".logits")
            return {
                "lr": learning_rate * (10.0 if factors else 1.0),
                "weight_decay": 0.0 if factors else weight_decay,
            }

        data = (words, lengths)
        draw = inference == "particle_gibbs" if draw_topics is None else draw_topics
        settings = StepSettings(
            AdamW(optim_args),
            num_particles,
            num_sweeps,
            num_gradient_steps,
            ancestor_sampling,
            draw,
            averaging,
        )
        with pyro.get_param_store().scope():
            learner = make_learner(inference, self.model, settings)
            # Its own model would register the parameters of another one's LSTM.
            self.markov = markov and markov.for_model(self.model)
            if markov is None and markov_steps:
                self.markov = fit_markov(self.model, data, valid, markov_steps, markov_starts)
            self.transition.train()
            if self.markov is not None:
                teach_transition(
                    self.transition,
                    self.markov,
                    data,
                    transition_steps,
                    batch_size=batch_size,
                    learning_rate=learning_rate,
                    weight_decay=weight_decay,
                )
                learner.start_from(self.markov, data)

            def score() -> float:
                return self._read(learner, valid, num_valid_particles)

            self.history, kept = keep_best(
                learner,
                data,
                num_epochs,
                batch_size=batch_size,
                score=score,
                snapshot=self._tensors,
                patience=patience,
                callback=callback,
                disable_progbar=disable_progbar,
            )
            if kept:
                self._set_tensors(kept)
            self.transition.eval()
        return self.history

    def _read(self, learner: Learner, valid: tuple[Any, ...] | None, num_particles: int) -> float:
        """Take over the learner's topics; return their validation perplexity, or NaN."""
        self.phi, self.occupancy = learner.phi, normalised(learner.counts.sum(-1))
        if valid is None:
            return math.nan
        words, lengths, *start = valid
        self.transition.eval()
        score = ParticleFilter(self.fitted_model, num_particles).perplexity(
            words, lengths, start=start[0] if start else 0
        )
        self.transition.train()
        return score

    def perplexity(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        num_particles: int = 100,
        start: int = 0,
    ) -> float:
        """Return exp(-mean log p̂(x_t | x_{1:t-1})) per word, by a particle filter.

        :param int start: score from this step on; earlier words are only conditioned on.
        """
        with pyro.get_param_store().scope():
            model = self.fitted_model
            return ParticleFilter(model, num_particles).perplexity(words, lengths, start=start)

    def topics(self, num_words: int = 10) -> list[Topic]:
        """Return the topics by falling occupancy, each with its ``num_words`` likeliest words."""
        if self.phi is None or self.occupancy is None:
            raise RuntimeError("TopicalSSL is not fitted yet; write ssl.fit(words) first.")
        probs, words = self.phi.topk(min(num_words, len(self.vocabulary)), -1)
        return [
            Topic(
                k,
                [self.vocabulary[v] for v in words[k].tolist()],
                probs[k].tolist(),
                float(self.occupancy[k]),
            )
            for k in self.occupancy.argsort(descending=True).tolist()
        ]

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

        Past a document's length the probabilities are 0.
        """
        with pyro.get_param_store().scope():
            pg = ParticleGibbs(self.fitted_model, num_particles)
            pg.run(
                words,
                lengths,
                num_samples=num_samples,
                warmup_steps=warmup_steps,
                disable_progbar=True,
            )
        z = pg.get_samples()["z"].permute(0, 2, 1)  # (S, T, B)
        weight = self.transition.head.weight
        counts = weight.new_zeros(z.shape[1:] + (self.num_topics,))
        one = weight.new_ones(z.shape[1:] + (1,))
        for path in z:
            counts.scatter_add_(-1, path.unsqueeze(-1), one)
        counts /= len(z)  # after counting: a sum of shares may exceed 1
        if lengths is not None:
            steps = torch.arange(len(words), device=lengths.device)
            counts = counts * (steps[:, None] < lengths).unsqueeze(-1)
        return counts

    def to(self, *args: Any, **kwargs: Any) -> TopicalSSL:
        """Move to a device or dtype, as :meth:`torch.nn.Module.to`."""
        self.transition.to(*args, **kwargs)
        for name in ("phi", "occupancy"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(*args, **kwargs))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder of safetensors and JSON; see :mod:`pyro_ssl.models.checkpoint`."""
        if self.phi is None:
            raise RuntimeError("TopicalSSL is not fitted yet; write ssl.fit(words) first.")
        config = {
            "vocabulary": self.vocabulary,
            "num_topics": self.num_topics,
            "hidden_size": self.transition.hidden_size,
            "concentration": self.concentration,
            "dropout": self.transition.dropout.p,
            "cell": self.cell,
            "history": [list(record) for record in self.history],
        }
        save_checkpoint(path, "TopicalSSL", self._tensors(), config)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TopicalSSL:
        """Read what :meth:`save` wrote, onto the CPU.

        :raises CheckpointError: if it is missing, of another kind, cut short, or altered.
        """
        tensors, config = load_checkpoint(path, "TopicalSSL")
        ssl = cls(
            config["num_topics"],
            config["vocabulary"],
            hidden_size=config["hidden_size"],
            concentration=config["concentration"],
            dropout=config["dropout"],
            cell=config["cell"],
        )
        ssl.history = [EpochRecord(*record) for record in config["history"]]
        ssl.to(tensors["phi"].dtype)
        ssl._set_tensors(tensors)
        ssl.transition.eval()
        return ssl

    def _tensors(self) -> dict[str, Tensor]:
        module = {f"transition.{n}": t for n, t in self.transition.state_dict().items()}
        return {"phi": self.phi, "occupancy": self.occupancy, **module}

    def _set_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.phi, self.occupancy = tensors["phi"], tensors["occupancy"]
        prefix = "transition."
        self.transition.load_state_dict(
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        )
