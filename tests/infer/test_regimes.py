"""A chain over linear dynamics: the body reads the observation before, as data.

Against the forward algorithm, against all paths, and for the two sweeps of a switching linear
system, whose states are latent too, against dense Gaussians. Statistical tests ask for p > 1e-6, or
|z| < 4.5 (7e-6): four of them, no false alarm in 50,000 seeds.
"""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal

from pyro_ssl import (
    MarkovEM,
    MarkovTransition,
    ParticleFilter,
    ParticleGibbs,
    ssl_transition,
    verify,
)
from pyro_ssl.errors import EmissionNotLocalError
from pyro_ssl.steps import lagged
from pyro_ssl.transitions import GaussianTransition, LinearGaussianState, Moments
from tests.enumeration import all_paths, repeated
from tests.infer.test_particle_filter import sharp_lstm
from tests.statistics import ALPHA, chi_square, p_value

K, D, T = 3, 2, 5


@pytest.fixture
def dynamics():
    """A, b and the Cholesky factors of R; regimes are far from each other, and from certain."""
    root = 0.6 * torch.eye(D) + torch.randn(K, D, D).tril(-1) * 0.3
    return torch.randn(K, D, D), torch.randn(K, D), root


def regimes(transition, dynamics):
    """The model of x ``(T, B, D)``, NaN where it was not observed; steps count whole."""
    A, b, root = dynamics

    def model(x):
        pyro.module("transition", transition)
        before, known = lagged(x)
        scored = (known & ~x.isnan()).all(-1)
        x = x.nan_to_num()
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                mean = (A[z] @ before[t].unsqueeze(-1)).squeeze(-1) + b[z]
                law = dist.MultivariateNormal(mean, scale_tril=root[z])
                pyro.sample("x", law.mask(scored[t]), obs=x[t])

    return model


def data(missing, B=3):
    x = torch.randn(T, B, D)
    if missing:
        x[1, 0, 1] = x[2, 1] = x[0, 2] = float("nan")
    return x


def forward_algorithm(initial, matrix, dynamics, x):
    """log p(x_t | x_{1:t-1}) ``(T, B)``, one sequence and one regime at a time.

    A step counts where it and the one before it were seen whole.
    """
    A, b, root = dynamics
    found = torch.zeros(x.shape[:2])
    for i in range(x.shape[1]):
        prior = initial
        for t in range(len(x)):
            density = torch.ones(K)
            if t and x[t - 1 : t + 1, i].isfinite().all():
                for k in range(K):
                    law = MultivariateNormal(A[k] @ x[t - 1, i] + b[k], root[k] @ root[k].T)
                    density[k] = law.log_prob(x[t, i]).exp()
            found[t, i] = (prior @ density).log()
            prior = (prior * density / (prior @ density)) @ matrix
    return found


@pytest.mark.parametrize("missing", [False, True])
def test_a_chain_of_regimes_is_the_forward_algorithm(dynamics, missing):
    """P=20,000: the standard error of each term is about 0.01."""
    matrix, x = dist.Dirichlet(torch.ones(K)).sample((K,)), data(missing)
    initial = torch.ones(K) / K
    model = regimes(MarkovTransition(K, initial=initial, matrix=matrix), dynamics)
    exact = forward_algorithm(initial, matrix, dynamics, x)
    hmm = MarkovEM(model).start_from(initial, matrix)
    torch.testing.assert_close(hmm.log_likelihood(x), exact)
    found = ParticleFilter(model, 20_000).log_likelihood(x)
    assert torch.allclose(found, exact, atol=0.05)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("twist", [None, "markov"])
def test_evidence_under_an_lstm_is_that_of_all_paths(dynamics, twist, always_twisted, R=20_000):
    model, x = regimes(sharp_lstm(), dynamics), data(True)[:, 0]
    exact = all_paths(model, {"z": K}, x)
    log_z = ParticleFilter(model, 3, twist=twist).log_evidence(repeated(x, R))
    ratio = (log_z - exact.log_evidence).exp()
    assert (ratio.mean() - 1.0).abs() < 4.5 * ratio.std() / R**0.5


@pytest.mark.stage("statistical")
def test_one_sweep_keeps_the_posterior_of_regimes(dynamics, R=40_000):
    model, x = regimes(sharp_lstm(), dynamics), data(True)[:, 0]
    exact = all_paths(model, {"z": K}, x)
    start = exact.draw(R)
    sampler = ParticleGibbs(model, 2, ancestor_sampling=1, twist=None)
    path = sampler.sweep(start["z"], repeated(x, R))
    assert p_value([chi_square(exact.counts({"z": path}), exact.posterior)]) > ALPHA
    assert (path != start["z"]).double().mean() > 0.05


@pytest.mark.stage("statistical")
def test_verify_passes(dynamics):
    report = verify(regimes(sharp_lstm(), dynamics), data(True))
    assert report.passed, report
    assert report["evidence"].verdict == report["invariance"].verdict == "passed"


def test_as_observations_come(dynamics):
    """The step before is given with the new ones; draws are those on all data, to the last bit."""
    (A, b, root), transition, x = dynamics, sharp_lstm(), data(False)

    def model(x, before, known):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                mean = (A[z] @ before[t].unsqueeze(-1)).squeeze(-1) + b[z]
                law = dist.MultivariateNormal(mean, scale_tril=root[z])
                pyro.sample("x", law.mask(known[t].all(-1)), obs=x[t])

    before, pf = lagged(x), ParticleFilter(model, 20, seed=0)
    whole = pf.log_likelihood(x, *before)
    state = pf.start(*(part[:2] for part in (x, *before)))
    for t in range(2, T):
        state = pf.update(state, *(part[t : t + 1] for part in (x, *before)))
        assert torch.equal(state.log_likelihood[-1], whole[t])
    with pytest.raises(EmissionNotLocalError):  # its first step would be that of each part
        ParticleFilter(regimes(transition, dynamics), 20).start(x)


class Switched(GaussianTransition):
    """y_1 ~ N(0, 1) and y_t ~ N(A_k y_{t-1} + b_k, r_k^2), k told by its one-hot inputs."""

    def __init__(self, dynamics):
        super().__init__(1)
        self.input_size = len(dynamics[1])
        for name, value in zip(("matrix", "offset", "scale"), dynamics, strict=True):
            self.register_buffer(name, value)

    def initial_state(self, batch_shape):
        return LinearGaussianState(self.offset.new_zeros((*batch_shape, 0)))

    def step_moments(self, z_prev, state, inputs=None):
        if z_prev is None:
            mean = self.offset.new_zeros((*state.batch.shape[:-1], 1))
            return Moments(mean, torch.ones_like(mean)), state
        mean = (inputs @ self.matrix[:, 0]) * z_prev + inputs @ self.offset
        return Moments(mean, inputs @ self.scale), state


def dense(dynamics, z):
    """Mean ``(T,)`` of y, and its root S: y = mean + S e with e ~ N(0, 1), of one path."""
    A, b, r = (part.flatten() for part in dynamics)
    mean, root = torch.zeros(len(z)), torch.eye(len(z))
    for t in range(1, len(z)):
        mean[t] = A[z[t]] * mean[t - 1] + b[z[t]]
        root[t] = A[z[t]] * root[t - 1]
        root[t, t] = r[z[t]]
    return mean, root


@pytest.mark.stage("statistical")
def test_two_sweeps_in_turn_keep_the_posterior_of_a_switching_system(R=20_000, T=3, noise=0.7):
    """Of an SLDS: regimes given states and states given regimes, each a sweep of its own model.

    From exact draws of both, against the paths' law and the means and squares of the states.
    """
    dynamics = torch.tensor([[[0.9]], [[-0.8]]]), torch.tensor([[0.5], [-0.3]])
    roots = torch.tensor([[0.4], [0.8]])
    x, lstm = torch.tensor([0.6, -0.4, 1.1]), sharp_lstm(2)
    z = torch.tensor(list(itertools.product(range(2), repeat=T)))
    law, given = lstm.log_prob(z).sum(-1).detach(), []
    for i, path in enumerate(z):
        mean, root = dense((*dynamics, roots), path)
        covariance = root @ root.T
        total = covariance + noise**2 * torch.eye(T)
        law[i] += MultivariateNormal(mean, total).log_prob(x)
        gain = covariance @ total.inverse()
        given.append(MultivariateNormal(mean + gain @ (x - mean), covariance - gain @ covariance))
    law = law.softmax(0)

    def states(x, u):
        with pyro.plate("series", x.shape[1]):
            for t, y in ssl_transition("y", Switched((*dynamics, roots)), len(x), inputs=u):
                pyro.sample("x", dist.Normal(y, noise).to_event(1), obs=x[t])

    index = law.multinomial(R, replacement=True)
    y = torch.stack([g.sample((R,)) for g in given])[index, torch.arange(R)].unsqueeze(-1)
    path, data = z[index], x.view(T, 1, 1).expand(T, R, 1)
    regime_sampler = ParticleGibbs(regimes(lstm, (*dynamics, roots.unsqueeze(-1))), 3)
    state_sampler = ParticleGibbs(states, 3)
    for _ in range(2):
        path = regime_sampler.sweep(path, y.transpose(0, 1))
        u = torch.nn.functional.one_hot(path.T, 2).to(y.dtype)
        y = state_sampler.sweep(y, data, u)
    counts = (path * 2 ** torch.arange(T - 1, -1, -1)).sum(-1).bincount(minlength=len(z))
    assert p_value([chi_square(counts, law)]) > ALPHA
    first = torch.stack([g.mean for g in given])
    second = torch.stack([g.variance for g in given]) + first.square()
    for found, exact in ((y[..., 0], law @ first), (y[..., 0].square(), law @ second)):
        assert ((found.mean(0) - exact).abs() < 4.5 * found.std(0) / R**0.5).all()
