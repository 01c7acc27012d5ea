"""The bound of the particle filter: its value, the gradient that it has, and what it refuses."""

import itertools
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.infer.autoguide import AutoDelta
from pyro.optim import Adam

from pyro_ssl import GaussianLSTMTransition, ssl_transition
from pyro_ssl.errors import LatentSiteError, NonFiniteError
from pyro_ssl.exact.chains import enumerate_paths
from pyro_ssl.infer import ParticleELBO
from pyro_ssl.infer.estep import SMCSettings, draw_paths
from pyro_ssl.infer.particle_elbo import log_evidence
from pyro_ssl.reading.emission import read_emission
from pyro_ssl.reading.program import Program
from tests.faults.digest import nothing_changes
from tests.infer.test_mean_field import K, T, make_model
from tests.infer.test_mean_field import sharp_lstm as lstm

sharp_lstm = partial(lstm, 4.0)


def topics(words, beta=0.5):
    transition = sharp_lstm()

    def model(index=None):
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, 5), beta)).to_event(1))
        with pyro.plate("documents", words.shape[1], subsample=index) as chosen:
            x = words[:, chosen]
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model, transition


def no_guide():
    """All is known but the path."""


def swept(model, P):
    run = Program(model).run()
    settings = SMCSettings(P, ancestor_sampling=0)
    with torch.no_grad():
        return run, draw_paths(run, read_emission(run), None, settings)[0]


@pytest.mark.parametrize("kind", ["plain", "lengths", "inputs", "scale"])
def test_particles_that_are_stepped_again_have_the_evidence_that_they_had(kind):
    B, loop, scale = 3, {}, 1.0
    transition = sharp_lstm(input_size=2 if kind == "inputs" else 0)
    if kind in ("lengths", "scale"):
        loop["lengths"] = torch.tensor([4, 1, 2])
    if kind == "inputs":
        loop["inputs"] = torch.randn(T, B, 2)
    if kind == "scale":
        scale = torch.tensor([0.5, 1.0, 2.0])
    run, sweep = swept(make_model(transition, torch.randn(T, B), scale, **loop), 5)
    again = log_evidence(run, sweep)
    torch.testing.assert_close(again, sweep.log_likelihood.sum(0), rtol=1e-10, atol=1e-10)
    assert again.requires_grad


@pytest.mark.stage("statistical")
def test_evidence_is_unbiased():
    """Of 4,000 copies of a sequence; abs(z) < 4.5 fails once in 147,000 runs."""
    x = torch.randn(T, 1)
    transition = sharp_lstm()
    run, sweep = swept(make_model(transition, x.expand(T, 4000)), 2)
    exact = enumerate_paths(transition, run.grid.table()[:, :1]).log_joint.logsumexp(-1)
    ratio = (log_evidence(run, sweep) - exact).exp().detach()
    z = (ratio.mean() - 1.0) / (ratio.std() / len(ratio) ** 0.5)
    assert abs(z) < 4.5
    assert -ratio.log().mean() > 0.01  # of its logarithm, a bound


@pytest.mark.stage("statistical")
def test_gradient_is_that_of_the_filter():
    """By all paths of each length, at 4,000 particles: within 3 % of its norm, as its noise is.

    ∇ log p(x) is elsewhere: the tolerance tells them apart.
    """
    x, transition = torch.randn(T, 1) * 2.0, sharp_lstm()
    run, sweep = swept(make_model(transition, x.expand(T, 8)), 4000)
    parameters = list(transition.parameters())

    def flat(value):
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(grads, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    table, filtered = run.grid.table()[:, 0].detach(), 0.0
    for n in range(1, T + 1):
        paths = torch.tensor(list(itertools.product(range(K), repeat=n)))
        steps = transition.log_prob(paths) + table[torch.arange(n), paths]  # (K^n, n)
        filtered = filtered + (steps.sum(-1).softmax(0).detach() * steps[:, -1]).sum()
    exact = steps.sum(-1).logsumexp(0)
    filtered, exact = flat(filtered), flat(exact)
    found = flat(log_evidence(run, sweep).mean())
    assert (found - filtered).norm() < 0.03 * filtered.norm()
    assert (exact - filtered).norm() > 0.1 * filtered.norm()


@pytest.mark.stage("system")
def test_svi_learns_topics_and_transition():
    words = torch.tensor([[0, 4], [0, 4], [1, 3], [1, 3], [0, 4], [0, 4]])
    model, transition = topics(words)
    before = [p.detach().clone() for p in transition.parameters()]
    guide = AutoDelta(poutine.block(model, hide=["z"]))
    svi = SVI(model, guide, Adam({"lr": 0.05}), loss=ParticleELBO(8))
    losses = [svi.step() for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10]) - 10.0
    after = transition.parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_subsample_stands_for_all():
    """Of equal sequences, by one particle each, whose α are summed over z: no noise at T = 1."""
    words = torch.ones(1, 6, dtype=torch.long)
    model, _ = topics(words)
    guide = AutoDelta(poutine.block(model, hide=["z"]))
    loss = ParticleELBO(1)
    whole = loss.loss(model, guide)
    assert loss.loss(model, guide, torch.tensor([0, 3])) == pytest.approx(whole)
    assert float(loss.differentiable_loss(model, guide).detach()) == pytest.approx(whole)


def test_a_guide_that_is_the_prior_costs_nothing():
    """log q of its draw is log p, and at T = 1 the rest is known."""
    transition, x = sharp_lstm(), torch.zeros(1, 4)

    def model():
        pyro.module("transition", transition)
        pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("sequences", 4):
            for t, z in ssl_transition("z", transition, 1):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    def guide():
        pyro.sample("m", dist.Normal(0.0, 1.0))

    exact = enumerate_paths(transition, Program(model).run().grid.table())
    expected = -float(exact.log_joint.logsumexp(-1).sum().detach())
    assert ParticleELBO(2).loss(model, guide) == pytest.approx(expected)


def test_what_does_not_learn_is_told_where_there_is_a_gradient():
    """Of a transition outside Pyro's store; a value of known parameters is no cause for it."""
    transition, x, loss = sharp_lstm(), torch.randn(T, 2), ParticleELBO(2)

    def model():
        with pyro.plate("sequences", 2):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    loss.loss(model, no_guide)
    with pytest.warns(RuntimeWarning, match="not in Pyro's store.*pyro.module"):
        loss.loss_and_grads(model, no_guide)
    loss.loss_and_grads(model, no_guide)  # once


def test_what_is_refused():
    with pytest.raises(ValueError, match="num_particles is 0"):
        ParticleELBO(0)
    model, transition = topics(torch.ones(3, 2, dtype=torch.long))
    loss = ParticleELBO(3)
    with nothing_changes(), pytest.raises(LatentSiteError, match='"phi".*AutoDelta'):
        loss.loss(model, no_guide)
    vectors = GaussianLSTMTransition(2, 4)

    def walk():
        pyro.module("vectors", vectors)
        for _, z in ssl_transition("z", vectors, 3):
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=torch.zeros(()))

    with nothing_changes(), pytest.raises(TypeError, match="sums over K states"):
        ParticleELBO(3).loss(walk, no_guide)
    guide = AutoDelta(poutine.block(model, hide=["z"]))
    loss.loss(model, guide)
    transition.head.bias.data[0] = torch.nan
    with nothing_changes(), pytest.raises(NonFiniteError):
        loss.loss_and_grads(model, guide)
