"""The linear Gaussian chain satisfies the contract, and is a joint Gaussian."""

import pyro.distributions as dist
import torch

from pyro_ssl.testing import GaussianTransitionContract
from pyro_ssl.transitions import LinearGaussianTransition, PathDistribution

D, T = 2, 5


def random_chain(dim=D):
    chain = LinearGaussianTransition(dim)
    for parameter in chain.parameters():
        parameter.data.normal_().mul_(0.5)
    return chain


class TestLinear(GaussianTransitionContract):
    def make(self, dim=D):
        return random_chain(dim)


class TestLinearGiven(GaussianTransitionContract):
    def make(self, dim=D):
        return LinearGaussianTransition(
            dim,
            matrix=torch.randn(dim, dim),
            offset=torch.randn(dim),
            scale=torch.rand(dim) + 0.1,
            initial_mean=torch.randn(dim),
            initial_scale=torch.rand(dim) + 0.1,
        )


class TestLinearWithInputs(GaussianTransitionContract):
    def make(self, dim=D):
        chain = LinearGaussianTransition(dim, input_size=3)
        for parameter in chain.parameters():
            parameter.data.normal_().mul_(0.5)
        return chain


def joint_of_chain(chain, T):
    """Mean ``(T D,)`` and covariance of z_{1:T}, from z = L (noise) with unit lower blocks."""
    D, A = chain.dim, chain.matrix
    mean, blocks = [chain.initial_mean], torch.zeros(T, D, T, D)
    for t in range(T):
        for s in range(t + 1):
            blocks[t, :, s] = torch.linalg.matrix_power(A, t - s)
        if t:
            mean.append(A @ mean[-1] + chain.offset)
    scales = torch.cat([chain.initial_scale, chain.scale.repeat(T - 1)])
    root = blocks.reshape(T * D, T * D) * scales
    return torch.cat(mean), root @ root.T


@torch.no_grad()
def test_linear_chain_is_its_joint_gaussian():
    chain = random_chain()
    z = torch.randn(6, T, D)
    joint = dist.MultivariateNormal(*joint_of_chain(chain, T))
    torch.testing.assert_close(chain.log_prob(z).sum(-1), joint.log_prob(z.flatten(1)))


@torch.no_grad()
def test_samples_have_the_distribution_of_the_chain():
    """Means and covariances of 20,000 draws within 6 standard errors.

    110 of them at 2e-9 each: by chance once in 4 million seeds.
    """
    chain, n = random_chain(), 20_000
    mean, covariance = joint_of_chain(chain, T)
    z = PathDistribution(chain, T).sample((n,)).flatten(1) - mean
    variance = covariance.diagonal()
    assert (z.mean(0).abs() < 6 * (variance / n).sqrt()).all()
    error = (torch.outer(variance, variance) + covariance.square()).div(n).sqrt()
    assert ((z.T @ z / n - covariance).abs() < 6 * error).all()


def test_linear_chain_starts_as_a_random_walk():
    chain = LinearGaussianTransition(D)
    z = torch.randn(T, D)
    steps = torch.cat([z[:1], z[1:] - z[:-1]])
    expected = dist.Normal(0.0, 1.0).log_prob(steps).sum(-1)
    torch.testing.assert_close(chain.log_prob(z), expected)
    assert len(list(chain.parameters())) == 5 and not list(chain.buffers())


def test_gradient_reaches_values_that_were_given():
    given = {
        "matrix": torch.randn(D, D, requires_grad=True),
        "offset": torch.randn(D, requires_grad=True),
        "scale": torch.ones(D, requires_grad=True),
        "initial_mean": torch.randn(D, requires_grad=True),
        "initial_scale": torch.ones(D, requires_grad=True),
    }
    chain = LinearGaussianTransition(D, **given)
    assert not list(chain.parameters())
    chain.log_prob(torch.randn(T, D)).sum().backward()
    assert all(bool(value.grad.all()) for value in given.values())
