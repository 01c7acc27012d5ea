"""Latent sites without a closed form in stochastic EM, and their draws in the particle filter."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoNormal
from pyro.optim import Adam
from torch.optim import SGD

from pyro_ssl import (
    MarkovTransition,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import LatentSiteError
from tests.faults.digest import nothing_changes
from tests.infer.models_of_globals import (
    MODELS,
    B,
    K,
    T,
    at,
    finite,
    gamma_over_dirichlet,
    lstm,
    normal_mean_and_scale,
    poisson_rates,
    semi_supervised,
    two_chains,
)
from tests.infer.test_globals_law import PATHS, drawn

CONTINUOUS = [model for model in MODELS if model is not finite]


@pytest.mark.parametrize(
    "model", [*CONTINUOUS, two_chains, semi_supervised], ids=lambda model: model.__name__
)
def test_em_estimates_every_continuous_site(model):
    values, data = drawn(model)
    em = StochasticEM(model, Adam({"lr": 0.05}), 4)
    losses = [em.step(**data) for _ in range(3)]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert em.values.keys() == values.keys() - {*PATHS}
    assert all(em.values[name].shape == values[name].shape for name in em.values)
    assert ParticleFilter(em.fitted_model, 4).log_evidence(**data).isfinite().all()


@pytest.mark.parametrize("model", [*CONTINUOUS, semi_supervised], ids=lambda m: m.__name__)
def test_svi_takes_every_continuous_site(model):
    """A guide of the paths and of tables of counts, and one of Pyro's of all else."""
    values, data = drawn(model)
    hidden = ["z", "phi"] if model in (gamma_over_dirichlet, semi_supervised) else ["z"]
    guide = AutoGuideList(model)
    guide.append(MeanFieldGuide(model))
    guide.append(AutoNormal(pyro.poutine.block(model, hide=hidden)))
    svi = SVI(model, guide, Adam({"lr": 0.02}), loss=MeanFieldELBO())
    losses = torch.tensor([svi.step(**data) for _ in range(3)])
    assert losses.isfinite().all()
    assert {name for name in values if name not in hidden} <= guide.median(**data).keys()


def all_known(x=None):
    """One state: paths are known, and the mode is that of a plain model."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    one_state = MarkovTransition(1, initial=torch.ones(1), matrix=torch.ones(1, 1))
    with pyro.plate("sequences", B):
        for t, z in ssl_transition("z", one_state, T):
            pyro.sample("x", dist.Normal(mean + 0.0 * z, scale), obs=at(x, t))


@pytest.mark.stage("system")
def test_em_finds_the_mode_that_pyros_autodelta_finds():
    x = 1.0 + 0.5 * torch.randn(T, B)
    em = StochasticEM(all_known, Adam({"lr": 0.1}), 2)
    for _ in range(150):
        em.step(x)
    guide = AutoDelta(pyro.poutine.block(all_known, expose=["mean", "scale"]))
    svi = SVI(pyro.condition(all_known, {"z": torch.zeros(B, T, dtype=torch.long)}), guide,
              Adam({"lr": 0.1}), Trace_ELBO())  # fmt: skip
    for _ in range(150):
        svi.step(x)
    found = guide.median(x)
    for name in ("mean", "scale"):
        assert em.values[name].item() == pytest.approx(found[name].item(), abs=2e-3)


@pytest.mark.stage("system")
def test_effects_of_sequences_go_by_minibatch():
    """One estimate of each sequence, whichever are at hand."""
    N, x = 6, torch.arange(6.0).expand(T, 6) + 0.1 * torch.randn(T, 6)

    def model(index):
        with pyro.plate("sequences", N, subsample=index) as index:
            effect = pyro.sample("effect", dist.Normal(0.0, 10.0))
            for t, z in ssl_transition("z", lstm(), T):
                pyro.sample("x", dist.Normal(effect + 0.0 * z, 0.5), obs=x[:, index][t])

    em = StochasticEM(model, Adam({"lr": 0.3}), 2)
    for step in range(160):
        em.step(torch.arange(N)[step % 2 :: 2])
    assert em.values["effect"].shape == (N,)
    assert em.values["effect"].allclose(x.mean(0), atol=0.1)


def test_a_warm_start_leaves_other_sites_as_they_start():
    data = drawn(poisson_rates)[1]
    em = StochasticEM(poisson_rates, Adam({"lr": 0.05}), 4)
    em.warm_start(**data, num_steps=2, transition_steps=2)
    assert em.values.keys() == {"rate"}
    em.step(**data)


def test_em_refuses_finite_sites_and_changes_nothing():
    data = drawn(finite)[1]
    em = StochasticEM(finite, Adam({}), 3)
    for _ in range(2):
        with (
            nothing_changes(),
            pytest.raises(LatentSiteError, match='Site "shift": latent, of fin'),
        ):
            em.step(**data)


def test_an_estimate_that_is_not_finite_is_undone():
    data = drawn(normal_mean_and_scale)[1]
    em = StochasticEM(normal_mean_and_scale, pyro.optim.PyroOptim(SGD, {"lr": 1e-3}), 3)
    em.step(**data)
    before = em.values
    with pytest.raises(ValueError):
        em.step(data["x"] * float("nan"))
    assert all(torch.equal(em.values[name], before[name]) for name in before)


# ------------------------------------------------------------------------------- posterior samples


MEANS = torch.tensor([[-1.0, 1.0], [-0.5, 2.0], [0.0, 0.3]])


def given_means(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
    with pyro.plate("sequences", B):
        for t, z in ssl_transition("z", lstm(), len(x)):
            pyro.sample("x", dist.Normal(mean[z], 0.7), obs=x[t])


@pytest.mark.stage("system")
def test_scores_are_averages_over_the_draws():
    """Each sequence weighs the draws by its own past."""
    x, P = torch.randn(T, B), 4000
    pf = ParticleFilter(given_means, P, posterior_samples={"mean": MEANS, "z": torch.zeros(3, 1)})
    each = [ParticleFilter(pyro.condition(given_means, {"mean": m}), P) for m in MEANS]
    log_p = torch.stack([f.log_likelihood(x) for f in each])  # (S, T, B)

    whole = log_p.sum(1).logsumexp(0) - torch.tensor(3.0).log()
    assert pf.log_evidence(x).allclose(whole, atol=0.05)
    assert pf.evidence(x).log_evidence.allclose(whole, atol=0.05)
    steps = pf.log_likelihood(x)
    assert steps.sum(0).allclose(whole, atol=0.05)
    w = log_p[:, :-1].cumsum(1).log_softmax(0)  # what the past says of the draws
    assert steps[1:].allclose((w + log_p[:, 1:]).logsumexp(0), atol=0.05)
    assert pf.perplexity(x, start=2) == pytest.approx(float((-steps[2:].mean()).exp()), rel=0.05)


def test_forecasts_are_mixtures_by_the_past():
    x, P, start = torch.randn(T, B), 4000, T - 1
    pf = ParticleFilter(given_means, P, posterior_samples={"mean": MEANS})
    each = [ParticleFilter(pyro.condition(given_means, {"mean": m}), P) for m in MEANS]
    found, forecasts = pf.forecast(x, start=start), [f.forecast(x, start=start) for f in each]
    past = torch.stack([f.log_likelihood(x)[:start].sum(0) for f in each]).softmax(0)  # (S, B)
    probs = torch.stack([f.state_probs for f in forecasts])  # (S, 1, B, K)
    wanted = (past[:, None, :, None] * probs).sum(0)
    assert found.state_probs.allclose(wanted, atol=0.03)
    log_p = torch.stack([f.log_prob for f in forecasts])
    assert found.log_prob.allclose((past.log().unsqueeze(1) + log_p).logsumexp(0), atol=0.05)
    assert found.paths.shape == (P, B, 1)
    share = (found.paths == 1).double().mean(0).squeeze(-1)
    assert share.allclose(wanted[0, :, 1], atol=0.06)
    # which draw each path is under, so that its observations can be drawn too
    assert found.samples.shape == (P, B) and forecasts[0].samples is None
    for s in range(len(MEANS)):
        under = (found.samples == s).double().mean(0)
        assert under.allclose(past[s], atol=0.06)


def test_draws_of_particle_gibbs_go_in_as_they_come_out():
    data = drawn(normal_mean_and_scale)[1]
    pg = ParticleGibbs(normal_mean_and_scale, 3)
    pg.run(**data, num_samples=3, disable_progbar=True)
    pf = ParticleFilter(normal_mean_and_scale, 3, posterior_samples=pg.get_samples())
    assert pf.log_evidence(**data).shape == (B,)
    with pytest.raises(ValueError, match="ParticleFilter.sweep: found 3 posterior samples"):
        pf.sweep(**data)


def test_draws_that_are_grouped_by_chain_are_told():
    """One chain's would pass for a value of each sequence, and each be scored under its own."""

    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", MarkovTransition(2), len(x)):
                pyro.sample("x", dist.Normal(3.0 * z, scale), obs=x[t])

    draws, x = torch.rand(2, 4) + 0.5, torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r'"scale": .* \(S, 4\), expected \(S\).*get_samples\(\)'):
        ParticleFilter(model, 3, posterior_samples={"scale": draws}).log_evidence(x)
    together = ParticleFilter(model, 3, posterior_samples={"scale": draws.flatten()})
    assert together.log_evidence(x).unique().numel() == 1


@pytest.mark.parametrize("wrong", [{}, {"mean": MEANS, "scale": MEANS[:2]}, {"mean": MEANS[:0]}])
def test_samples_are_checked(wrong):
    with pytest.raises(ValueError, match="posterior_samples hold"):
        ParticleFilter(given_means, 3, posterior_samples=wrong)
