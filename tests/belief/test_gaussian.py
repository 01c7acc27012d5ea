"""HMMs over measurements: filters against enumeration, gates against Bayes' rule."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import GaussianLSTMTransition, MarkovTransition
from pyro_ssl.belief import (
    GateRNN,
    GaussianEmission,
    GaussianFilterRNN,
    fidelity,
    from_hmm,
    gaussian_filter,
    predictive_density,
)
from pyro_ssl.belief.filter import GateState
from pyro_ssl.errors import NonFiniteError
from pyro_ssl.exact import enumerate_paths

every_scale = pytest.mark.parametrize("shared", [True, False])


def random_hmm(K, D, shared):
    matrix, initial = dist.Dirichlet(torch.ones(K + 1, K)).sample().split([K, 1])
    scale = 0.3 + torch.rand(D) if shared else 0.3 + torch.rand(K, D)
    return matrix, GaussianEmission(torch.randn(K, D), scale), initial[0]


def density(emission, x):
    """log N(x; loc_k, scale_k), ``(..., K)``, by the formula."""
    away = (x.unsqueeze(-2) - emission.loc) / emission.scale
    log_scale = emission.scale.expand_as(emission.loc).log() + 0.5 * math.log(2 * math.pi)
    return (-0.5 * away.square() - log_scale).sum(-1)


@every_scale
@pytest.mark.parametrize("K, D", [(1, 1), (2, 2), (3, 1)])
def test_the_filter_is_that_of_enumeration(K, D, shared):
    matrix, emission, initial = random_hmm(K, D, shared)
    x, chain = torch.randn(4, 3, D), MarkovTransition(K, initial=initial, matrix=matrix)
    lengths = torch.tensor([4, 2, 4])
    x[2:, 1] = math.nan  # padding is never read
    found = gaussian_filter(matrix, emission, initial, x, lengths)
    for b, n in enumerate(lengths.tolist()):
        before = 0.0
        for t in range(n):
            seen = density(emission, x[: t + 1, [b]])
            exact = enumerate_paths(chain, seen)
            last = torch.nn.functional.one_hot(exact.paths[:, -1], K).to(x)
            torch.testing.assert_close(found.filtered[t, b], (exact.posterior @ last)[0])
            torch.testing.assert_close(found.log_likelihood[t, b], exact.log_evidence[0] - before)
            ahead = initial if t == 0 else found.filtered[t - 1, b] @ matrix
            torch.testing.assert_close(found.predicted[t, b], ahead)
            before = exact.log_evidence[0]
    assert not found.log_likelihood[2:, 1].any()


@every_scale
def test_the_network_is_the_filter(shared):
    matrix, emission, initial = random_hmm(3, 2, shared)
    x, cell = torch.randn(6, 4, 2), from_hmm(matrix, emission, initial)
    assert isinstance(cell, GaussianFilterRNN) and cell.input_size == (2 if shared else 4)
    found = cell.sequence(emission.features(x))[0]
    exact = gaussian_filter(matrix, emission, initial, x)
    torch.testing.assert_close(found, exact.filtered, rtol=0, atol=1e-12)
    torch.testing.assert_close(predictive_density(cell, x).log_prob(x), exact.log_likelihood)
    moved = GaussianFilterRNN(matrix, emission, initial).float()
    assert moved.sequence(emission.features(x).float())[0].dtype == torch.float32


@every_scale
def test_a_gate_is_the_posterior_given_the_last_state(shared):
    for _ in range(10):
        matrix, emission, initial = random_hmm(2, 2, shared)
        gate, x = from_hmm(matrix, emission, initial), torch.randn(5, 2)
        assert isinstance(gate, GateRNN)
        evidence = gate.project(emission.features(x))
        for last in range(2):
            joint = matrix[last] * density(emission, x).exp()
            found = gate.advance(evidence, GateState(torch.full((5, 1), float(last)))).h
            expected = joint[:, 1:] / joint.sum(-1, keepdim=True)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
        first = gate.sequence(emission.features(x)[None])[0][0]
        exact = gaussian_filter(matrix, emission, initial, x[None]).filtered[0, :, 1:]
        torch.testing.assert_close(first, exact, rtol=0, atol=1e-11)


def test_of_one_scale_the_evidence_is_linear_in_x():
    _, emission, _ = random_hmm(3, 2, True)
    x = torch.randn(7, 2)
    assert emission.features(x) is x
    weight, bias = emission.evidence()
    found = x @ weight.T + bias
    expected = density(emission, x)
    torch.testing.assert_close(found - found[:, :1], expected - expected[:, :1])


# ----------------------------------------------------------------------------------- fidelity


def test_a_source_is_faithful_to_itself():
    cell, x = from_hmm(*random_hmm(3, 2, False)), torch.randn(6, 4, 2)
    lengths = torch.tensor([6, 1, 4, 6])
    x[1:, 1] = math.nan
    found = fidelity(cell, cell, x, lengths)
    assert found.kl == 0.0 and found.num_states == 3 and math.isnan(found.agreement)
    hmm = cell.matrix, cell.emission, cell.start
    mean = gaussian_filter(*hmm, x, lengths).log_likelihood.sum() / lengths.sum()
    assert found.surrogate_perplexity == pytest.approx(float((-mean).exp()), rel=1e-12)


def test_the_divergence_is_that_of_an_integral():
    """One measurement a step: the trapezoid rule, exact for such densities to 1e-9."""
    p, q = (from_hmm(*random_hmm(K, 1, False)) for K in (3, 4))
    x = torch.randn(5, 100, 1)
    state = torch.get_rng_state()
    found = fidelity(p, q, x, num_draws=100)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found.kl_by_step, fidelity(p, q, x, num_draws=100).kl_by_step)
    grid = torch.linspace(-12, 12, 801)
    log_p, log_q = (
        predictive_density(source, x).log_prob(grid.view(-1, 1, 1, 1).expand(-1, *x.shape))
        for source in (p, q)
    )
    exact = torch.trapezoid(log_p.exp() * (log_p - log_q), grid, dim=0)
    assert float(exact.mean()) > 0.05
    # Given x, the draws of 500 steps are independent: of their mean 5 standard errors, by batches.
    ratios = torch.stack([fidelity(p, q, x, num_draws=20, seed=s).kl_by_step for s in range(20)])
    apart = ratios.mean(1) - exact.mean()
    assert abs(apart.mean()) < 5 * apart.std() / 20**0.5  # by Student's t, once in 12,000 seeds
    assert fidelity(p, q, x, num_draws=100, seed=1).kl != found.kl


def test_reads_a_network_of_measurements():
    """A Gaussian LSTM over x: log density of each step, and itself as its own surrogate."""
    lstm, x = GaussianLSTMTransition(dim=2, hidden_size=4), torch.randn(6, 3, 2)
    found = predictive_density(lstm, x).log_prob(x)
    torch.testing.assert_close(found, lstm.log_prob(x.transpose(0, 1)).T)
    cell = from_hmm(*random_hmm(3, 2, True))
    assert fidelity(lstm, cell, x).kl > 0.1
    assert fidelity(lstm, predictive_density(lstm, x), x).kl == 0.0


# -------------------------------------------------------------------------------------- errors

X = torch.zeros(4, 2, 1)
WRONG = {
    "loc": (lambda: GaussianEmission(torch.zeros(2), torch.ones(2)), ValueError, r"loc\[:, None\]"),
    "scale 0": (
        *(lambda: GaussianEmission(torch.zeros(2, 1), torch.zeros(1)), ValueError),
        "scale holds numbers that are not positive",
    ),
    "scale shape": (
        *(lambda: GaussianEmission(torch.zeros(2, 1), torch.ones(3, 1)), ValueError),
        r"scale has shape \(3, 1\), expected \(2, 1\)",
    ),
    "states": (
        *(lambda: from_hmm(torch.eye(3), random_hmm(2, 1, True)[1]), ValueError),
        r"emission \(2, 1\); expected \(K, K\)",
    ),
    "(T, B)": (
        *(lambda: gaussian_filter(*random_hmm(2, 1, True), X[..., 0]), ValueError),
        r"expected \(T, B, 1\).*write x.unsqueeze\(-1\)",
    ),
    "nan": (
        lambda: gaussian_filter(*random_hmm(2, 1, True), X.double() / 0.0),
        NonFiniteError,
        "of x are",
    ),
    "words": (lambda: predictive_density("lstm", X), TypeError, "expected a GaussianFilterRNN"),
    "sizes": (
        *(lambda: fidelity(*[dist.Normal(X, 1.0).to_event(2)] * 2, X), ValueError),
        r"the reference predicts \(4,\) of event shape \(2, 1\)",
    ),
    "draws": (
        *(lambda: fidelity(*[dist.Normal(X, 1.0).to_event(1)] * 2, X, num_draws=0), ValueError),
        "num_draws is 0",
    ),
}


@pytest.mark.parametrize("call, kind, message", WRONG.values(), ids=WRONG)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
