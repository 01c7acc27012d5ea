"""States behind piano rolls, for ``jsb.py``: the exact HMM, and an LSTM over its states.

Each state has a probability for each key. A Dirichlet over (silent, sounding) is as good as a Beta,
and is estimated in closed form from counts.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import AdamW
from torch import Tensor

from pyro_ssl import LSTMTransition, MarkovEM, StochasticEM, ssl_transition
from pyro_ssl.datasets import JSBChorales, PianoRolls

from ._jsb_common import Fit, Keys, begin, filtered, num_numbers, patiently, settled

__all__ = ["SETTINGS", "hmm", "ssl"]

#: pseudo-counts of a key in a state, around the share of all steps in which it sounds
PRIORS = (0.3, 1.0, 3.0)
HMM_STEPS, HMM_PATIENCE = 300, 20
EPOCHS, PATIENCE, BATCH = 1000, 30, 32
NUM_PARTICLES = 10  # to learn with

SETTINGS = {"priors": PRIORS, "hmm_steps": HMM_STEPS, "hmm_patience": HMM_PATIENCE}
SETTINGS |= {"patience": PATIENCE, "batch": BATCH, "num_particles": NUM_PARTICLES}


def model_of(transition: Any, prior: Tensor) -> Callable[..., None]:
    """Return p(z, x) of chorales, their keys given by φ, ``(K, 88, 2)``."""

    def model(x: Tensor, lengths: Tensor, index: Tensor | None = None) -> None:
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(prior).to_event(2))
        with pyro.plate("chorales", x.shape[1], subsample=index):
            if index is not None:
                x, lengths = x[:, index], lengths[index]
            for t, z in ssl_transition("z", transition, len(x), lengths=lengths):
                silent, sounding = phi[z].log().unbind(-1)
                pyro.sample("x", Keys(sounding - silent, silent), obs=x[t])

    return model


def prior_of(train: PianoRolls, num_states: int, strength: float) -> Tensor:
    """Pseudo-counts ``(K, 88, 2)``, ``strength`` of each key, shared as all its steps are."""
    sounds = (train.x.sum((0, 1)) + 0.5) / (train.num_steps + 1.0)
    share = torch.stack([1.0 - sounds, sounds], -1)
    return (strength * share).expand(num_states, *share.shape).contiguous()


def first_keys(train: PianoRolls, prior: Tensor) -> Tensor:
    """φ to start from: each state sounds nearly as one step of the data, chosen at random."""
    steps = train.x[train.mask]
    chosen = steps[torch.randperm(len(steps))[: len(prior)]]
    share = prior[..., 1] / prior.sum(-1)
    sounds = 0.5 * chosen + 0.5 * share
    return torch.stack([1.0 - sounds, sounds], -1)


@functools.cache
def markov(data: JSBChorales, num_states: int, seed: int) -> tuple[MarkovEM, dict[str, Any]]:
    """Fit the HMM by exact EM; choose prior and iteration by the validation chorales."""
    fits: list[Fit] = []
    for strength in PRIORS:
        begin(seed)
        prior = prior_of(data.train, num_states, strength)
        # The HMM takes the place of the transition; the model has to have one.
        em = MarkovEM(model_of(LSTMTransition(num_states, 1), prior))
        flat = torch.full((num_states,), 1.0 / num_states)
        em.start_from(flat, flat.expand(num_states, -1), phi=first_keys(data.train, prior))
        step = functools.partial(em.step, data.train.x, data.train.lengths)
        score = functools.partial(exact, em, data.valid)
        keep = functools.partial(copy.copy, em)
        found, told = patiently(step, score, keep, HMM_STEPS, HMM_PATIENCE, every=5)
        fits.append((found, {**told, "prior": strength}))
    return min(fits, key=lambda fit: fit[1]["valid"])


def exact(em: MarkovEM, rolls: PianoRolls) -> float:
    """Nats per step, by the forward algorithm."""
    return -float(em.log_likelihood(rolls.x, rolls.lengths).double().sum()) / rolls.num_steps


def hmm(data: JSBChorales, seed: int, num_states: int) -> dict[str, Any]:
    """Return what the exact HMM reaches."""
    em, told = markov(data, num_states, seed)
    size = num_states * (num_states + 88)
    return {**told, "parameters": size, "test": exact(em, data.test)}


def ssl(
    data: JSBChorales, seed: int, num_states: int, conditional: bool, **options: Any
) -> dict[str, Any]:
    """Learn an LSTM over the states of the HMM, and the states on, by stochastic EM.

    :param conditional: by particle Gibbs, or by unconditional SMC.
    :param options: ``hidden_size``, ``dropout``, ``learning_rate`` and ``weight_decay``.
    """
    em_hmm, started = markov(data, num_states, seed)
    begin(seed)
    transition = LSTMTransition(num_states, options["hidden_size"], dropout=options["dropout"])
    model = model_of(transition, prior_of(data.train, num_states, started["prior"]))
    optim = AdamW({"lr": options["learning_rate"], "weight_decay": options["weight_decay"]})
    em = StochasticEM(
        model,
        optim,
        NUM_PARTICLES,
        conditional=conditional,
        averaging=0.9,
        draw_dirichlet=conditional,
    )
    em.start_from(em_hmm.for_model(model), data.train.x, data.train.lengths, transition_steps=60)

    def epoch() -> None:
        for index in torch.randperm(len(data.train.lengths)).split(BATCH):
            em.step(data.train.x, data.train.lengths, index)

    def score() -> float:
        return filtered(model, em.values, data.valid, 20)

    def keep() -> Any:
        return transition.state_dict(), em.values

    (state, values), told = patiently(epoch, score, keep, EPOCHS, PATIENCE)
    transition.load_state_dict(state)
    found = settled(lambda P: filtered(model, values, data.test, P), 30, 3000)
    size = num_numbers(transition) + num_states * 88
    return {**told, **found, "prior": started["prior"], "parameters": size}
