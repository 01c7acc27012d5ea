"""Models whose latents are vectors, under Pyro's tools and under every inference class."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import HMC, MCMC, Predictive
from pyro.optim import Adam

from pyro_ssl import (
    MarkovEM,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    ParticleGibbsKernel,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.exact.kalman import LinearEmission, kalman_filter, sample_kalman_paths
from pyro_ssl.transitions import GaussianLSTMTransition, LinearGaussianTransition
from tests.smc.test_gaussian import AlmostLinear, Linear, p_values
from tests.statistics import ALPHA

T, B, D, E = 5, 4, 2, 3


@pytest.fixture
def x():
    return torch.randn(T, B, E)


def make_model(transition, lengths=None, size=None, loading=None):
    loading = torch.randn(E, D) if loading is None else loading

    def model(x, index=None):
        pyro.module("transition", transition)
        scale = pyro.param("scale", torch.ones(E), constraint=dist.constraints.positive)
        with pyro.plate("sequences", size or x.shape[1], subsample=index) as i:
            if index is not None:
                x = x[:, i]
            for t, z in ssl_transition("z", transition, len(x), lengths=lengths):
                pyro.sample("x", dist.Normal(z @ loading.T, scale).to_event(1), obs=x[t])

    return model


# --------------------------------------------------------------------------- under Pyro's tools


def test_the_path_is_one_site_with_time_and_dimension_in_its_event(x):
    transition = GaussianLSTMTransition(D, 4)
    lengths = torch.tensor([5, 1, 3, 0])
    trace = poutine.trace(make_model(transition, lengths)).get_trace(x)
    trace.compute_log_prob()
    site = trace.nodes["z"]
    assert site["value"].shape == (B, T, D) and site["fn"].event_shape == (T, D)
    log_p = transition.log_prob(site["value"])
    active = torch.arange(T) < lengths[:, None]
    torch.testing.assert_close(site["log_prob"], log_p.where(active, 0.0).sum(-1))
    assert trace.nodes["x"]["fn"].batch_shape == (T, B)
    assert not site["value"][~active].any()


def test_condition_and_predictive(x):
    model = make_model(GaussianLSTMTransition(D, 4))
    path = torch.randn(B, T, D)
    trace = poutine.trace(pyro.condition(model, {"z": path})).get_trace(x)
    seen = trace.nodes["x"]["fn"].base_dist.loc
    assert seen.shape == (T, B, E) and torch.equal(trace.nodes["z"]["value"], path)
    assert Predictive(model, num_samples=3)(x)["z"].reshape(3, B, T, D).isfinite().all()
    wrong = pyro.condition(model, {"z": torch.randn(B, T)})
    with pytest.raises(ValueError, match=r"expected \(4, 5, 2\), time last but one"):
        wrong(x)


# --------------------------------------------------------------------------- under the samplers


def test_chains_batched_and_in_pyros_mcmc(x):
    model = make_model(LinearGaussianTransition(D))
    sampler = ParticleGibbs(model, 5)
    sampler.run(x, num_samples=6, num_chains=3, disable_progbar=True)
    assert sampler.get_samples(group_by_chain=True)["z"].shape == (3, 6, B, T, D)
    report = sampler.diagnostics()
    assert report["change_rate"].shape == (T,) and (report["change_rate"] > 0.1).all()
    assert math.isfinite(report["mean_square"]["mean"])
    mcmc = MCMC(ParticleGibbsKernel(model, 5), num_samples=4, disable_progbar=True)
    mcmc.run(x)
    assert mcmc.get_samples()["z"].shape == (4, B, T, D)


@pytest.mark.parametrize("make", [Linear, AlmostLinear])
def test_chains_keep_the_exact_distribution(make, num_chains=3, copies=2000):
    """From Kalman draws to Kalman draws, each of 24 p-values above ALPHA.

    The chains of a body are swept within one run of it; sequences have data of their own.
    """
    case, n = make(3, 2, seed=1), num_chains * copies
    draws = sample_kalman_paths(*case.oracle, (2 * n,)).transpose(1, 2)  # (2n, 2, T, D)
    sampler = ParticleGibbs(case.model, 3)
    start = {"z": draws[:n].reshape(num_chains, 2 * copies, 3, D)}
    options = {"num_chains": num_chains, "initial_params": start, "disable_progbar": True}
    sampler.run(copies, num_samples=1, **options)
    z = sampler.get_samples()["z"].reshape(draws[:n].shape)
    assert min(p_values(draws[n:], z)) > ALPHA
    assert (z != draws[:n]).any(-1).double().mean() > 0.2


@pytest.mark.parametrize("starts", [[-1.0, 1.0], [1.0, -1.0]])
def test_one_chain_may_be_linear_and_another_not(starts, T=4, B=2):
    """Chains of their own kinds of emission are swept one by one."""
    transition = GaussianLSTMTransition(1, 3)

    def model(x):
        bent = pyro.sample("bent", dist.Normal(0.0, 1.0))
        with pyro.plate("series", B):
            for t, z in ssl_transition("z", transition, T):
                mean = torch.where(bent > 0, z[..., 0].tanh(), z[..., 0])
                pyro.sample("x", dist.Normal(mean, 0.5), obs=x[t])

    start = {"bent": torch.tensor(starts), "z": torch.zeros(2, B, T, 1)}
    sampler = ParticleGibbs(model, 3, inner_kernel=partial(HMC, num_steps=2))
    how = {"num_samples": 1, "num_chains": 2, "initial_params": start, "disable_progbar": True}
    sampler.run(torch.randn(T, B), **how)
    assert sampler.get_samples()["z"].shape == (2, B, T, 1)


def test_diagnostics_are_of_the_steps_within_the_lengths(x):
    lengths = torch.tensor([5, 2, 3, 1])
    sampler = ParticleGibbs(make_model(LinearGaussianTransition(D), lengths), 5)
    sampler.run(x, num_samples=3, disable_progbar=True)
    z = sampler.get_samples()["z"]
    past = torch.arange(T) >= lengths[:, None]
    assert not z[:, past].any()
    square = z.square().sum((1, 2, 3)) / (lengths.sum() * D)
    found = sampler.diagnostics()["mean_square"]["mean"]
    assert found == pytest.approx(float(square.mean()))


def test_filter_is_kalmans_on_one_step(x):
    """At T=1 nothing is left to chance: α is the evidence."""
    transition, loading = LinearGaussianTransition(D), torch.randn(E, D)
    model = make_model(transition, loading=loading)
    emission = LinearEmission(loading, torch.zeros(E), torch.eye(E))
    expected = kalman_filter(transition, emission, x[:1]).log_likelihood
    found = ParticleFilter(model, 3).log_likelihood(x[:1])
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.stage("statistical")
def test_learning_raises_the_evidence(x):
    torch.manual_seed(1)
    true = LinearGaussianTransition(
        D, matrix=0.9 * torch.eye(D), scale=torch.full((D,), 0.3), initial_scale=torch.ones(D)
    )
    model = make_model(true)
    with torch.no_grad():
        z = poutine.trace(model).get_trace(torch.zeros(40, 30, E)).nodes["x"]["fn"].sample()
    learned = GaussianLSTMTransition(D, 8)
    model = make_model(learned)
    em = StochasticEM(model, Adam({"lr": 0.02}), num_particles=5, num_gradient_steps=3)
    before = ParticleFilter(model, 50).log_evidence(z).sum()
    for _ in range(15):
        em.step(z)
    assert ParticleFilter(model, 50).log_evidence(z).sum() > before + 100.0
    assert em.paths.shape == (30, 40, D) and em.change_rate > 0.1


def test_minibatches_keep_their_own_paths(x):
    model = make_model(GaussianLSTMTransition(D, 4), size=B)
    em = StochasticEM(model, Adam({"lr": 0.01}), num_particles=3)
    em.step(x, torch.tensor([0, 2]))
    first = em.paths.clone()
    em.step(x, torch.tensor([1, 3]))
    assert torch.equal(em.paths[[0, 2]], first[[0, 2]]) and not first[[1, 3]].any()
    assert em.paths[[1, 3]].any()


def test_forecast_is_kalmans(x):
    """What is filtered first, then not observed: means, and the last point's density.

    20,000 particles that are a tenth as good as independent draws: |z| < 6, by chance in 10^-7.
    """
    transition = LinearGaussianTransition(
        D, matrix=0.8 * torch.eye(D), scale=torch.full((D,), 0.4), initial_scale=torch.ones(D)
    )
    loading, start, P = torch.randn(E, D), 3, 20_000
    model = make_model(transition, loading=loading)
    emission = LinearEmission(loading, torch.zeros(E), torch.eye(E))
    blind = (torch.arange(T) < start).unsqueeze(-1).expand(T, B)
    exact = kalman_filter(transition, emission, x, mask=blind)
    found = ParticleFilter(model, P).forecast(x, start=start)
    assert found.state_probs is None and found.paths.shape == (P, B, T - start, D)
    mean = exact.mean[start:].detach()
    sd = exact.covariance[start:].diagonal(dim1=-2, dim2=-1).sqrt().detach()
    away = found.paths.mean(0).transpose(0, 1) - mean
    assert (away.abs() < 6 * sd * math.sqrt(10 / P)).all()
    covariance = loading @ exact.covariance[start:].detach() @ loading.T + torch.eye(E)
    law = torch.distributions.MultivariateNormal(mean @ loading.T, covariance)
    torch.testing.assert_close(found.log_prob, law.log_prob(x[start:]), rtol=0, atol=0.1)
    from_nothing = ParticleFilter(model, 10).forecast(x, start=0)
    assert from_nothing.paths.shape == (10, B, T, D)


def test_forecast_of_another_emission_says_what_to_do(x):
    def model(x):
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", GaussianLSTMTransition(D, 4), T):
                pyro.sample("x", dist.Poisson(z.exp()).to_event(1), obs=x[t])

    with pytest.raises(TypeError, match="found another. Mask the later observations"):
        ParticleFilter(model, 3).forecast(torch.ones(T, B, D), start=2)


@pytest.mark.parametrize("what", ["hmm", "mean_field"])
def test_what_sums_over_states_says_so(x, what):
    model = make_model(LinearGaussianTransition(D))
    call = {
        "hmm": lambda: MarkovEM(model).step(x),
        "mean_field": lambda: MeanFieldGuide(model)(x),
    }[what]
    with pytest.raises(TypeError, match="sums over K states; expected a DiscreteTransition"):
        call()
