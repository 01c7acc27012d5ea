"""Scores and forecasts against enumeration, forward-backward, and the published wrong formula."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F

from pyro_ssl import LSTMTransition, MarkovTransition, ParticleFilter, ssl_transition
from pyro_ssl.errors import LatentSiteError
from pyro_ssl.exact.chains import enumerate_paths, markov_log_likelihood
from pyro_ssl.reading.program import Program

K, V, T = 3, 4, 5


def sharp_lstm(num_states=K):
    transition = LSTMTransition(num_states, 4)
    for parameter in transition.parameters():
        parameter.data.mul_(5)
    return transition


def make_model(transition, phi):
    def model(x, lengths=None):
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x), lengths=lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model


@pytest.fixture
def phi():
    return dist.Dirichlet(torch.full((K, V), 0.5)).sample().clamp(min=1e-3)


def exact_log_likelihood(transition, table):
    """log p(x_t | x_{1:t-1}) by enumeration of every prefix."""
    log_evidence = [
        enumerate_paths(transition, table[: t + 1]).log_evidence for t in range(len(table))
    ]
    return torch.stack(log_evidence).diff(dim=0, prepend=torch.zeros(1, table.shape[1]))


@pytest.mark.stage("system")
def test_log_likelihood_and_perplexity_equal_enumeration(phi):
    """P=20,000: the standard error of each term is about 0.005."""
    transition, x = sharp_lstm(), torch.randint(V, (T, 3))
    model = make_model(transition, phi)
    exact = exact_log_likelihood(transition, Program(model, (x,)).run().grid.table())
    pf = ParticleFilter(model, 20_000)
    assert torch.allclose(pf.log_likelihood(x), exact, atol=0.04)
    assert torch.allclose(pf.log_evidence(x), exact.sum(0), atol=0.06)
    assert pf.perplexity(x) == pytest.approx(float((-exact.mean()).exp()), rel=0.02)
    assert pf.perplexity(x, start=2) == pytest.approx(float((-exact[2:].mean()).exp()), rel=0.02)


@pytest.mark.stage("system")
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_markov_chain_equals_the_forward_algorithm(phi, resampling):
    matrix = dist.Dirichlet(torch.ones(K, K)).sample()
    initial = torch.ones(K) / K
    chain = MarkovTransition(K, initial=initial, matrix=matrix)
    x, lengths = torch.randint(V, (8, 4)), torch.tensor([8, 5, 1, 0])
    model = make_model(chain, phi)
    table = Program(model, (x,)).run().grid.table()
    exact = markov_log_likelihood(initial, matrix, table, lengths)
    pf = ParticleFilter(model, 20_000, resampling=resampling)
    found = pf.log_likelihood(x, lengths)
    assert torch.allclose(found, exact, atol=0.04)
    assert (found[5:, 1] == 0).all() and (found[:, 3] == 0).all()
    assert pf.perplexity(x, lengths) == pytest.approx(
        float((-exact.sum() / lengths.sum()).exp()), rel=0.02
    )


def test_perplexity_of_an_even_law_is_the_size_of_the_vocabulary():
    even = torch.ones(K, V) / V
    x, lengths = torch.randint(V, (T, 3)), torch.tensor([5, 2, 4])
    pf = ParticleFilter(make_model(sharp_lstm(), even), 3)
    assert pf.perplexity(x, lengths) == pytest.approx(V, rel=1e-12)


def test_perplexity_is_not_the_published_formula():
    """exp of cross_entropy fed with probabilities is pinned near V, whatever the model knows."""
    V = 1000
    unigram = 1.0 / torch.arange(1, V + 1)
    unigram = unigram / unigram.sum()
    x = dist.Categorical(unigram).sample((50, 20))
    transition = MarkovTransition(1, initial=torch.ones(1), matrix=torch.ones(1, 1))
    true = ParticleFilter(make_model(transition, unigram[None]), 1).perplexity(x)
    assert true == pytest.approx(float((-unigram[x].log().mean()).exp()), rel=1e-12)
    probabilities = unigram.expand(x.numel(), V)
    published = float(F.cross_entropy(probabilities, x.reshape(-1)).exp())
    assert true < 0.4 * V
    assert published > 0.9 * V


def test_forecast_equals_the_chain_s_own(phi):
    matrix = dist.Dirichlet(torch.ones(K, K)).sample()
    initial = dist.Dirichlet(torch.ones(K)).sample()
    chain = MarkovTransition(K, initial=initial, matrix=matrix)
    x, start = torch.randint(V, (T, 2)), 2
    forecast = ParticleFilter(make_model(chain, phi), 20_000).forecast(x, start=start)
    filtered = initial.expand(2, K)
    for t in range(start):
        filtered = filtered if t == 0 else filtered @ matrix
        filtered = filtered * phi[:, x[t]].T
        filtered = filtered / filtered.sum(-1, keepdim=True)
    for s in range(T - start):
        filtered = filtered @ matrix
        assert torch.allclose(forecast.state_probs[s], filtered, atol=0.02)
        score = (filtered * phi[:, x[start + s]].T).sum(-1).log()
        assert torch.allclose(forecast.log_prob[s], score, atol=0.05)
    assert forecast.paths.shape == (20_000, 2, T - start)
    share = (forecast.paths == 0).double().mean(0).T
    assert torch.allclose(share, forecast.state_probs[..., 0], atol=0.03)


def test_forecast_of_a_recurrent_law_equals_enumeration(phi):
    transition, x, start = sharp_lstm(), torch.randint(V, (4, 2)), 2
    model = make_model(transition, phi)
    table = Program(model, (x,)).run().grid.table()
    before = enumerate_paths(transition, table[:start]).log_evidence
    forecast = ParticleFilter(model, 40_000).forecast(x, start=start)
    for s in range(start, 4):
        blank = table[: s + 1].clone()
        blank[start:s] = 0.0
        exact = enumerate_paths(transition, blank).log_evidence - before
        assert torch.allclose(forecast.log_prob[s - start], exact, atol=0.04)


def test_forecast_from_nothing_is_the_prior(phi):
    forecast = ParticleFilter(make_model(sharp_lstm(), phi), 50).forecast(
        torch.zeros(T, 2, dtype=torch.long), start=0
    )
    assert forecast.log_prob.shape == (T, 2)
    assert torch.allclose(forecast.state_probs.sum(-1), torch.ones(T, 2))


def test_start_out_of_range_is_told(phi):
    with pytest.raises(ValueError, match="expected start from 0 to T = 5"):
        ParticleFilter(make_model(sharp_lstm(), phi), 5).forecast(
            torch.zeros(T, 2, dtype=torch.long), start=T
        )


def test_unknown_parameters_are_told():
    def model(x):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        make_model(sharp_lstm(), phi)(x)

    with pytest.raises(LatentSiteError, match=r'"phi": latent.*pyro.condition'):
        ParticleFilter(model, 5).perplexity(torch.zeros(T, 2, dtype=torch.long))


def test_masked_observations_are_not_scored(phi):
    seen = torch.rand(T, 3) < 0.5
    seen[0, 0] = True
    transition, x = sharp_lstm(), torch.randint(V, (T, 3))

    def model(x):
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                with pyro.poutine.mask(mask=seen[t]):
                    pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    pf = ParticleFilter(model, 2000)
    total = pf.log_evidence(x).sum()
    assert pf.perplexity(x) == pytest.approx(math.exp(-float(total) / int(seen.sum())), rel=0.05)
    assert (pf.log_likelihood(x)[~seen].abs() < 1e-12).all()


@pytest.mark.parametrize("twist", [None, "markov"])
def test_first_steps_alone_with_lengths_and_inputs(twist):
    """What is conditioned on is a part of all steps, and so are its lengths and inputs."""
    transition, x = LSTMTransition(2, 3, input_size=1), torch.randint(3, (6, 2))
    phi, u, lengths = torch.rand(2, 3).log_softmax(-1), torch.randn(6, 2, 1), torch.tensor([6, 4])

    def model():
        with pyro.plate("sequences", 2):
            for t, z in ssl_transition("z", transition, 6, lengths=lengths, inputs=u):
                pyro.sample("x", dist.Categorical(logits=phi[z]), obs=x[t])

    pf = ParticleFilter(model, 50, twist=twist)
    assert 1.0 < pf.perplexity(start=3) < 30.0
    assert pf.forecast(start=3).log_prob.shape == (3, 2)


@pytest.mark.parametrize("twist", ["markov", None])
def test_a_seed_fixes_what_is_said_of_a_sequence(phi, twist):
    """Whatever stands beside it; and runs of one call differ."""
    transition, x = sharp_lstm(), torch.randint(V, (T, 9))

    def model(x, index=None):
        with pyro.plate("sequences", x.shape[1], subsample=index):
            x = x if index is None else x[:, index]
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    pf = ParticleFilter(model, 6, twist=twist, seed=3)
    whole = pf.log_likelihood(x)
    for index in (torch.tensor([4]), torch.tensor([8, 0, 5])):
        torch.testing.assert_close(pf.log_likelihood(x, index), whole[:, index])
    torch.testing.assert_close(pf.log_evidence(x), pf.log_evidence(x))
    assert pf.spread(x, num_runs=3) > 0.0
    assert not ParticleFilter(model, 6, seed=4).log_likelihood(x).equal(whole)


def test_perplexity_by_batches_is_that_of_all():
    """With a seed what is said of a sequence depends on its place alone."""
    N, words, transition = 7, torch.randint(V, (T, 7)), LSTMTransition(K, 4)
    phi = torch.rand(K, V) + 0.1

    def model(words, index=None):
        with pyro.plate("documents", N, subsample=index) as index:
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[:, index][t])

    pf = ParticleFilter(model, 5, twist=None, seed=3)
    batches = [(index,) for index in torch.arange(N).split(3)]
    for start in (0, 2):
        whole = pf.perplexity(words, start=start)
        assert pf.perplexity(words, start=start, batches=batches) == pytest.approx(whole, rel=1e-12)
    with pytest.raises(ValueError, match="There is no batch"):
        pf.perplexity(words, batches=[])
