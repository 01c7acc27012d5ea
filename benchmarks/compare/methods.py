"""The methods: each learns from a split and scores its test steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyro_ssl import MarkovEM, TopicalSSL
from pyro_ssl.datasets import SequenceSplit, TextBatch
from pyro_ssl.models import EpochRecord, LanguageModel, fit_markov

from .corpora import Task
from .particle_elbo import Learner

__all__ = ["METHODS", "Context", "Method"]

#: numbers of particles that score the test steps; where the scores agree, they have converged
SCORING_PARTICLES = (10, 30, 100)


class Context:
    """One corpus and one seed; what several methods share is made once."""

    def __init__(self, task: Task, split: SequenceSplit, concentration: float, seed: int) -> None:
        self.task, self.split, self.seed = task, split, seed
        self.concentration = concentration
        self._markov: tuple[MarkovEM, float] | None = None

    def make_ssl(self, cell: str = "lstm", **options: Any) -> TopicalSSL:
        """A new model, its random numbers fixed by the seed."""
        pyro.set_rng_seed(self.seed)
        pyro.clear_param_store()
        return TopicalSSL(
            self.task.num_states,
            self.split.vocabulary.words,
            hidden_size=self.task.hidden_size,
            concentration=self.concentration,
            cell=cell,
            **options,
        ).to(self.split.train.words.device)

    @property
    def train(self) -> tuple[Tensor, Tensor | None]:
        """Words, and lengths where these differ."""
        return data(self.split.train)

    @property
    def valid(self) -> tuple[Tensor, Tensor | None, int]:
        """Words, lengths and start."""
        few = self.split.valid.select(range(min(self.task.num_valid, len(self.split.valid.kept))))
        return *data(few), self.split.start

    def markov(self) -> tuple[MarkovEM, float]:
        """The fitted HMM that all methods start from, and seconds per iteration."""
        if self._markov is None:
            started = time.perf_counter()
            hmm = self.fit_markov()
            seconds = (time.perf_counter() - started) / self.task.markov_steps
            self._markov = hmm, seconds
        return self._markov

    def fit_markov(self) -> MarkovEM:
        """Fit the HMM from one random start."""
        steps = self.task.markov_steps
        return fit_markov(
            self.make_ssl().model, *self.train, valid=self.valid, num_steps=steps, num_starts=1
        )

    def perplexity(self, log_p: Tensor) -> float:
        """Of the test steps, given log p ``(T, B)``."""
        start, test = self.split.start, self.split.test
        return math.exp(-float(log_p[start:][test.mask[start:]].double().mean()))


class Method(NamedTuple):
    """A row of the table, and whether it has a Dirichlet prior to choose."""

    title: str
    run: Callable[[Context], dict[str, Any]]
    has_prior: bool = True


def data(batch: TextBatch) -> tuple[Tensor, Tensor | None]:
    """Words and lengths; no lengths where all are full, which is faster."""
    full = bool((batch.lengths == len(batch.words)).all())
    return batch.words, None if full else batch.lengths


def unigram(context: Context) -> dict[str, Any]:
    """Every count plus one."""
    train, test = context.split.train, context.split.test
    V = len(context.split.vocabulary)
    counts = torch.bincount(train.words[train.mask], minlength=V).double() + 1.0
    log_p = (counts / counts.sum()).log()
    return {"perplexity": context.perplexity(log_p[test.words]), "parameters": V}


def markov(context: Context) -> dict[str, Any]:
    """The exact HMM of as many states."""
    hmm, seconds = context.markov()
    K, V = context.task.num_states, len(context.split.vocabulary)
    log_p = hmm.log_likelihood(*data(context.split.test))
    words, lengths, start = context.valid
    return {
        "valid_perplexity": [hmm.perplexity(words, lengths, start=start)],
        "perplexity": context.perplexity(log_p),
        "parameters": K + K * K + K * V,
        "seconds_per_epoch": seconds,
    }


def ssl(context: Context, *, cell: str = "lstm", **fit: Any) -> dict[str, Any]:
    """A topical SSL, fitted with the options ``fit``."""
    task, hmm = context.task, context.markov()[0]
    dropout = {name: value for name, value in task.fit.items() if name == "dropout"}
    model = context.make_ssl(cell, **dropout)
    pyro.set_rng_seed(context.seed)
    options = {
        "num_epochs": task.num_epochs,
        "batch_size": task.batch_size,
        "num_gradient_steps": task.num_gradient_steps,
        "transition_steps": task.transition_steps,
        "num_valid_particles": 20,
        "patience": task.patience,
    }
    options |= {name: value for name, value in task.fit.items() if name != "dropout"}
    history = model.fit(*context.train, valid=context.valid, markov=hmm, **options | fit)
    by_particles = {}
    for P in SCORING_PARTICLES:  # by evidence, of whole sequences and of what comes before
        by_particles[str(P)] = model.perplexity(
            *data(context.split.test), num_particles=P, start=context.split.start
        )
    transition = sum(p.numel() for p in model.transition.parameters())
    return {
        "perplexity": by_particles[str(max(SCORING_PARTICLES))],
        "perplexity_by_particles": by_particles,
        "parameters": transition + task.num_states * len(context.split.vocabulary),
        **learning(history),
        "change_rate": [record.change_rate for record in history],
    }


def language_model(context: Context) -> dict[str, Any]:
    """An LSTM over the words themselves."""
    pyro.set_rng_seed(context.seed)
    task, V = context.task, len(context.split.vocabulary)
    # As many units as the SSL's LSTM, and vectors as wide.
    model = LanguageModel(V, embedding_size=64, hidden_size=64).to(context.train[0].device)
    history = model.fit(
        *context.train,
        valid=context.valid,
        num_epochs=100,
        batch_size=task.language_model_batch,
        learning_rate=0.005,
        patience=task.patience,
    )
    log_p = model.log_likelihood(*data(context.split.test))
    return {
        "perplexity": context.perplexity(log_p),
        "parameters": model.num_parameters,
        **learning(history),
    }


def learning(history: list[EpochRecord]) -> dict[str, Any]:
    """The course of learning, from a history."""
    valid = [record.score for record in history]
    return {
        "seconds_per_epoch": sum(record.seconds for record in history) / len(history),
        "seconds": [record.seconds for record in history],
        "valid_perplexity": valid,
        "kept_epoch": 1 + min(range(len(valid)), key=valid.__getitem__),
    }


def smc(context: Context, **fit: Any) -> dict[str, Any]:
    """Unconditional SMC with topics drawn, as particle Gibbs has them."""
    return ssl(context, inference="smc", draw_topics=True, **fit)


def particle_elbo(context: Context) -> dict[str, Any]:
    """The bound of a particle filter, by ``SVI``."""
    task, hmm = context.task, context.markov()[0]
    learner = Learner(
        context.make_ssl(),
        hmm,
        *context.train,
        num_particles=10,
        num_gradient_steps=task.num_gradient_steps,
        concentration=context.concentration,
        transition_steps=task.transition_steps,
        batch_size=task.batch_size,
    )
    pyro.set_rng_seed(context.seed)
    history = learner.fit(context.train, context.valid, task.num_epochs, task.patience)
    test, start = data(context.split.test), context.split.start
    by_particles = {str(P): learner.perplexity(test, P, start) for P in SCORING_PARTICLES}
    return {
        "perplexity": by_particles[str(max(SCORING_PARTICLES))],
        "perplexity_by_particles": by_particles,
        "parameters": sum(p.numel() for p in pyro.get_param_store().values()),
        **learning(history),
    }


#: rows that stand together differ in one thing: the twist, a draw of topics or of the LSTM, or the
#: E-step
METHODS = {
    "unigram": Method("unigram", unigram, has_prior=False),
    "hmm": Method("exact HMM", markov),
    "lla": Method("SSL, LLA (left to right)", lambda c: ssl(c, inference="smc", num_particles=1)),
    "mean_field": Method(
        "SSL, mean-field SVI", lambda c: ssl(c, inference="mean_field", num_particles=2)
    ),
    "particle_elbo": Method("SSL, particle ELBO (FIVO), no twist", particle_elbo),
    "smc_points": Method(
        "SSL, SMC, no twist, topics estimated",
        lambda c: ssl(c, inference="smc", twist=None),
    ),
    "smc_plain": Method("SSL, SMC, no twist", lambda c: smc(c, twist=None)),
    "smc": Method("SSL, SMC", smc),
    "smc_3": Method("SSL, SMC, P=3", lambda c: smc(c, num_particles=3)),
    "pg_plain": Method(
        "SSL, particle Gibbs, no twist, LSTM at its mean",
        lambda c: ssl(c, twist=None, draw_transition=False),
    ),
    "pg_mean": Method(
        "SSL, particle Gibbs, LSTM at its mean", lambda c: ssl(c, draw_transition=False)
    ),
    "pg": Method("SSL, particle Gibbs", ssl),
    "pg_mlstm": Method("SSL (mLSTM), particle Gibbs", lambda c: ssl(c, cell="mlstm")),
    "lm": Method("LSTM language model", language_model, has_prior=False),
}
