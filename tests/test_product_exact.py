"""Models of the product that have an exact answer: Dirichlet sites beside vectors, bare walks."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam
from scipy import stats

from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.exact.kalman import LinearEmission, kalman_filter, sample_kalman_paths
from pyro_ssl.transitions import GaussianLSTMTransition, LinearGaussianTransition
from tests.smc.test_gaussian import p_values
from tests.statistics import ALPHA
from tests.test_product import Walk, given_walk

pytestmark = pytest.mark.stage("system")

T, B, V, D, E, BETA = 4, 3, 3, 2, 3, 1.5


@pytest.mark.parametrize("kind", ["linear", "counts"])
def test_dirichlet_sites_beside_vectors_are_drawn_from_their_exact_posterior(kind, N=150):
    """Each sequence has a Dirichlet site of its own, with words in the loop.

    Whatever the path is, phi_b | x is Dirichlet(β + n_b), so draws of all sequences and sweeps are
    independent; the p-value of each of 2 x 3 marginals is above ALPHA.
    """
    transition, loading = GaussianLSTMTransition(D, 3), torch.randn(E, D)
    words, reals = torch.randint(V, (T, N)), torch.randn(T, N, E)
    counts = torch.randint(4, (T, N, E)).double()

    def model():
        with pyro.plate("sequences", N):
            phi = pyro.sample("phi", dist.Dirichlet(torch.full((V,), BETA)))
            for t, z in ssl_transition("z", transition, T):
                loc = z @ loading.T
                if kind == "linear":
                    pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=reals[t])
                else:
                    pyro.sample("x", dist.Poisson((0.3 * loc).exp()).to_event(1), obs=counts[t])
                pyro.sample("w", dist.Categorical(phi), obs=words[t])

    sampler = ParticleGibbs(model, 3)
    sampler.run(num_samples=4, disable_progbar=True)
    phi = sampler.get_samples()["phi"]  # (4, N, V)
    n = torch.nn.functional.one_hot(words, V).sum(0)
    for v in range(V):
        marginal = stats.beta(BETA + n[:, v], (V - 1) * BETA + T - n[:, v])
        uniform = marginal.cdf(phi[..., v].numpy()).ravel()
        assert stats.kstest(uniform, "uniform").pvalue > ALPHA


@pytest.mark.parametrize("make", [given_walk, lambda: Walk(D)], ids=["buffers", "nothing"])
def test_a_vector_transition_without_parameters_is_sampled_exactly(make, copies=1000):
    """From Kalman draws to Kalman draws in one sweep: each of 2 x 48 p-values above ALPHA.

    The evidence of 2,000 particles has a standard error of about 0.02.
    """
    transition, loading, x = make(), torch.randn(E, D), torch.randn(T, B, E)
    chain = LinearGaussianTransition(D) if isinstance(transition, Walk) else transition
    chain.requires_grad_(False)
    emission = LinearEmission(loading, torch.zeros(E), torch.eye(E))
    draws = sample_kalman_paths(chain, emission, x, (2 * copies,)).transpose(1, 2)  # (2n, B, T, D)

    def model(repeats):
        data = x.repeat(1, repeats, 1)
        with pyro.plate("sequences", data.shape[1]):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(z @ loading.T, 1.0).to_event(1), obs=data[t])

    before = draws[:copies].flatten(0, 1)
    after = ParticleGibbs(model, 3, ancestor_sampling=2).sweep(before, copies)
    after = after.unflatten(0, (copies, B))
    assert min(p_values(draws[copies:], after)) > ALPHA
    assert (after != draws[:copies]).any(-1).double().mean() > 0.2
    exact = kalman_filter(chain, emission, x).log_likelihood.sum(0)
    found = ParticleFilter(model, 2000).log_evidence(1)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.15)


def test_what_a_transition_without_parameters_leaves_to_learn_is_learned():
    """The emission's own: stochastic EM brings an offset to where the data are."""
    x, transition = 3.0 + torch.randn(T, 40, D), Walk(D)

    def model():
        offset = pyro.param("offset", torch.zeros(D))
        with pyro.plate("sequences", 40):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(0.1 * z + offset, 1.0).to_event(1), obs=x[t])

    em = StochasticEM(model, Adam({"lr": 0.3}), 3)
    for _ in range(40):
        em.step()
    # The standard error of the data's mean is 1 / sqrt(160) = 0.08.
    assert (pyro.param("offset") - 3.0).abs().max() < 0.5


@pytest.mark.parametrize("inference", ["em", "hmm"])
def test_what_is_observed_outside_the_loop_is_counted_too(inference, K=2, N=20):
    transition = LSTMTransition(K, 3)
    words, labels = torch.randint(V, (T, B)), torch.randint(V, (N,))

    def model():
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        with pyro.plate("labels", N):
            pyro.sample("label", dist.Categorical(phi[0]), obs=labels)
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    em = MarkovEM(model) if inference == "hmm" else StochasticEM(model, Adam({"lr": 0.0}), 3)
    em.step()
    both = torch.cat([words.reshape(-1), labels]).bincount(minlength=V).double()
    torch.testing.assert_close(em.counts["phi"].sum(0), both, rtol=0, atol=1e-6)
