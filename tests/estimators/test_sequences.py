"""Sequences of symbols: hmmlearn's layout, and that all is as the model itself says."""

import math

import numpy as np
import pytest
import torch

from pyro_ssl.estimators import CategoricalSSL, NotFittedError
from tests.faults.digest import nothing_changes

pytestmark = pytest.mark.stage("system")

X = np.array([0, 0, 1, 1, 0, 0, 2, 3, 2, 3, 0, 1]).reshape(-1, 1)
LENGTHS = [6, 4, 2]


def estimator(**options):
    steps = {"markov_steps": 6, "markov_starts": 1, "transition_steps": 5}
    how = {"hidden_size": 5, "n_iter": 1, "random_state": 0, "fit_options": steps}
    return CategoricalSSL(2, **{**how, **options})


@pytest.fixture(scope="module")
def fitted():
    return estimator().fit(X, LENGTHS)


def columns():
    words = torch.zeros(6, 3, dtype=torch.long)
    for b, (start, stop) in enumerate([(0, 6), (6, 10), (10, 12)]):
        words[: stop - start, b] = torch.as_tensor(X[start:stop, 0])
    return words, torch.tensor(LENGTHS)


def test_data_are_laid_out_one_after_the_other(fitted):
    words, lengths = columns()
    torch.manual_seed(0)
    expected = fitted.model_.transform(words, lengths)
    found = fitted.predict_proba(X, LENGTHS)
    assert found.shape == (12, 2)
    for b, (start, stop) in enumerate([(0, 6), (6, 10), (10, 12)]):
        np.testing.assert_allclose(found[start:stop], expected[: stop - start, b])
    np.testing.assert_allclose(found.sum(1), 1.0)
    torch.manual_seed(0)
    log_p = -12 * math.log(fitted.model_.perplexity(words, lengths))
    assert fitted.score(X, LENGTHS) == pytest.approx(log_p)


def test_states_are_the_likeliest_ones(fitted):
    probs = fitted.predict_proba(X, LENGTHS)
    np.testing.assert_array_equal(fitted.predict(X, LENGTHS), probs.argmax(1))
    log_p, states = fitted.decode(X, LENGTHS)
    np.testing.assert_array_equal(states, probs.argmax(1))
    assert log_p == pytest.approx(np.log(probs.max(1)).sum())
    assert fitted.emissionprob_.shape == (2, 4)
    assert estimator(n_features=9).fit(X).emissionprob_.shape == (2, 9)


@pytest.mark.stage("statistical")
def test_samples_are_of_the_model(fitted):
    """Symbols given states by φ: abs(z) < 4.5 in eight cells fails once in 18,000 runs."""
    x, z = fitted.sample(4000, random_state=1)
    assert x.shape == (4000, 1) and z.shape == (4000,)
    for k in range(2):
        n, p = (z == k).sum(), fitted.emissionprob_[k]
        share = np.bincount(x[z == k, 0], minlength=4) / n
        assert (np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / n) + 1e-9).all()
    again, _ = fitted.sample(4000, random_state=1)
    np.testing.assert_array_equal(x, again)
    first, _ = fitted.sample(50)
    np.testing.assert_array_equal(first, fitted.sample(50)[0])


REFUSED = {
    "not fitted": (lambda f: estimator().score(X), NotFittedError, "is not fitted yet"),
    "a row": (lambda f: f.score(X[:, 0]), ValueError, r"write X.reshape\(-1, 1\)"),
    "lengths": (lambda f: f.score(X, [5, 5]), ValueError, "add up to the 12 rows"),
    "no length": (lambda f: f.score(X, [12, 0]), ValueError, "of 1 or more"),
    "nothing": (lambda f: f.score(np.zeros((0, 1), int)), ValueError, r"shape \(0, 1\)"),
    "fractions": (lambda f: f.score(X + 0.5), ValueError, "integer|whole"),
    "a new symbol": (lambda f: f.score(X + 3), ValueError, "found words from 3 to 6"),
    "viterbi": (lambda f: f.decode(X, algorithm="viterbi"), ValueError, "no Viterbi path"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(fitted, case):
    call, kind, message = REFUSED[case]
    with nothing_changes(), pytest.raises(kind, match=message):
        call(fitted)
