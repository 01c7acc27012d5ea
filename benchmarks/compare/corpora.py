"""The corpora, and the settings of all models on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pyro_ssl.datasets import (
    SequenceSplit,
    imdb_continuation,
    msnbc_sequences,
    python_docs_passages,
    wikitext2_passages,
)


class Task(NamedTuple):
    """A corpus with the settings that every method shares on it.

    ``num_valid`` of the validation sequences choose the epoch while a model learns, which ends
    when ``patience`` epochs brought none better;
    ``concentrations`` are the Dirichlet priors that every method which has one is tried with, at
    its first seed; the validation sequences choose.
    """

    title: str
    load: Callable[[str | None], SequenceSplit]
    num_states: int
    hidden_size: int
    num_epochs: int
    batch_size: int | None
    concentrations: tuple[float, ...] = (0.01, 0.03)
    num_gradient_steps: int = 2
    transition_steps: int = 60
    num_valid: int = 200
    patience: int = 3
    markov_steps: int = 40
    language_model_batch: int = 50
    fit: Mapping[str, Any] = {}


TASKS = {
    "python": Task(
        "Python's reference",
        lambda path: python_docs_passages(),
        num_states=30,
        hidden_size=64,
        num_epochs=200,
        batch_size=None,
        concentrations=(0.01, 0.03, 0.1),
        num_gradient_steps=3,
        language_model_batch=20,
    ),
    "imdb-200": Task(
        "IMDB, 200 reviews",
        lambda path: imdb_continuation(path, num_reviews=200),
        num_states=50,
        hidden_size=64,
        num_epochs=100,
        batch_size=None,
        concentrations=(0.01, 0.03, 0.1),
        num_gradient_steps=3,
        language_model_batch=20,
    ),
    "imdb-5000": Task(
        "IMDB, 5,000 reviews",
        lambda path: imdb_continuation(path, num_reviews=5000, max_test=1000),
        num_states=50,
        hidden_size=64,
        num_epochs=40,
        markov_steps=30,
        batch_size=250,
    ),
    "wikitext2": Task(
        "WikiText-2, 500,000 tokens",
        lambda path: wikitext2_passages(path, max_test=1000),
        num_states=50,
        hidden_size=64,
        num_epochs=40,
        batch_size=250,
    ),
    "msnbc": Task(
        "MSNBC, 100,000 users",
        lambda path: msnbc_sequences(
            path, num_train=100_000, num_valid=2000, num_test=5000, max_len=30
        ),
        num_states=20,
        concentrations=(0.1, 1.0),
        hidden_size=32,
        num_epochs=40,
        batch_size=1000,
        markov_steps=30,
        num_valid=2000,
        language_model_batch=200,
    ),
}
