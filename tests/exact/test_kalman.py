"""The Kalman answers are those of the dense joint Gaussian of all latents and all data."""

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl.exact.kalman import (
    LinearEmission,
    kalman_filter,
    kalman_smoother,
    sample_kalman_paths,
)
from pyro_ssl.transitions import LinearGaussianTransition

SIZES = [(1, 1, 1), (1, 2, 3), (2, 1, 4), (3, 2, 5), (2, 4, 3)]  # D, E, T
U = 2  # inputs of a driven chain
B = 4
TIGHT = {"rtol": 0.0, "atol": 1e-10}


class Problem:
    """A random linear Gaussian model, and data that are not drawn from it."""

    def __init__(self, D, E, T, how="whole"):
        driven = {"input_matrix": torch.randn(D, U), "input_size": U} if how == "driven" else {}
        self.chain = LinearGaussianTransition(
            D,
            matrix=torch.randn(D, D) * 0.7,
            offset=torch.randn(D),
            scale=torch.rand(D) + 0.2,
            initial_mean=torch.randn(D),
            initial_scale=torch.rand(D) + 0.2,
            **driven,
        )
        root = torch.randn(E, E)
        covariance = root @ root.T + 0.1 * torch.eye(E)
        self.emission = LinearEmission(torch.randn(E, D), torch.randn(E), covariance)
        self.x, self.T = 2.0 * torch.randn(T, B, E), T
        self.seen = torch.ones(T, B, E, dtype=torch.bool)
        self.options = {}
        if driven:
            self.options["inputs"] = torch.randn(T, B, U)
        if how in ("sensors", "driven"):
            self.x[torch.rand(T, B, E) < 0.3] = torch.nan
            self.x[:, 1, 0] = torch.nan  # a sensor that was out all the time
            self.x[0, 2] = torch.nan
            self.options["mask"] = torch.rand(T, B, E) < 0.9
            self.seen &= self.options["mask"] & ~self.x.isnan()
        if how in ("masked", "both"):
            self.options["mask"] = torch.rand(T, B) < 0.6
            self.options["mask"][:, 0] = False  # and one without any observation
            self.seen &= self.options["mask"].unsqueeze(-1)
        if how in ("ragged", "both"):
            self.options["lengths"] = torch.tensor([T, 0, (T + 1) // 2, T])
            self.seen &= (torch.arange(T)[:, None] < self.options["lengths"]).unsqueeze(-1)

    def args(self):
        return self.chain, self.emission, self.x

    def prior(self, b):
        """Mean ``(T D,)`` and covariance of z_{1:T}: z = F⁻¹ (drift + noise), F z_t = z_t - A z."""
        D, T = self.chain.dim, self.T
        F = torch.eye(T * D)
        for t in range(1, T):
            F[t * D : (t + 1) * D, (t - 1) * D : t * D] = -self.chain.matrix
        drift = torch.cat([self.chain.initial_mean, self.chain.offset.repeat(T - 1)])
        if "inputs" in self.options:
            moved = self.options["inputs"][1:, b] @ self.chain.input_matrix.T
            drift[D:] += moved.flatten()
        noise = torch.cat([self.chain.initial_scale, self.chain.scale.repeat(T - 1)]).square()
        inverse = torch.linalg.inv(F)
        return inverse @ drift, inverse @ noise.diag() @ inverse.T

    def posterior(self, b, upto=None):
        """Mean and covariance of z_{1:T} given x_{1:upto} of a sequence, and log p(x_{1:upto})."""
        mean, covariance = self.prior(b)
        C, d, R = self.emission
        seen = self.seen[:, b].clone()
        seen[self.T if upto is None else upto :] = False
        rows = seen.flatten()
        if not rows.any():
            return mean, covariance, torch.zeros(())
        T = self.T
        H = torch.kron(torch.eye(T), C)[rows]
        noise = torch.kron(torch.eye(T), R)[rows][:, rows]
        p_x = dist.MultivariateNormal(H @ mean + d.repeat(T)[rows], H @ covariance @ H.T + noise)
        x = self.x[:, b].flatten()[rows]
        gain = covariance @ H.T @ torch.linalg.inv(p_x.covariance_matrix)
        return mean + gain @ (x - p_x.mean), covariance - gain @ H @ covariance, p_x.log_prob(x)

    def block(self, mean, covariance, t):
        D = self.chain.dim
        rows = slice(t * D, (t + 1) * D)
        return mean[rows], covariance[rows, rows]


KINDS = pytest.mark.parametrize("how", ["whole", "masked", "ragged", "both", "sensors", "driven"])


@KINDS
@pytest.mark.parametrize("D, E, T", SIZES)
def test_filter_is_the_joint_gaussian(D, E, T, how):
    problem = Problem(D, E, T, how)
    found = kalman_filter(*problem.args(), **problem.options)
    for b in range(B):
        evidence = torch.zeros(())
        for t in range(T):
            mean, covariance, upto = problem.posterior(b, t + 1)
            torch.testing.assert_close(found.log_likelihood[t, b], upto - evidence, **TIGHT)
            expected = problem.block(mean, covariance, t)
            torch.testing.assert_close(found.mean[t, b], expected[0], **TIGHT)
            torch.testing.assert_close(found.covariance[t, b], expected[1], **TIGHT)
            evidence = upto
    assert (found.log_likelihood[~problem.seen.any(-1)] == 0).all()


@KINDS
@pytest.mark.parametrize("D, E, T", SIZES)
def test_smoother_is_the_joint_gaussian(D, E, T, how):
    problem = Problem(D, E, T, how)
    found = kalman_smoother(*problem.args(), **problem.options)
    for b in range(B):
        mean, covariance, _ = problem.posterior(b)
        for t in range(T):
            expected = problem.block(mean, covariance, t)
            torch.testing.assert_close(found.mean[t, b], expected[0], **TIGHT)
            torch.testing.assert_close(found.covariance[t, b], expected[1], **TIGHT)
            if t:
                across = covariance[t * D : (t + 1) * D, (t - 1) * D : t * D]
                torch.testing.assert_close(found.lagged[t - 1, b], across, **TIGHT)


@KINDS
def test_draws_are_from_the_posterior(how):
    """Means and covariances of 20,000 paths, across steps too, within 6 standard errors.

    Four sequences of 9 means and 81 products, at 2e-9 each: by chance once in 10^6 seeds.
    """
    D, E, T, n = 3, 2, 3, 20_000
    problem = Problem(D, E, T, how)
    z = sample_kalman_paths(*problem.args(), (n,), **problem.options)
    assert z.shape == (n, T, B, D)
    for b in range(B):
        length = problem.options["lengths"][b] if "lengths" in problem.options else T
        assert not z[:, length:, b].any()
        mean, covariance, _ = problem.posterior(b)
        mean, covariance = mean[: length * D], covariance[: length * D, : length * D]
        error = z[:, :length, b].flatten(1) - mean
        variance = covariance.diagonal()
        assert (error.mean(0).abs() <= 6 * (variance / n).sqrt()).all()
        bound = (torch.outer(variance, variance) + covariance.square()).div(n).sqrt()
        assert ((error.T @ error / n - covariance).abs() <= 6 * bound).all()


def test_draws_without_a_sample_shape_are_one_each():
    problem = Problem(2, 1, 4)
    assert sample_kalman_paths(*problem.args()).shape == (4, B, 2)
    assert sample_kalman_paths(*problem.args(), (2, 3)).shape == (2, 3, 4, B, 2)


@pytest.mark.parametrize("D, E, T", [(2, 3, 5), (3, 1, 40)])
def test_evidence_is_pyros_hmm(D, E, T):
    """Pyro's chain makes a transition before its first observation: one that forgets z_0."""
    problem = Problem(D, E, T)
    chain, (C, d, R), x = problem.args()
    matrix = torch.cat([torch.zeros(1, D, D), chain.matrix.T.expand(T - 1, D, D)])
    mean = torch.cat([chain.initial_mean[None], chain.offset.expand(T - 1, D)])
    scale = torch.cat([chain.initial_scale[None], chain.scale.expand(T - 1, D)])
    pyros = dist.GaussianHMM(
        dist.MultivariateNormal(torch.zeros(D), torch.eye(D)),
        matrix,
        dist.Normal(mean, scale).to_event(1),
        C.T,
        dist.MultivariateNormal(d, R),
    )
    found = kalman_filter(*problem.args()).log_likelihood.sum(0)
    torch.testing.assert_close(found, pyros.log_prob(x.transpose(0, 1)), rtol=1e-9, atol=1e-9)


@KINDS
def test_gradient_of_the_evidence_is_that_of_the_joint(how):
    """By the score of Fisher's identity: d log p(x) / d d = Σ_t R⁻¹ (x_t - C E[z_t | x] - d)."""
    problem = Problem(2, 3, 5, how)
    C, d, R = problem.emission
    d.requires_grad_()
    x = problem.x.masked_fill(~problem.seen, torch.nan)
    found = kalman_filter(problem.chain, problem.emission, x, **problem.options)
    (gradient,) = torch.autograd.grad(found.log_likelihood.sum(), d)
    smoothed = kalman_smoother(*problem.args(), **problem.options).mean
    residual = problem.x - smoothed @ C.T - d.detach()
    expected = torch.zeros_like(d)
    for t, b in problem.seen.any(-1).nonzero().tolist():
        there = problem.seen[t, b]
        expected[there] += torch.linalg.solve(R[there][:, there], residual[t, b, there])
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_what_is_not_observed_is_not_read():
    problem = Problem(2, 2, 6, "both")
    hidden = problem.x.masked_fill(~problem.seen, torch.nan)
    for infer in (kalman_filter, kalman_smoother):
        expected = infer(*problem.args(), **problem.options)
        found = infer(problem.chain, problem.emission, hidden, **problem.options)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    draws = sample_kalman_paths(problem.chain, problem.emission, hidden, **problem.options)
    assert draws.isfinite().all()


@KINDS
def test_gradients_of_all_parameters_are_finite_and_right(how):
    """Against those of the dense joint Gaussian, with fewer and with more sensors than latents."""
    for D, E in ((3, 2), (2, 4)):
        problem = Problem(D, E, 4, how)
        chain, emission, x = problem.args()
        parts = [chain.matrix, chain.log_scale, *emission[:2]]
        parts = [part.requires_grad_() for part in parts]
        found = kalman_filter(chain, emission, x, **problem.options).log_likelihood.sum()
        joint = sum(problem.posterior(b)[2] for b in range(B))
        gradients = (torch.autograd.grad(value, parts) for value in (found, joint))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.stage("system")
def test_float32_stays_near_float64_over_a_long_sequence():
    """Precise data, a vague start: here a difference of covariances would turn negative."""
    D, T = 2, 400
    chain = LinearGaussianTransition(
        D,
        matrix=torch.tensor([[1.0, 1.0], [0.0, 1.0]]),
        offset=torch.zeros(D),
        scale=torch.tensor([1e-3, 1e-2]),
        initial_mean=torch.zeros(D),
        initial_scale=torch.full((D,), 100.0),
    )
    emission = LinearEmission(torch.tensor([[1.0, 0.0]]), torch.zeros(1), torch.full((1, 1), 1e-4))
    x = torch.randn(T, 1, 1).mul(1e-2).cumsum(0).cumsum(0)
    exact = kalman_smoother(chain, emission, x)
    chain = chain.float()
    emission, x = LinearEmission(*(value.float() for value in emission)), x.float()
    found = kalman_smoother(chain, emission, x)
    assert found.mean.dtype == found.covariance.dtype == torch.float32
    assert (torch.linalg.eigvalsh(found.covariance) > 0).all()
    deviation = exact.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((found.mean - exact.mean).abs() < 0.1 * deviation).all()
    torch.testing.assert_close(found.covariance.double(), exact.covariance, rtol=0.02, atol=1e-7)
    assert sample_kalman_paths(chain, emission, x, (3,)).isfinite().all()


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("how", ["whole", "both", "driven"])
def test_device_and_dtype_are_those_of_the_data(device, how):
    problem = Problem(2, 3, 4, how)
    like = {"device": device, "dtype": torch.float32}
    args = (
        problem.chain.to(**like),
        LinearEmission(*(value.to(**like) for value in problem.emission)),
        problem.x.to(**like),
    )
    options = {
        name: value.to(device, like["dtype"]) if name == "inputs" else value.to(device)
        for name, value in problem.options.items()
    }
    found = [
        *kalman_filter(*args, **options),
        *kalman_smoother(*args, **options),
        sample_kalman_paths(*args, (3,), **options),
    ]
    for value in found:
        assert value.device.type == device and value.dtype == torch.float32


def test_no_sequence_at_all():
    problem = Problem(2, 1, 3)
    found = kalman_smoother(problem.chain, problem.emission, problem.x[:, :0])
    assert found.mean.shape == (3, 0, 2) and found.covariance.shape == (3, 0, 2, 2)
    assert sample_kalman_paths(problem.chain, problem.emission, problem.x[:, :0]).shape == (3, 0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(5, 3)}, r"x has shape \(5, 3\), expected \(T, B, 3\) .* x.unsqueeze"),
        ({"x": torch.zeros(0, 4, 3)}, r"expected \(T, B, 3\) with T at least 1"),
        ({"matrix": torch.zeros(2, 3)}, r"emission.matrix has shape \(2, 3\), expected \(3, 2\)"),
        ({"covariance": torch.ones(3)}, r"emission.covariance .* expected \(3, 3\); write kalman_"),
        ({"mask": torch.ones(4, 5) > 0}, r"mask has shape \(4, 5\), expected \(5, 4\)"),
        ({"mask": torch.ones(5, 4).int()}, r"mask has dtype torch.int32, expected bool"),
        ({"lengths": torch.ones(5)}, r"lengths has shape \(5,\), expected \(4,\)"),
    ],
)
def test_refuses(change, message):
    problem = Problem(2, 3, 5)
    options = {k: change.pop(k) for k in ("mask", "lengths") if k in change}
    x = change.pop("x", problem.x)
    with pytest.raises(ValueError, match=message):
        kalman_filter(problem.chain, problem.emission._replace(**change), x, **options)
