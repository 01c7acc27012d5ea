"""The product of a Gaussian and a quadratic exponential, against dense linear algebra."""

import math

import pytest
import torch

from pyro_ssl.smc.product import UNROLLED, product

B, P = 3, 5


@pytest.fixture(params=[1, 2, 3, 4, 6])
def problem(request):
    return make_problem(request.param)


def make_problem(D):
    """A product, each of its parts written densely, and the log of its integrand."""
    mean, scale = torch.randn(B, P, D), 0.1 + torch.rand(B, P, D)
    gradient = torch.randn(B, P, D)
    root = torch.randn(B, 1, D, max(D - 1, 1))  # not of full rank
    precision = root @ root.mT
    found = product(mean, scale, gradient, precision)
    full = torch.diag_embed(scale.square().reciprocal()) + precision
    top = mean + torch.linalg.solve(full, gradient)

    def log_integrand(z):
        away = z - mean
        curved = (precision @ away.unsqueeze(-1)).squeeze(-1)
        prior = torch.distributions.Normal(mean, scale).log_prob(z).sum(-1)
        return prior + (away * (gradient - 0.5 * curved)).sum(-1)

    return D, found, full, top, log_integrand


def test_mean_and_integral(problem):
    D, found, full, top, log_integrand = problem
    torch.testing.assert_close(found.mean(), top)
    # The integral of a Gaussian is its top times (2π)^{D/2} / sqrt det.
    expected = log_integrand(top) + 0.5 * D * math.log(2 * math.pi) - 0.5 * torch.logdet(full)
    torch.testing.assert_close(found.log_mass, expected)


def test_draws_are_an_affine_map_with_the_right_covariance(problem):
    """Noise of one coordinate at a time shows the columns of L^{-T}; rows are the ancestors'."""
    D, found, full, top, _ = problem
    rows = torch.randint(P, (B, P)) + P * torch.arange(B).unsqueeze(-1)
    columns = []
    for noise in torch.eye(D):
        z = found.draw(rows.view(-1), noise.expand(B * P, D))
        columns.append(z - top.flatten(0, 1)[rows])
    root = torch.stack(columns, -1)
    expected = torch.linalg.inv(full).flatten(0, 1)[rows]
    torch.testing.assert_close(root @ root.mT, expected)


def test_both_forms_agree_in_float32_where_scales_differ(monkeypatch):
    """A millionth beside a thousand, far from zero: float32 keeps its digits."""
    D = UNROLLED
    scale = torch.tensor([1e-6, 1.0, 1e3]).expand(B, P, D)
    mean, gradient, root = 100 * torch.randn(B, P, D), torch.randn(B, P, D), torch.randn(B, 1, D, D)
    arguments = [v.float() for v in (mean, scale, gradient, root @ root.mT)]
    unrolled = product(*arguments)
    monkeypatch.setattr("pyro_ssl.smc.product.UNROLLED", 0)
    factored = product(*(v.double() for v in arguments))
    torch.testing.assert_close(unrolled.mean().double(), factored.mean(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unrolled.log_mass.double(), factored.log_mass, rtol=1e-4, atol=1e-4)
