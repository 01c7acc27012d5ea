r"""The topical SSL, ready-made (Zheng et al. 2017, arXiv 1711.11179, Example 2).

.. math::
    φ_k \sim \mathrm{Dir}(β), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{Cat}(\mathrm{softmax}(W h_t + b)), \qquad
    x_t \mid z_t \sim \mathrm{Cat}(φ_{z_t})

Fitted by stochastic EM from an exact Markov start; scored by a particle filter.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.optim import AdamW
from torch import Tensor
from tqdm.auto import trange

from ..infer import MarkovEM, ParticleFilter, ParticleGibbs, StochasticEM
from ..infer.conjugate import normalised
from ..primitive import ssl_transition
from ..transitions import LSTMTransition
from .checkpoint import load_checkpoint, save_checkpoint

__all__ = ["EpochRecord", "Topic", "TopicalSSL"]

Data = tuple[Tensor, "Tensor | None"]


@dataclass(frozen=True)
class Topic:
    """One topic: its most probable words with their probabilities, and its share of the tokens."""

    index: int
    words: list[str]
    probs: list[float]
    occupancy: float


class EpochRecord(NamedTuple):
    """What one epoch of :meth:`TopicalSSL.fit` came to.

    ``loss`` is -log p(z, x) in nats per token; ``change_rate`` the share of latents that the epoch
    renewed; ``valid_perplexity`` is NaN where no validation data were given; ``seconds`` leaves
    validation out.
    """

    epoch: int
    loss: float
    change_rate: float
    valid_perplexity: float
    seconds: float


class TopicalSSL:
    r"""Topics with long memory: an LSTM over topics, a categorical over words for each.

    :param int num_topics: K.
    :param vocabulary: the words, in the order of their ids; or V, their number.
    :param int hidden_size: H, units of the LSTM.
    :param float concentration: β of the Dirichlet prior of each topic's words.
    :param float dropout: dropout of the LSTM's output while it learns.

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
    ) -> None:
        words = range(vocabulary) if isinstance(vocabulary, int) else vocabulary
        self.vocabulary = [str(word) for word in words]
        self.concentration = float(concentration)
        self.transition = LSTMTransition(num_topics, hidden_size, dropout=dropout)
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

    def model(self, words: Tensor, lengths: Tensor | None = None) -> None:
        """Run the generative process of the class's docstring, as a Pyro model."""
        pyro.module("transition", self.transition)
        weight = self.transition.head.weight
        beta = weight.new_full((self.num_topics, len(self.vocabulary)), self.concentration)
        phi = pyro.sample("phi", dist.Dirichlet(beta).to_event(1))
        with pyro.plate("documents", words.shape[1]):
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
        valid: tuple[Tensor, Tensor | None] | None = None,
        num_epochs: int = 50,
        num_particles: int = 10,
        num_gradient_steps: int = 1,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        conditional: bool = True,
        ancestor_sampling: int = 10,
        draw_topics: bool | None = None,
        averaging: float = 0.9,
        markov_steps: int = 150,
        markov_starts: int = 3,
        transition_steps: int = 60,
        patience: int | None = None,
        callback: Callable[[EpochRecord], None] | None = None,
        disable_progbar: bool | None = None,
    ) -> list[EpochRecord]:
        r"""Fit by stochastic EM, from the exact Markov fit of the same model.

        :param Tensor words: int64 ``(T, B)``.
        :param Tensor lengths: ``(B,)``.
        :param valid: words and lengths to choose by: the HMM stops where their perplexity is
            lowest, and the epoch of the lowest is the one that is kept.
        :param int num_epochs: at most so many.
        :param int num_gradient_steps: steps of the LSTM on each epoch's paths.
        :param float learning_rate: of AdamW, for the LSTM.
        :param bool conditional: ``False`` for unconditional SMC in the E-step (biased).
        :param bool draw_topics: the E-step sees topics drawn from their posterior, not their
            estimate; by default where ``conditional``. See ``StochasticEM(draw_dirichlet=)``.
        :param float averaging: weight of the past in the counts that topics are estimated from.
        :param int markov_steps: EM iterations of the HMM at most; 0 starts from random topics.
        :param int markov_starts: random starts of the HMM, of which the best is kept.
        :param int patience: stop after so many epochs without a better validation perplexity.
        :param callback: called with each :class:`EpochRecord`.
        :returns: :attr:`history`, one record per epoch.
        """
        draw = conditional if draw_topics is None else draw_topics
        data = (words, lengths)
        with pyro.get_param_store().scope():
            self.markov = None
            if markov_steps:
                self.markov = self._fit_markov(data, valid, markov_steps, markov_starts)
            em = StochasticEM(
                self.model,
                AdamW({"lr": learning_rate, "weight_decay": weight_decay}),
                num_particles,
                conditional=conditional,
                num_gradient_steps=num_gradient_steps,
                ancestor_sampling=ancestor_sampling,
                dirichlet="mean",
                averaging=averaging,
                draw_dirichlet=draw,
            )
            self.transition.train()
            if self.markov is not None:
                em.start_from(self.markov, *data, transition_steps=transition_steps)
            self._learn(em, data, valid, num_epochs, patience, callback, disable_progbar)
            self.transition.eval()
        return self.history

    def _fit_markov(
        self, data: Data, valid: Data | None, num_steps: int, num_starts: int
    ) -> MarkovEM:
        """Fit the HMM from several random starts, and keep the best.

        With validation data, the best of every tenth iteration of each start; without, the start
        of the highest likelihood.
        """
        best: MarkovEM | None = None
        lowest = math.inf
        for _ in range(num_starts):
            hmm = MarkovEM(self.model, dirichlet="mean")
            for i in range(1, num_steps + 1):
                score = hmm.step(*data)
                if i < num_steps and (valid is None or i % 10):
                    continue
                if valid is not None:
                    score = hmm.perplexity(*valid)
                if best is None or score < lowest:
                    best, lowest = copy.copy(hmm), score
        assert best is not None
        return best

    def _learn(
        self,
        em: StochasticEM,
        data: Data,
        valid: Data | None,
        num_epochs: int,
        patience: int | None,
        callback: Callable[[EpochRecord], None] | None,
        disable_progbar: bool | None,
    ) -> None:
        """Run the epochs, and keep the one with the lowest validation perplexity."""
        words, lengths = data
        num_tokens = words.numel() if lengths is None else int(lengths.sum())
        kept: tuple[float, int, dict[str, Tensor]] = (math.inf, 0, {})
        self.history = []
        disable = bool(os.environ.get("CI")) if disable_progbar is None else disable_progbar
        with trange(1, num_epochs + 1, desc="TopicalSSL", unit="epoch", disable=disable) as bar:
            for epoch in bar:
                started = time.perf_counter()
                loss = em.step(*data) / max(num_tokens, 1)
                seconds = time.perf_counter() - started
                self.phi = em.values["phi"]
                self.occupancy = normalised(em.counts["phi"].sum(-1))
                score = math.nan
                if valid is not None:
                    self.transition.eval()
                    score = ParticleFilter(self.fitted_model, 100).perplexity(*valid)
                    self.transition.train()
                self.history.append(EpochRecord(epoch, loss, em.change_rate, score, seconds))
                bar.set_postfix(moved=f"{em.change_rate:.3f}", valid=f"{score:.1f}", refresh=False)
                if callback is not None:
                    callback(self.history[-1])
                if score < kept[0]:
                    kept = (score, epoch, {n: t.clone() for n, t in self._tensors().items()})
                if patience is not None and kept[2] and epoch - kept[1] >= patience:
                    break
        if kept[2]:
            self._set_tensors(kept[2])

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
        share = weight.new_full(z.shape[1:] + (1,), 1.0 / len(z))
        for path in z:
            counts.scatter_add_(-1, path.unsqueeze(-1), share)
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
