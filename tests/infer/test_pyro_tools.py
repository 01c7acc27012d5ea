"""Particle Gibbs within Pyro's own tools: its MCMC drivers, and ``Predictive`` on its draws."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, Predictive
from pyro.infer.mcmc import StreamingMCMC
from pyro.ops.indexing import Vindex

from pyro_ssl import LSTMTransition, ParticleGibbs, ParticleGibbsKernel, ssl_transition

K, V, T, B, S = 3, 5, 4, 2, 6


def make_model(lookup=lambda phi, z: phi[z]):
    transition = LSTMTransition(K, 4)

    def model(words=None):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                obs = None if words is None else words[t]
                pyro.sample("x", dist.Categorical(lookup(phi, z)), obs=obs)

    return model


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


def draws(model, words, **how):
    pyro.set_rng_seed(0)
    sampler = ParticleGibbs(model, 3)
    sampler.run(words, num_samples=S, disable_progbar=True, **how)
    return sampler.get_samples()


def by_pyro(driver, model, words, warmup_steps, **how):
    pyro.set_rng_seed(0)
    kernel = ParticleGibbsKernel(model, 3)
    settings = {"num_samples": S, "warmup_steps": warmup_steps, "disable_progbar": True}
    mcmc = driver(kernel, **settings, **how)
    mcmc.run(words)
    return mcmc, kernel


# --------------------------------------------------------------------------------- Pyro's drivers


@pytest.mark.stage("system")
@pytest.mark.parametrize("warmup_steps", [0, 1, 5])
def test_warm_up_ends_in_pyros_mcmc_too(warmup_steps, words):
    """The kernel is the same from there on: its twist, its draws, and what it records."""
    model = make_model()
    mcmc, kernel = by_pyro(MCMC, model, words, warmup_steps)
    for name, value in draws(model, words, warmup_steps=warmup_steps).items():
        assert torch.equal(mcmc.get_samples()[name], value.to(mcmc.get_samples()[name].dtype))
    assert kernel.diagnostics()["num_sweeps"] == S


@pytest.mark.stage("system")
def test_streaming(words):
    """Sums over draws are kept in place of the draws."""
    model = make_model()
    mcmc, kernel = by_pyro(StreamingMCMC, model, words, 2)
    samples, found = draws(model, words, warmup_steps=2), mcmc.get_statistics(group_by_chain=False)
    for name, value in samples.items():
        assert found[name]["count"] == S
        torch.testing.assert_close(found[name]["mean"], value.double().mean(0))
        torch.testing.assert_close(found[name]["variance"], value.double().var(0))
    assert kernel.diagnostics()["num_sweeps"] == S and mcmc.diagnostics()


@pytest.mark.parametrize("driver", [MCMC, StreamingMCMC])
def test_start_and_hook(driver, words):
    start = {"z": torch.randint(K, (B, T)), "phi": torch.full((K, V), 1 / V)}
    seen = []

    def hook(kernel, params, stage, i):
        seen.append((stage, i, params))

    given = {name: value.clone() for name, value in start.items()}
    mcmc, kernel = by_pyro(driver, make_model(), words, 2, initial_params=given, hook_fn=hook)
    assert [(stage, i) for stage, i, _ in seen] == [("Warmup", i) for i in range(2)] + [
        ("Sample", i) for i in range(S)
    ]
    assert all(torch.equal(kernel.initial_params[name], start[name]) for name in start)
    if driver is MCMC:
        kept = torch.stack([params["phi"] for stage, _, params in seen if stage == "Sample"])
        assert torch.equal(kept, mcmc.get_samples()["phi"])


# ---------------------------------------------------------------------------------- Predictive


def test_predictive_with_a_latent_emission(words):
    model = make_model()
    found = Predictive(model, draws(model, words))(None)["x"]
    assert found.shape == (S, T, B)


def test_predictive_draws_under_each_draws_own_values():
    """Rows that tell the state: what is predicted is the path."""
    z = torch.randint(K, (S, B, T))
    phi = torch.eye(K, V).roll(1, 1).expand(S, K, V)
    for parallel, rows in ((False, phi), (True, phi[:, None, None])):
        model = make_model(lambda phi, z: Vindex(phi)[..., z, :])
        found = Predictive(model, {"z": z, "phi": rows}, parallel=parallel)(None)["x"]
        assert torch.equal(found, z.transpose(1, 2) + 1)


def test_parallel_predictive_with_a_latent_emission(words):
    """A body for it looks rows up by ``Vindex``, and φ has a 1 for time and for each plate."""
    model = make_model(lambda phi, z: Vindex(phi)[..., z, :])
    samples = draws(model, words)
    samples["phi"] = samples["phi"][:, None, None]
    assert Predictive(model, samples, parallel=True)(None)["x"].shape == (S, T, B)
