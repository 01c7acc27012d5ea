"""The four ready-made models, each with small data and a quick fit, for tests of all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro.infer import SVI

from pyro_ssl import IMVLSTM, GaussianSSL, LanguageModel, StochasticEM, TopicalSSL
from pyro_ssl.models import language_model

T, B, K, V, E = 6, 5, 2, 4, 2
LENGTHS = torch.tensor([T, 2, 4, 1, T])


class World(NamedTuple):
    """``data`` are the arguments of fit and log_likelihood, and of ``valid`` too.

    ``step`` is the method that each epoch calls once, with its class.
    """

    config: dict[str, Any]
    data: Callable[[], tuple]
    fit: dict[str, Any]
    score: dict[str, Any]
    step: tuple[type, str]
    monitor: str


def words():
    return torch.randint(V, (T, B)), LENGTHS


def points():
    return torch.randn(T, B, E).cumsum(0), LENGTHS


def windows():
    return torch.randn(9, T, 3), torch.randn(9)


WORLDS = {
    TopicalSSL: World(
        {"num_topics": K, "vocabulary": V, "hidden_size": 3},
        words,
        {"num_particles": 3, "markov_steps": 3, "markov_starts": 1, "transition_steps": 2},
        {"num_particles": 10},
        (StochasticEM, "step"),
        "perplexity",
    ),
    GaussianSSL: World(
        {"dim": 2, "hidden_size": 3},
        points,
        {"num_particles": 3, "num_paths": 2, "num_gradient_steps": 1},
        {"num_particles": 10},
        (StochasticEM, "step"),
        "nll",
    ),
    LanguageModel: World(
        {"vocab_size": V, "embedding_size": 3, "hidden_size": 4},
        words,
        {},
        {},
        (language_model, "learn_epoch"),
        "perplexity",
    ),
    IMVLSTM: World(
        {"num_variables": 3, "units": 2, "dropout": 0.1},
        windows,
        {},
        {},
        (SVI, "step"),
        "nll",
    ),
}


def make(kind):
    """An unfitted model and its world."""
    return kind(**WORLDS[kind].config), WORLDS[kind]


def fit(model, world, data, **options):
    """A quick fit."""
    return model.fit(*data, **{"num_epochs": 3, "disable_progbar": True, **world.fit, **options})


def log_likelihood(model, world, data):
    """The same random numbers each time."""
    torch.manual_seed(0)
    return model.log_likelihood(*data, **world.score)
