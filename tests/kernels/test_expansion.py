"""The compiled steps of a sweep that asks for its emission give the draws of those in torch."""

import math

import pytest
import torch

from pyro_ssl import kernels
from pyro_ssl.kernels.expansion import ExpansionSteps
from pyro_ssl.kernels.particles import ancestors_of
from pyro_ssl.kernels.step import CompiledStep
from pyro_ssl.kernels.weights import weights_of_vectors
from pyro_ssl.smc import Emission, conditional_smc
from pyro_ssl.smc.compiled import compiled_stepper
from pyro_ssl.smc.compiled_expansion import CompiledExpansion, expanded_proposal
from pyro_ssl.smc.derivatives import EmissionAsks, TwistedAsks, derivatives
from pyro_ssl.smc.expanded import _concave_part
from pyro_ssl.smc.product import product
from pyro_ssl.smc.resampling import RESAMPLING
from pyro_ssl.smc.weights import normalised
from tests.kernels.test_vectors import random_twist, same, transition_of
from tests.statistics import covering_list

pytestmark = pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))

FACTORS = {
    "cell": ("lstm", "mlstm", "mlstm_output", "mlstm_norm"),
    "D": (1, 2, 3, 5, 8),
    "H": (1, 8, 16, 17),
    "T": (1, 2, 12),
    "B": (1, 3, 9),
    "num_particles": (1, 2, 7, 13),
    "law": ("counts", "outliers", "steps", "some steps", "impossible"),
    "reference": (True, False),
    "ancestor_sampling": (0, 1, 3),
    "resampling": ("systematic", "multinomial"),
    "ragged": (False, True),
    "inputs": (False, True),
    "scaled": (False, True),
    "twist": (False, True),
    "means": ("absolute", "residual", "increments"),
}
CASES = covering_list(FACTORS, lambda case: case["reference"] or case["law"] != "impossible", 100)


@pytest.fixture(autouse=True)
def single():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


def counts(x, z):
    return (x * z - z.clamp(max=20.0).exp()).sum(-1)


def outliers(x, z):
    return -3.0 * (1.0 + (x - z).square().sum(-1) + 0.5 * (z[..., 0] * z[..., -1])).abs().log()


def steps(x, z):
    """No derivative."""
    return (z.detach() > 0).float().sum(-1) * 0.3


def some_steps(x, z):
    """None below 0."""
    return counts(x, z) + z.clamp(min=0.0).sqrt().sum(-1)


def impossible(x, z):
    """Zero of some."""
    return torch.where(z[..., 0] > 1.5, -torch.inf, counts(x, z))


LAWS = {
    "counts": counts,
    "outliers": outliers,
    "steps": steps,
    "some steps": some_steps,
    "impossible": impossible,
}


class Known(EmissionAsks):
    """Answers by a function of x_t and z."""

    def __init__(self, law, x):
        self.law, self.x = law, x

    def value(self, t, z):
        return self.law(self.x[t].unsqueeze(1), z)
        yield

    def expansion(self, t, z):
        with torch.enable_grad():
            point = z.detach().clone().requires_grad_()
            return derivatives(self.law(self.x[t].unsqueeze(1), point), point)
        yield


class Answered(Emission):
    """Of a law that is known step by step, and not as a table."""

    def __init__(self, law, x, twist=None):
        self.law, self.x, self.twist, self.shape = law, x, twist, tuple(x.shape[:2])

    def proposal(self, transition, num_particles, scale, randomness):
        asks, shape = Known(self.law, self.x), (*self.shape, num_particles)
        if self.twist is not None:
            asks = TwistedAsks(asks, self.twist.function)
        given = (transition.dim, shape, transition.like, scale, randomness)
        self.made = expanded_proposal(*given, asks=asks, name="z")
        return self.made

    def times(self, twist):
        self.product = Answered(self.law, self.x, twist)
        return self.product

    def beside(self, others):
        raise NotImplementedError

    split = log_predictive = beside


def sweep_of(case, seed=0):
    torch.manual_seed(seed)
    T, B, D = case["T"], case["B"], case["D"]
    transition = transition_of(case)
    lengths = torch.randint(1, T + 1, (B,)) if case["ragged"] else None
    emission = Answered(LAWS[case["law"]], torch.randn(T, B, D).exp().round())
    arguments = {
        "reference": torch.randn(T, B, D).clamp(max=1.4) if case["reference"] else None,
        "lengths": lengths,
        "inputs": torch.randn(T, B, 3) if case["inputs"] else None,
        "transition_scale": 0.3 + torch.rand(B) if case["scaled"] else None,
        "twist": random_twist(T, B, D, lengths) if case["twist"] else None,
        **{name: case[name] for name in ("ancestor_sampling", "resampling")},
    }

    def run():
        return conditional_smc(transition, emission, case["num_particles"], seed=5, **arguments)

    return arguments, run, emission


@pytest.mark.filterwarnings("ignore:.*no finite first and second derivative")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_draws_as_torch(case):
    arguments, run, emission = sweep_of(case)
    compiled = run()
    made = (emission.product if case["twist"] else emission).made
    assert isinstance(made, CompiledExpansion)
    if case["law"] != "some steps":
        assert bool(made.blind) == (case["law"] == "steps")
    with kernels.turned_off():
        other = run()
    same(compiled, other, arguments["lengths"])


CASE = {factor: levels[1] for factor, levels in FACTORS.items()}
CASE |= {"D": 2, "T": 3, "B": 2, "law": "counts", "twist": False}


def test_threads_change_nothing(B=5000, P=10, D=2):
    torch.manual_seed(0)
    rows, noise = torch.randint(B * P, (B * P,)), torch.randn(B * P, D)
    given = torch.randn(B, P, D), torch.rand(B, P, D) + 0.3, torch.randn(B, P), torch.randn(B, P, D)
    precision, at = torch.randn(B, P, D, D), torch.randn(B, P)
    defend = torch.rand(B * P, 1) < 0.1
    weights = weights_of_vectors(transition_of(CASE | {"inputs": False})).cell
    h = torch.randn(B * P, weights.recurrent.shape[-1])

    def run(threads):
        torch.set_num_threads(threads)
        try:
            steps = ExpansionSteps(kernels.library(), (B, P, D), 0.1, None)
            steps.ahead(*given, precision + precision.mT)
            steps.settle(at)
            z = steps.draw(rows, noise, defend).clone()
            log_w = steps.weigh(rows, z, at)
            step = CompiledStep(kernels.library(), weights)(given[0].view(B * P, D), h, h)
            return (steps.mode, steps.alpha, steps.shift, z, log_w, *step)
        finally:
            torch.set_num_threads(1)

    assert all(map(torch.equal, run(1), run(3)))


def test_is_what_runs(monkeypatch):
    """Nothing is left to torch that need not be, and all that has to be."""
    steppers = []

    def stepper(given):
        steppers.append(compiled_stepper(given) is not None)

    monkeypatch.setattr("pyro_ssl.smc.sweep.compiled_stepper", stepper)
    for case, yes in [({}, True), ({"D": 8}, True), ({"inputs": True}, False)]:
        _, run, emission = sweep_of(CASE | {"inputs": False} | case)
        run()
        assert steppers.pop() == yes and isinstance(emission.made, CompiledExpansion)
    _, run, emission = sweep_of(CASE | {"D": 9})
    run()
    assert not isinstance(emission.made, CompiledExpansion)


@pytest.mark.parametrize("D", range(1, 9))
@pytest.mark.parametrize("P", [1, 5, 33])
def test_the_product_of_a_curvature_that_is_not_concave(D, P):
    torch.manual_seed(D)
    B, scale = 3, None
    mean, sigma = torch.randn(B, P, D), torch.rand(B, P, D) + 0.2
    value, linear, root = torch.randn(B, P), torch.randn(B, P, D), torch.randn(B, P, D, D)
    precision = root + root.mT
    precision[0] = root[0] @ root[0].mT
    precision[1, :, 0] = precision[1, :, :, 0] = 0.0
    compiled = ExpansionSteps(kernels.library(), (B, P, D), 0.1, scale)
    mode = compiled.ahead(mean, sigma, value, linear, precision)
    wide = [v.double() for v in (mean, sigma, linear, _concave_part(precision.double()))]
    expected = product(*wide)
    torch.testing.assert_close(mode.double(), expected.mean(), rtol=1e-3, atol=1e-4)
    alpha, shift = compiled.settle(value + 10.0)  # so that all are trusted
    away = expected.mean() - wide[0]
    square = (away.unsqueeze(-2) @ wide[3] @ away.unsqueeze(-1)).squeeze((-1, -2))
    laplace = expected.log_mass + value + 10.0 - (away * wide[2]).sum(-1) + 0.5 * square
    torch.testing.assert_close(alpha.log() + shift.unsqueeze(-1), laplace, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheme", ["systematic", "multinomial"])
@pytest.mark.parametrize("P", [1, 2, 10, 65])
def test_ancestors(scheme, P, B=400):
    torch.manual_seed(P)
    weights = torch.rand(B, P, dtype=torch.float64) * (torch.rand(B, P) < 0.7)
    weights[:, 0] += 1e-3
    u = torch.rand(B, 1 if scheme == "systematic" else P, dtype=torch.float64)
    first = torch.multinomial(weights, 1).squeeze(-1)
    for given in (None, 0, first):
        expected = RESAMPLING[scheme](weights, given, u)
        found = ancestors_of(kernels.library(), scheme == "systematic", weights, given, u)
        assert torch.equal(found, expected)


def test_weights_of_mean_one():
    log_w = torch.randn(6, 5) * 30
    log_w[1, 2], log_w[2], log_w[3, 0] = -math.inf, -math.inf, math.nan
    found = normalised(log_w)
    with kernels.turned_off():
        expected = normalised(log_w)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
