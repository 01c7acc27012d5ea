"""A long HMM: particle Gibbs against forward–backward, in all of its 2,000 marginals."""

import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_ssl import MarkovTransition
from pyro_ssl.exact.chains import markov_marginals, sample_markov_paths
from pyro_ssl.smc import TableEmission, conditional_smc

K, T, V, P = 10, 200, 20, 10
Z_MAX = 4.5  # false alarms: 7e-6 for one marginal, .014 for all of a test


def hmm():
    """p(z_1), the matrix, and the log-emission ``(T, 1, K)`` of a random HMM."""
    initial = dist.Dirichlet(torch.ones(K)).sample()
    matrix = dist.Dirichlet(torch.ones(K, K)).sample()
    phi = dist.Dirichlet(torch.full((K, V), 0.5)).sample()
    x = torch.randint(V, (T,))
    return initial, matrix, phi.log()[:, x].T.unsqueeze(1)


@pytest.mark.stage("statistical")
def test_chains_from_anywhere_reach_the_marginals(num_chains=200, warmup=6, num_sweeps=12):
    initial, matrix, log_emission = hmm()
    exact = markov_marginals(initial, matrix, log_emission).squeeze(1)
    chain = MarkovTransition(K, initial=initial, matrix=matrix)
    emission = TableEmission(log_emission.expand(T, num_chains, K))
    path, visits = None, torch.zeros(T, num_chains, K)
    for i in range(warmup + num_sweeps):
        path = conditional_smc(chain, emission, P, path, ancestor_sampling=10).path
        if i >= warmup:
            visits += torch.nn.functional.one_hot(path, K)
    # How much more the chains' means vary than means of independent draws would. Its estimate for
    # a rare state is poor, so it is at least that of all states of the step.
    share = visits.mean(1) / num_sweeps
    binomial, spread = share * (1 - share) / num_sweeps, (visits / num_sweeps).var(1)
    inflation = torch.maximum(
        spread / binomial.clamp(min=1e-9), (spread.sum(1) / binomial.sum(1))[:, None]
    )
    draws = num_chains * num_sweeps
    variance = (draws * exact * (1 - exact)).clamp(min=9) * inflation.clamp(min=1)
    assert (draws * (share - exact) / variance.sqrt()).abs().max() < Z_MAX


@pytest.mark.stage("nightly")
def test_many_chains_from_anywhere_reach_the_marginals():
    test_chains_from_anywhere_reach_the_marginals(num_chains=500, num_sweeps=40)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_sweeps_keep_the_marginals(resampling, num_chains=1000, num_sweeps=2):
    """From exact draws: the counts after some sweeps are binomial."""
    initial, matrix, log_emission = hmm()
    exact = markov_marginals(initial, matrix, log_emission).squeeze(1).clamp(max=1.0)
    chain = MarkovTransition(K, initial=initial, matrix=matrix)
    log_emission = log_emission.expand(T, num_chains, K)
    emission = TableEmission(log_emission)
    path = start = sample_markov_paths(initial, matrix, log_emission)
    for _ in range(num_sweeps):
        path = conditional_smc(
            chain, emission, P, path, resampling=resampling, ancestor_sampling=10
        ).path
    assert (path != start).double().mean() > 0.2
    counts = torch.nn.functional.one_hot(path, K).sum(1)
    law = stats.binom(num_chains, exact.numpy())
    tail = torch.minimum(
        torch.as_tensor(law.cdf(counts.numpy())), torch.as_tensor(law.sf(counts.numpy() - 1))
    )
    assert tail.min() > stats.norm.sf(Z_MAX)
