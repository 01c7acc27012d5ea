"""The sweep over vectors: evidence, invariance and movement, against Kalman and against grids."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_ssl import ParticleFilter, ParticleGibbs, ssl_transition
from pyro_ssl.exact.kalman import (
    LinearEmission,
    kalman_filter,
    kalman_smoother,
    sample_kalman_paths,
)
from pyro_ssl.reading.emission import read_emission
from pyro_ssl.reading.program import Program
from pyro_ssl.reading.sweep_in_loop import BodyEmission
from pyro_ssl.smc import QuadraticEmission
from pyro_ssl.transitions import GaussianLSTMTransition, LinearGaussianTransition
from tests.statistics import ALPHA, by_pairs

D, E = 2, 3


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    """However short the sequences are: the laws below are those of what is recorded."""
    monkeypatch.setattr("pyro_ssl.reading.asks.WORTH", 1)


class Linear:
    """A linear-Gaussian model with B sequences of T steps, some cells of which are missing."""

    def __init__(self, T, B, seed=0, missing=0.0, ragged=False):
        torch.manual_seed(seed)
        matrix = torch.randn(D, D)
        self.transition = LinearGaussianTransition(
            D,
            matrix=0.7 * matrix / torch.linalg.eigvals(matrix).abs().max(),
            offset=torch.randn(D),
            scale=torch.rand(D) + 0.3,
            initial_mean=torch.randn(D),
            initial_scale=torch.rand(D) + 0.5,
        )
        self.C, self.d, self.r = torch.randn(E, D), torch.randn(E), torch.rand(E) + 0.3
        self.x = torch.randn(T, B, E)
        self.mask = torch.rand(T, B) >= missing
        self.lengths = torch.randint(1, T + 1, (B,)) if ragged else None

    @property
    def oracle(self):
        emission = LinearEmission(self.C, self.d, torch.diag(self.r.square()))
        return self.transition, emission, self.x

    @property
    def options(self):
        return {"mask": self.mask, "lengths": self.lengths}

    def law(self, z):
        return dist.Normal(z @ self.C.T + self.d, self.r).to_event(1)

    def model(self, repeats=1):
        """The Pyro model of ``repeats`` copies side by side."""
        x, mask = self.x.repeat(1, repeats, 1), self.mask.repeat(1, repeats)
        lengths = None if self.lengths is None else self.lengths.repeat(repeats)
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", self.transition, len(x), lengths=lengths):
                pyro.sample("x", self.law(z).mask(mask[t]), obs=x[t])


class AlmostLinear(Linear):
    """The same law of x, in a form that is not seen to be quadratic: the body runs in the sweep."""

    def law(self, z):
        return dist.StudentT(1e9, z @ self.C.T + self.d, self.r).to_event(1)


class OneDim:
    """A recurrent model on the line, T=2, with an emission that is not quadratic; its grid."""

    def __init__(self, kind, seed=0):
        torch.manual_seed(seed)
        self.kind, self.T = kind, 2
        self.transition = GaussianLSTMTransition(1, 4).requires_grad_(False).eval()
        for parameter in self.transition.parameters():
            parameter.mul_(3.0)
        self.x = torch.tensor({"count": [[3.0], [0.0]], "sensor": [[0.4], [-0.7]]}[kind])
        edges = torch.linspace(-9.0, 9.0, 601)
        self.width = float(edges[1] - edges[0])
        self.points = (edges[1:] + edges[:-1]) / 2
        first, second = torch.meshgrid(self.points, self.points, indexing="ij")
        path = torch.stack([first.flatten(), second.flatten()], -1).unsqueeze(-1)
        log_p = self.transition.log_prob(path).sum(-1)
        log_p += sum(self.law(path[:, t]).log_prob(self.x[t]) for t in range(self.T))
        self.log_joint = log_p  # (600^2,)
        self.log_evidence = float(log_p.logsumexp(0) + 2 * math.log(self.width))
        self.path = path.squeeze(-1)

    def law(self, z):
        if self.kind == "count":
            return dist.Poisson((0.5 * z[..., 0]).exp())
        return dist.Normal(torch.sin(2.0 * z[..., 0]) + 0.3 * z[..., 0], 0.4)

    def model(self, repeats=1):
        with pyro.plate("sequences", repeats):
            for t, z in ssl_transition("z", self.transition, self.T):
                pyro.sample("x", self.law(z), obs=self.x[t].expand(*t.shape, repeats))

    def draw(self, n):
        """Exact posterior draws (n, T), but for the width of a cell, within which they are even."""
        cell = torch.multinomial(self.log_joint.softmax(0), n, replacement=True)
        return self.path[cell] + self.width * (torch.rand(n, self.T) - 0.5)


#: one grid for all tests of a model
on_the_line = functools.lru_cache(maxsize=4)(OneDim)


# ------------------------------------------------------------------- reading the user's emission


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_emission_is_read_as_a_quadratic_function(dtype):
    case = Linear(4, 3, missing=0.3)
    for name in ("C", "d", "r", "x"):
        setattr(case, name, getattr(case, name).to(dtype))
    case.x += 50.0  # far from the points at which the body is looked at
    case.transition.to(dtype)
    run = Program(case.model).run()
    emission = read_emission(run)
    assert isinstance(emission, QuadraticEmission)
    weight = case.C.T / case.r.square()
    expected = case.mask[..., None, None] * (weight @ case.C)
    atol = 1e-8 if dtype == torch.float64 else 1e-2
    torch.testing.assert_close(emission.function.precision, expected, atol=atol, rtol=1e-4)
    z = emission.function.center + torch.randn(4, 3, D, dtype=dtype)
    exact = torch.where(case.mask, case.law(z).log_prob(case.x), 0.0)
    rtol = 1e-8 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(emission.function.value(z), exact, rtol=rtol, atol=rtol)


def test_a_far_emission_is_read_about_its_top_in_float32():
    """Thousands of noises off, float32 tells nothing of the top from where it looks first."""
    transition = LinearGaussianTransition(D).float()
    x = torch.tensor([[[1000.0, -300.0]]])

    def model():
        with pyro.plate("sequences", 1):
            for t, z in ssl_transition("z", transition, 1):
                pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=x[t].float())

    run = Program(model).run()
    emission = read_emission(run)
    z = (x + 0.1 * torch.randn(20, 1, 1, D)).float()
    exact = dist.Normal(z.double(), 0.1).to_event(1).log_prob(x)
    torch.testing.assert_close(emission.function.value(z).double(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype, level", [(torch.float64, 1e3), (torch.float32, 30.0)])
def test_a_far_emission_of_one_coordinate_is_read_as_quadratic(dtype, level):
    """Λ has a zero eigenvalue, and rounding goes with the square of the distance."""
    transition = LinearGaussianTransition(D).to(dtype)
    x = (level * torch.randn(5, 3)).to(dtype)

    def model():
        with pyro.plate("sequences", 3):
            for t, z in ssl_transition("z", transition, 5):
                pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x[t])

    assert isinstance(read_emission(Program(model).run()), QuadraticEmission)


@pytest.mark.stage("system")
@pytest.mark.parametrize("kind", ["count", "sensor"])
def test_any_other_is_not(kind):
    run = Program(OneDim(kind).model).run()
    assert isinstance(read_emission(run), BodyEmission)


# ----------------------------------------------------------------------------------- the evidence


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("make, seed, P", by_pairs((Linear, AlmostLinear), range(2), (1, 3, 10)))
def test_evidence_is_unbiased_and_kalmans(make, seed, P, n=5_000):
    """|z| < 4.5 for 12 means of 5,000: a false alarm once in 12,000 runs."""
    case = make(4, 2, seed, missing=0.2, ragged=seed == 1)
    exact = kalman_filter(*case.oracle, **case.options).log_likelihood.sum(0)
    log_z = ParticleFilter(case.model, P).log_evidence(n).reshape(n, 2)
    ratio = (log_z - exact).exp()
    error = ratio.std(0) / math.sqrt(n)
    assert ((ratio.mean(0) - 1.0).abs() < 4.5 * error + 1e-9).all()


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("kind", ["count", "sensor"])
@pytest.mark.parametrize("P", [2, 10])
def test_evidence_of_other_emissions(kind, P, n=20_000):
    """|z| < 4.5 for 4 means of 20,000: a false alarm once in 36,000 runs."""
    case = on_the_line(kind, 0)
    ratio = (ParticleFilter(case.model, P).log_evidence(n) - case.log_evidence).exp()
    assert (ratio.mean() - 1.0).abs() < 4.5 * ratio.std() / math.sqrt(n) + 1e-3  # the grid's own


# --------------------------------------------------------------------------------- the invariance


def p_values(before, after):
    """Two-sample KS of every coordinate of paths (n, ...), and of its square."""
    for i in range(before[0].numel()):
        for power in (1, 2):
            a, b = (v.flatten(1)[:, i].pow(power).numpy() for v in (before, after))
            yield stats.ks_2samp(a, b).pvalue


@pytest.mark.stage("statistical")
@pytest.mark.parametrize(
    "make, P, ancestor_sampling", by_pairs((Linear, AlmostLinear), (2, 3, 10), (0, 1))
)
def test_one_sweep_keeps_the_exact_law(make, P, ancestor_sampling, n=10_000):
    """From Kalman draws to Kalman draws; each of 6 x 16 p-values above ALPHA."""
    case = make(4, 1, seed=P)
    draws = sample_kalman_paths(*case.oracle, (2 * n,)).squeeze(2)  # (2n, T, D)
    sampler = ParticleGibbs(case.model, P, ancestor_sampling=ancestor_sampling)
    after = sampler.sweep(draws[:n], n)
    assert min(p_values(draws[n:], after)) > ALPHA
    assert (after != draws[:n]).any(-1).double().mean() > 0.2


@pytest.mark.stage("statistical")
@pytest.mark.parametrize(
    "kind, P, ancestor_sampling", by_pairs(("count", "sensor"), (2, 3, 10), (0, 1))
)
def test_one_sweep_keeps_the_law_on_the_grid(kind, P, ancestor_sampling, seed=None, n=10_000):
    """Weights differ from particle to particle here; each of 6 x 4 p-values above ALPHA."""
    case = on_the_line(kind, P if seed is None else seed)
    draws = case.draw(2 * n).unsqueeze(-1)
    sampler = ParticleGibbs(case.model, P, ancestor_sampling=ancestor_sampling)
    after = sampler.sweep(draws[:n], n)
    assert min(p_values(draws[n:], after)) > ALPHA
    assert (after != draws[:n]).any(-1).double().mean() > 0.05


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("make, sweeps", [(Linear, 30), (AlmostLinear, 24)])
def test_marginals_are_those_of_the_smoother(make, sweeps, T=50, chains=128):
    """Both moments of every coordinate: |z| < 4.5 over 2 x 200, a false alarm in 370 seeds.

    The chains have unconditional starts, far from each other; their means are independent.
    """
    case = make(T, 1, missing=0.1)
    found = kalman_smoother(*case.oracle, **case.options)
    sampler, path, sums = ParticleGibbs(case.model, 10), None, 0.0
    for i in range(sweeps):
        path = sampler.sweep(path, chains)
        if i >= sweeps // 3:
            away = path - found.mean[:, 0]
            square = away.square() - found.covariance[:, 0].diagonal(dim1=-2, dim2=-1)
            sums = sums + torch.stack([away, square])
    z = sums.mean(1) / (sums.std(1) / math.sqrt(chains))
    assert z.abs().max() < 4.5


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("make, sweeps", [(Linear, 60), (AlmostLinear, 60)])
def test_marginals_of_a_long_sequence_are_those_of_the_smoother(make, sweeps):
    """|z| < 4.5 over 2 x 400: a false alarm in 180 seeds."""
    test_marginals_are_those_of_the_smoother(make, sweeps, T=100, chains=256)


# -------------------------------------------------------------------------------- other edges


def test_an_emission_without_derivatives_is_told_once():
    transition, x = LinearGaussianTransition(1), torch.randint(2, (5, 3)).double()

    def model():
        with pyro.plate("sequences", 3):
            for t, z in ssl_transition("z", transition, 5):
                above = (z[..., 0] > 0).to(z.dtype)
                pyro.sample("x", dist.Bernoulli(0.1 + 0.8 * above), obs=x[t])

    with pytest.warns(RuntimeWarning, match="there the transition itself proposes") as seen:
        path = ParticleGibbs(model, 5).sweep(None)
    assert len(seen) == 1 and path.shape == (3, 5, 1)


def test_one_particle_returns_the_reference():
    case = AlmostLinear(5, 2)
    reference = torch.randn(2, 5, D)
    assert torch.equal(ParticleGibbs(case.model, 1).sweep(reference), reference)


def test_a_reference_of_the_wrong_shape_is_told():
    case = Linear(5, 2)
    with pytest.raises(ValueError, match=r"shape \(2, 5\), expected finite numbers \(2, 5, 2\)"):
        ParticleGibbs(case.model, 3).sweep(torch.zeros(2, 5))
