"""What each method learns from the planted data, and how that is measured."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks._planted_inference import (
    METHODS,
    Settings,
    draws_of,
    given_model,
    mean_field_elbo,
    one_identity,
    particle_elbo,
)
from benchmarks.compare.particle_elbo import Learner
from pyro_ssl import MarkovEM, ParticleFilter, TopicalSSL
from pyro_ssl.datasets import PlantedMemory
from pyro_ssl.models import EpochRecord, fit_markov
from pyro_ssl.transitions import DiscreteTransition

__all__ = ["fit_hmm", "learn"]


class Learned(NamedTuple):
    """The parameters of the kept epoch, the course of learning, and the mean field's logits."""

    transition: DiscreteTransition
    phi: Tensor
    history: list[EpochRecord]
    logits: Tensor | None = None


def fit_hmm(data: PlantedMemory, s: Settings, seed: int, start: str) -> MarkovEM:
    """Fit the HMM that all methods start from."""
    pyro.set_rng_seed(seed)
    K, V = data.phi.shape
    model = TopicalSSL(K, V, hidden_size=s.hidden).model
    if start == "random":  # of three, the one of the highest likelihood
        return fit_markov(model, data.words, num_steps=s.hmm_steps, num_starts=3)
    hmm = MarkovEM(model, dirichlet="mean")
    flat = data.phi.new_full((K, K), 1 / K)
    hmm.start_from(flat[0], flat, phi=0.5 * data.phi + 0.5 / V)
    for _ in range(s.hmm_steps):
        hmm.step(data.words)
    return hmm


def by_em(
    name: str, ssl: TopicalSSL, words: Tensor, valid: Tensor, hmm: MarkovEM, s: Settings
) -> Learned:
    """Learn by one of the model's own E-steps."""
    _, inference, P = METHODS[name]
    logits: list[Tensor] = []
    often = s.gradient_steps if name == "pg_often" else 1
    history = ssl.fit(
        words,
        valid=(valid, None),
        num_epochs=s.epochs * often,
        inference=inference,
        num_particles=P,
        num_gradient_steps=s.gradient_steps // often,
        learning_rate=s.learning_rate,
        markov=hmm,
        num_valid_particles=20,
        callback=lambda _: logits.extend(
            value.detach().clone()
            for key, value in pyro.get_param_store().items()
            if key.endswith(".logits")
        ),
        disable_progbar=True,
    )
    return Learned(ssl.transition, ssl.phi, history, logits[kept_of(history)] if logits else None)


def by_bound(
    name: str, ssl: TopicalSSL, words: Tensor, valid: Tensor, hmm: MarkovEM, s: Settings
) -> Learned:
    """Learn by the bound of a particle filter, with as many gradient steps, by Pyro's ``SVI``."""
    pyro.clear_param_store()  # of the HMM's model, whose transition has the same name
    learner = Learner(
        ssl,
        hmm,
        words,
        num_particles=METHODS[name][2],
        num_gradient_steps=s.gradient_steps,
        learning_rate=s.learning_rate,
    )
    history = learner.fit((words, None), (valid, None, 0), s.epochs, patience=s.epochs)
    return Learned(ssl.transition, learner.phi, history)


def kept_of(history: list[EpochRecord]) -> int:
    """Index of the epoch that validation chose."""
    return min(range(len(history)), key=lambda i: history[i].score)


def learn(name: str, seed: int, s: Settings, data: PlantedMemory, hmm: MarkovEM) -> dict[str, Any]:
    """Learn by one method, and measure what it learned."""
    valid, test = s.data(10_000 + seed, 100), s.data(20_000 + seed)
    pyro.set_rng_seed(seed)
    K, V = data.phi.shape
    ssl = TopicalSSL(K, V, hidden_size=s.hidden, dropout=s.dropout)
    fit: Callable[..., Learned] = by_bound if name == "fivo" else by_em
    started = time.process_time()  # of one thread: other work on the machine does not count
    learned = fit(name, ssl, data.words, valid.words, hmm, s)
    seconds = time.process_time() - started
    model = given_model(learned.transition, learned.phi)
    result = paths_of(name, model, data, s, learned.logits) | {
        "perplexity": ParticleFilter(model, 100).perplexity(test.words),
        "train_perplexity": ParticleFilter(model, 100).perplexity(data.words),
        "kept_epoch": kept_of(learned.history) + 1,
        "seconds": seconds,
    }
    if name in ("mf", "fivo"):
        evidence = float(ParticleFilter(model, 200).log_evidence(data.words).mean())
        if learned.logits is not None:
            result["gap"] = evidence - mean_field_elbo(model, data.words, learned.logits)
        else:
            result["gap"] = evidence - particle_elbo(model, data.words, METHODS[name][2])
            result["by_pg"] = paths_of("pg", model, data, s)
    return result


def paths_of(
    name: str, model: Any, data: PlantedMemory, s: Settings, logits: Tensor | None = None
) -> dict[str, float]:
    """Measure the paths that a method infers on the training data in a model that was learned."""
    q = None if logits is None else logits.softmax(-1)
    draws = draws_of(model, data.words, name, q, 20 if METHODS[name][1] == "particle_gibbs" else 1)
    votes = torch.stack([(draws == k).double().mean(0) for k in range(len(data.phi))], -1)
    mode = match(votes.argmax(-1) if q is None else q.argmax(-1).T, data)
    draw = match(draws[-1], data)
    cue = data.z < s.num_identities
    return {
        "accuracy": float((mode == data.z).double().mean()),
        "cue_accuracy": float((mode == data.z)[cue].double().mean()),
        "draw_cue_accuracy": float((draw == data.z)[cue].double().mean()),
        "one_identity": one_identity(draw, s.num_identities),
    }


def match(path: Tensor, data: PlantedMemory) -> Tensor:
    """Rename the states of a path ``(T, B)`` so that it agrees most with the truth."""
    K = len(data.phi)
    table = torch.bincount((path * K + data.z).flatten(), minlength=K * K).view(K, K)
    return torch.as_tensor(linear_sum_assignment(table.numpy(), maximize=True)[1])[path]
