"""The compiled sweep over vectors gives the draws of the one in torch, given the same numbers.

Rounding differs, so that an ancestor within 1e-6 of the border between two particles may be either:
with the seeds below none is.
"""

import math
from contextlib import nullcontext

import pytest
import torch

from pyro_ssl import kernels
from pyro_ssl.cells import LSTMCell
from pyro_ssl.exact.kalman import LinearEmission, kalman_smoother, sample_kalman_paths
from pyro_ssl.smc import QuadraticEmission, conditional_smc
from pyro_ssl.smc.compiled import compiled_sweep
from pyro_ssl.steps import steps_within
from pyro_ssl.transitions import (
    GaussianLSTMTransition,
    GaussianMultiplicativeLSTMTransition,
    LinearGaussianTransition,
    RecurrentGaussianTransition,
)
from tests.statistics import covering_list

pytestmark = pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))

FACTORS = {
    "cell": ("lstm", "long", "mlstm", "mlstm_output", "mlstm_norm"),
    "D": (1, 2, 3, 5, 8),
    "H": (1, 8, 17, 40),
    "T": (1, 2, 25),
    "B": (1, 3, 9),
    "num_particles": (1, 2, 7, 13, 40),
    "reference": (True, False),
    "ancestor_sampling": (0, 1, 3),
    "proposal_lag": (1, 4, 30),
    "resampling": ("systematic", "multinomial"),
    "forced_move": (True, False),
    "ragged": (False, True),
    "inputs": (False, True),
    "scaled": (False, True),
    "twist": (False, True),
    "means": ("absolute", "residual", "increments", "around", "around increments"),
}
CASES = covering_list(FACTORS, lambda case: True, 120)


@pytest.fixture(autouse=True)
def single():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


def transition_of(case):
    D, H, inputs = case["D"], case["H"], 3 if case["inputs"] else 0
    around = case["means"].startswith("around")
    options = {"residual": case["means"] in ("residual", "increments"), "min_scale": 0.05}
    if around:
        options["around"] = LinearGaussianTransition(
            D,
            matrix=0.9 * torch.eye(D) + 0.1 * torch.randn(D, D),
            offset=torch.randn(D),
            scale=0.3 + torch.rand(D),
            initial_mean=torch.randn(D),
            initial_scale=0.3 + torch.rand(D),
            **({"input_size": 3, "input_matrix": torch.randn(D, 3)} if inputs else {}),
        )
    if case["means"].endswith("increments"):
        options |= {"reads": "increments", "increment_scale": 0.7}
    if case["cell"] == "lstm":
        transition = GaussianLSTMTransition(D, H, input_size=inputs, **options)
    elif case["cell"] == "long":  # of long memory, and sharp
        transition = RecurrentGaussianTransition(D, LSTMCell(D + 1 + inputs, H), **options)
        for parameter in transition.parameters():
            parameter.data.mul_(2.0)
    else:
        of = {"mlstm_output": {"squash": "output"}, "mlstm_norm": {"weight_norm": True}}
        options |= of.get(case["cell"], {})
        transition = GaussianMultiplicativeLSTMTransition(D, H, input_size=inputs, **options)
    if options["residual"]:
        transition.initial_mean.data.normal_()
        transition.log_initial_scale.data.normal_()
    return transition


def random_emission(T, B, D, rank=1):
    """A quadratic function whose Λ may be singular, and is not the same for two sequences."""
    root = torch.randn(T, B, D, rank)
    center, constant, linear = torch.randn(T, B, D), torch.randn(T, B), torch.randn(T, B, D)
    return QuadraticEmission(center, constant, linear, root @ root.mT)


def random_twist(T, B, D, lengths):
    """Another, 0 at every sequence's last step."""
    twist = random_emission(T, B, D).function
    ends = torch.full((B,), T) if lengths is None else lengths
    before = (torch.arange(T).unsqueeze(-1) < ends - 1).float()
    return QuadraticEmission(
        twist.center,
        0.3 * twist.constant * before,
        0.3 * twist.linear * before[..., None],
        0.1 * twist.precision * before[..., None, None],
    )


def sweep_of(case, seed=0):
    """Arguments of a sweep, and a function that runs it."""
    torch.manual_seed(seed)
    T, B, D = case["T"], case["B"], case["D"]
    transition = transition_of(case)
    lengths = torch.randint(1, T + 1, (B,)) if case["ragged"] else None
    emission = random_emission(T, B, D)
    arguments = {
        "reference": torch.randn(T, B, D) if case["reference"] else None,
        "lengths": lengths,
        "inputs": torch.randn(T, B, 3) if case["inputs"] else None,
        "transition_scale": 0.3 + torch.rand(B) if case["scaled"] else None,
        "twist": random_twist(T, B, D, lengths) if case["twist"] else None,
        **{n: case[n] for n in ("ancestor_sampling", "proposal_lag", "resampling", "forced_move")},
    }

    def run():
        torch.manual_seed(seed + 1)
        return conditional_smc(transition, emission, case["num_particles"], **arguments)

    return arguments, run


def same(one, other, lengths):
    T, B, P = one.ancestors.shape
    active = torch.ones(T, B, dtype=torch.bool) if lengths is None else steps_within(lengths, T)
    assert torch.equal(one.ancestors[active], other.ancestors[active])
    for a, b in ((one.path, other.path), (one.z[active], other.z[active])):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max().clamp(min=1.0)))
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood, rtol=1e-4, atol=1e-3)
    ended = slice(None) if lengths is None else (lengths == T).repeat_interleave(P)
    states = [(*sweep.state.cell, sweep.state.last) for sweep in (one, other)]
    for a, b in zip(*states, strict=True):
        torch.testing.assert_close(a[ended], b[ended], rtol=1e-4, atol=1e-4)
    sizes = (sweep.effective_size[active] for sweep in (one, other))
    torch.testing.assert_close(*sizes, rtol=1e-3, atol=1e-3)
    assert (one.weights is None) == (other.weights is None)
    if one.weights is not None:
        torch.testing.assert_close(one.weights, other.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_draws_as_torch(case):
    arguments, run = sweep_of(case)
    compiled = run()
    with kernels.turned_off():
        same(compiled, run(), arguments["lengths"])


CASE = {factor: levels[-1] for factor, levels in FACTORS.items()}
CASE |= {"cell": "long", "D": 3, "T": 30, "B": 23, "num_particles": 5, "reference": True}


@pytest.mark.parametrize("cell", FACTORS["cell"])
@pytest.mark.parametrize("means", FACTORS["means"])
def test_threads_change_no_draw(cell, means):
    arguments, run = sweep_of(CASE | {"cell": cell, "means": means})
    one = run()
    torch.set_num_threads(3)
    try:
        other = run()
    finally:
        torch.set_num_threads(1)
    same(one, other, arguments["lengths"])
    assert torch.equal(one.z, other.z)


def test_is_what_runs(monkeypatch):
    """The equalities above are no torch against torch."""
    ran = []

    def sweep(given):
        ran.append(compiled_sweep(given) is not None)

    monkeypatch.setattr("pyro_ssl.smc.sweep.compiled_sweep", sweep)

    class Mine(GaussianLSTMTransition):
        """A user's own may step in another way."""

    class MyCell(LSTMCell):
        """And so may a cell."""

    emission = random_emission(4, 2, 3)
    double = QuadraticEmission(*(part.double() for part in emission.function))
    transition = GaussianLSTMTransition(3, 4)
    conditional_smc(transition, emission, 5)
    conditional_smc(GaussianLSTMTransition(8, 4), random_emission(4, 2, 8), 5)
    for left_to_torch in [
        (Mine(3, 4), emission),
        (RecurrentGaussianTransition(3, MyCell(4, 4)), emission),
        (LinearGaussianTransition(3), emission),
        (GaussianLSTMTransition(3, 4).double(), double),
        (GaussianLSTMTransition(9, 4), random_emission(4, 2, 9)),
    ]:
        conditional_smc(*left_to_torch, 5)
    with kernels.turned_off():
        conditional_smc(transition, emission, 5)
    assert ran == [True, True] + 6 * [False]


def both(transition, emission, P, reference=None, **options):
    """The sweep compiled, and by torch, of the same numbers."""
    runs = []
    for off in (False, True):
        torch.manual_seed(1)
        with kernels.turned_off() if off else nullcontext():
            runs.append(conditional_smc(transition, emission, P, reference, **options))
    return runs


@pytest.mark.parametrize("reads", ["positions", "increments"])
@pytest.mark.parametrize("every", [0, 2])
def test_far_from_the_origin_and_sharp(reads, every):
    """At 10^4 float32 tells 10^-3 apart, which is σ: neither sweep loses more than the other."""
    torch.manual_seed(0)
    T, B, D, level, sigma = 30, 5, 2, 1e4, 1e-3
    scales = {"min_scale": sigma, "increment_scale": sigma}
    transition = GaussianLSTMTransition(D, 8, residual=True, reads=reads, **scales)
    transition.head.weight.data.mul_(sigma)
    transition.head.bias.data = torch.tensor([0.0, 0.0, -12.0, -12.0])
    transition.initial_mean.data.fill_(level)
    transition.log_initial_scale.data.fill_(math.log(sigma))
    path = level + sigma * torch.randn(T, B, D).cumsum(0)
    x, precision = path + sigma * torch.randn(T, B, D), torch.eye(D) / sigma**2
    zeros = torch.zeros(T, B, D)
    emission = QuadraticEmission(x, zeros[..., 0], zeros, precision.expand(T, B, D, D))
    one, other = both(transition, emission, 10, path, ancestor_sampling=every)
    assert not one.failed.any() and (one.ancestors != other.ancestors).double().mean() < 0.01
    away = ((one.path - x) / sigma).square().mean()
    torch.testing.assert_close(away, ((other.path - x) / sigma).square().mean(), rtol=0.02, atol=0)
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood, rtol=0, atol=0.01)


def test_failures_are_told():
    """Weights that are all zero, or NaN, are reported as torch reports them."""
    torch.manual_seed(0)
    transition, function = GaussianLSTMTransition(2, 8), random_emission(6, 3, 2).function
    constant = function.constant.clone()
    constant[3, 1] = -torch.inf
    one, other = both(transition, QuadraticEmission(*function._replace(constant=constant)), 5)
    assert one.failed.tolist() == other.failed.tolist() == [False, True, False]
    assert one.log_likelihood[3, 1] == -torch.inf
    linear = function.linear.clone()
    linear[2, 0] = torch.nan
    one, other = both(transition, QuadraticEmission(*function._replace(linear=linear)), 5)
    assert one.failed.tolist() == other.failed.tolist() == [True, False, False]
    assert one.log_likelihood[2, 0].isnan() and ((one.ancestors >= 0) & (one.ancestors < 5)).all()


@pytest.mark.parametrize(
    "name", ["head.bias", "head.weight", "cell.lstm.weight_hh_l0", "cell.lstm.weight_ih_l0"]
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_parameters_that_are_no_numbers_are_told(name, value):
    """From the second step at the latest: the first has no z_0 to read."""
    torch.manual_seed(0)
    transition = GaussianLSTMTransition(2, 8, residual=True)
    transition.get_parameter(name).data[-1] = value
    reference = torch.randn(6, 3, 2)
    one, other = both(
        transition, random_emission(6, 3, 2), 5, reference, ancestor_sampling=1, proposal_lag=2
    )
    assert torch.equal(one.failed, other.failed)
    torch.testing.assert_close(
        one.log_likelihood, other.log_likelihood, rtol=1e-4, atol=1e-4, equal_nan=True
    )


def test_strided_arguments_are_read_as_they_stand():
    torch.manual_seed(0)
    transition, function = GaussianLSTMTransition(3, 8, input_size=2), random_emission(6, 4, 3)
    strided = function.function.each(lambda part: part.transpose(0, 1).contiguous().transpose(0, 1))
    paths, inputs = torch.randn(4, 6, 3), torch.randn(4, 6, 2)
    runs = []
    for emission, path, u in (
        (function, paths.transpose(0, 1).contiguous(), inputs.transpose(0, 1).contiguous()),
        (QuadraticEmission(*strided), paths.transpose(0, 1), inputs.transpose(0, 1)),
    ):
        torch.manual_seed(1)
        runs.append(conditional_smc(transition, emission, 5, path, inputs=u))
    assert torch.equal(runs[0].z, runs[1].z)


@pytest.mark.parametrize("means", FACTORS["means"])
def test_a_sequence_draws_the_same_in_any_batch(means, B=11, T=12):
    """Alone, without the padding behind it: bit for bit."""
    case = CASE | {"means": means, "B": B, "T": T, "ancestor_sampling": 2}
    torch.manual_seed(0)
    transition, emission = transition_of(case), random_emission(T, B, 3)
    lengths, reference = torch.randint(1, T + 1, (B,)), torch.randn(T, B, 3)
    twist, inputs = random_twist(T, B, 3, lengths), torch.randn(T, B, 3)

    def sweep(index, steps):
        parts = (function.select(index).split(steps)[0] for function in (emission, twist))
        return conditional_smc(
            *(transition, next(parts), 5, reference[:steps, index]),
            twist=next(parts),
            inputs=inputs[:steps, index],
            lengths=lengths[index],
            ancestor_sampling=2,
            seed=7,
            sequences=index,
        )

    whole = sweep(torch.arange(B), T)
    for b, length in enumerate(lengths.tolist()):
        alone = sweep(torch.tensor([b]), length)
        assert torch.equal(alone.path[:, 0], whole.path[:length, b])


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("twist", [False, True])
@pytest.mark.parametrize("reads", ["positions", "increments"])
def test_marginals_stay_those_of_the_smoother(every, twist, reads, T=20, n=10_000, sweeps=3):
    """A head that does not look at h is a random walk with drift, whose smoother is known.

    Both moments of every coordinate, sweeps after exact draws: |z| < 4.5 over 8 x 80, a false alarm
    in 230 seeds.
    """
    torch.manual_seed(10 + 4 * every + 2 * twist + (reads == "increments"))
    D, E = 2, 3
    transition = GaussianLSTMTransition(D, 8, residual=True, reads=reads)
    transition.head.weight.data.zero_()
    for parameter in (transition.initial_mean, transition.log_initial_scale):
        parameter.data.normal_(std=0.5)
    C, d, r, x = torch.randn(E, D), torch.randn(E), torch.rand(E) + 0.5, 2.0 * torch.randn(T, 1, E)
    drift, raw = transition.head.bias.detach().double().chunk(2)
    walk = LinearGaussianTransition(
        D,
        matrix=torch.eye(D, dtype=torch.float64),
        offset=drift,
        scale=torch.nn.functional.softplus(raw) + float(transition.min_scale),
        initial_mean=transition.initial_mean.detach().double(),
        initial_scale=transition.log_initial_scale.detach().double().exp(),
    )
    law = LinearEmission(C.double(), d.double(), torch.diag(r.double().square()))
    exact = kalman_smoother(walk, law, x.double())
    weight = C.T / r.square()
    parts = (torch.zeros(T, 1, D), torch.zeros(T, 1), (x - d) @ weight.T, (weight @ C)[None, None])
    emission = QuadraticEmission(*(part.expand(T, n, *part.shape[2:]) for part in parts))
    guess = random_twist(T, n, D, None) if twist else None
    first = sample_kalman_paths(walk, law, x.double(), (n,)).squeeze(2).transpose(0, 1).float()
    path = first
    for _ in range(sweeps):
        path = conditional_smc(
            transition, emission, 10, path, ancestor_sampling=every, twist=guess
        ).path
    away = path.double() - exact.mean
    square = away.square() - exact.covariance.diagonal(dim1=-2, dim2=-1)
    both_moments = torch.stack([away, square])
    z = both_moments.mean(2) / (both_moments.std(2) / math.sqrt(n))
    assert z.abs().max() < 4.5
    assert (path != first).any(-1).double().mean() > 0.2
