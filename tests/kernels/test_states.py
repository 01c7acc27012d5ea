"""The compiled sweep gives the draws of the one in torch, given the same random numbers.

Rounding differs, so that a draw within 1e-7 of the border between two states may fall on either
side: with the seeds below none does.
"""

import pytest
import torch

from pyro_ssl import LSTMTransition, kernels
from pyro_ssl.cells import LSTMCell
from pyro_ssl.smc import TableEmission, conditional_smc
from pyro_ssl.smc.compiled import compiled_sweep
from pyro_ssl.steps import steps_within
from pyro_ssl.transitions import MultiplicativeLSTMTransition, RecurrentTransition
from tests.smc.test_invariance import CASES, name
from tests.statistics import ALPHA, covering_list, one_sweep_p_value, random_problem

pytestmark = pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))

FACTORS = {
    "cell": ("lstm", "long", "mlstm", "mlstm_output", "mlstm_norm"),
    "K": (1, 2, 5, 33),
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
}
PAIRS = covering_list(FACTORS, lambda case: True, 120)


@pytest.fixture(autouse=True)
def single():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


def transition_of(case):
    K, H, inputs = case["K"], case["H"], 3 if case["inputs"] else 0
    if case["cell"] == "lstm":
        return LSTMTransition(K, H, input_size=inputs)
    if case["cell"] == "long":  # of long memory, and sharp
        transition = RecurrentTransition(K, LSTMCell(K + 1 + inputs, H))
        for parameter in transition.parameters():
            parameter.data.mul_(3.0)
        return transition
    options = {"mlstm_output": {"squash": "output"}, "mlstm_norm": {"weight_norm": True}}
    return MultiplicativeLSTMTransition(K, H, input_size=inputs, **options.get(case["cell"], {}))


def sweep_of(case, seed=0):
    """Arguments of a sweep, and a function that runs it."""
    torch.manual_seed(seed)
    T, B, K = case["T"], case["B"], case["K"]
    transition = transition_of(case)
    lengths = torch.randint(1, T + 1, (B,)) if case["ragged"] else None
    table, log_twist = 2.0 * torch.randn(T, B, K), torch.randn(T, B, K)
    last = (torch.full((B,), T) if lengths is None else lengths) - 1
    steps = torch.arange(T).unsqueeze(-1)
    log_twist = torch.where((steps >= last).unsqueeze(-1), 0.0, log_twist)
    arguments = {
        "reference": torch.randint(K, (T, B)) if case["reference"] else None,
        "lengths": lengths,
        "inputs": torch.randn(T, B, 3) if case["inputs"] else None,
        "transition_scale": 3.0 * torch.rand(B) if case["scaled"] else None,
        "twist": TableEmission(log_twist) if case["twist"] else None,
        **{n: case[n] for n in ("ancestor_sampling", "proposal_lag", "resampling", "forced_move")},
    }

    def run():
        torch.manual_seed(seed + 1)
        return conditional_smc(transition, TableEmission(table), case["num_particles"], **arguments)

    return arguments, run


def same(one, other, lengths, tolerance=1e-5):
    T, B, P = one.z.shape
    active = torch.ones(T, B, dtype=torch.bool) if lengths is None else steps_within(lengths, T)
    assert torch.equal(one.path, other.path)
    for name_of in ("z", "ancestors"):
        assert torch.equal(getattr(one, name_of)[active], getattr(other, name_of)[active])
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood, rtol=0, atol=tolerance)
    ended = slice(None) if lengths is None else (lengths == T).repeat_interleave(P)
    for a, b in zip(one.state, other.state, strict=True):
        torch.testing.assert_close(a[ended], b[ended], rtol=tolerance, atol=tolerance)
    sizes = (sweep.effective_size[active] for sweep in (one, other))
    torch.testing.assert_close(*sizes, rtol=10 * tolerance, atol=tolerance)
    assert (one.weights is None) == (other.weights is None)
    if one.weights is not None:
        torch.testing.assert_close(one.weights, other.weights, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", PAIRS, ids=str)
def test_same_draws_as_torch(case):
    arguments, run = sweep_of(case)
    compiled = run()
    with kernels.turned_off():
        same(compiled, run(), arguments["lengths"])


CASE = {factor: levels[-1] for factor, levels in FACTORS.items()}
CASE |= {"cell": "long", "T": 30, "B": 23, "num_particles": 5, "reference": True}


@pytest.mark.parametrize("cell", FACTORS["cell"])
def test_threads_change_no_draw(cell):
    arguments, run = sweep_of(CASE | {"cell": cell})
    one = run()
    torch.set_num_threads(3)
    try:
        same(one, run(), arguments["lengths"])
    finally:
        torch.set_num_threads(1)


def test_is_what_runs(monkeypatch):
    """The equalities above are no torch against torch."""
    ran = []

    def sweep(given):
        ran.append(compiled_sweep(given) is not None)

    monkeypatch.setattr("pyro_ssl.smc.sweep.compiled_sweep", sweep)

    class Mine(LSTMTransition):
        """A user's own may step in another way."""

    emission, transition = TableEmission(torch.randn(4, 2, 3)), LSTMTransition(3, 4)
    conditional_smc(transition, emission, 5)
    conditional_smc(Mine(3, 4), emission, 5)
    conditional_smc(LSTMTransition(3, 4).double(), TableEmission(emission.table.double()), 5)
    with kernels.turned_off():
        conditional_smc(transition, emission, 5)
    assert ran == [True, False, False, False]


@pytest.mark.parametrize("spread", [60.0, 200.0, 1e4])
def test_prior_and_emission_that_hardly_overlap(spread):
    """Products that underflow are made in logarithms: draws are torch's, evidence is finite."""
    torch.manual_seed(0)
    transition, table = LSTMTransition(6, 8), torch.zeros(12, 3, 6)
    transition.head.bias.data = torch.tensor([spread, 0.0, 0.0, 0.0, -spread, -spread / 2])
    table[..., 0] = -2.0 * spread
    runs = []
    for switch in (True, False):
        torch.manual_seed(1)
        if switch:
            runs.append(conditional_smc(transition, TableEmission(table), 5))
        else:
            with kernels.turned_off():
                runs.append(conditional_smc(transition, TableEmission(table), 5))
    assert torch.equal(runs[0].path, runs[1].path)
    torch.testing.assert_close(runs[0].log_likelihood, runs[1].log_likelihood, rtol=1e-5, atol=1e-4)


def test_states_that_cannot_be_are_never_drawn():
    torch.manual_seed(0)
    table = torch.randn(30, 5, 20)
    table[torch.rand(30, 5, 20) < 0.8] = -torch.inf
    table[..., 3] = 0.0
    sweep = conditional_smc(LSTMTransition(20, 8), TableEmission(table), 10)
    assert table.gather(-1, sweep.z.flatten(1).view(30, 5, 10)).isfinite().all()
    assert not sweep.failed.any()


def test_failures_are_told():
    """Weights that are all zero, or NaN, are reported as torch reports them, and draw nothing."""
    torch.manual_seed(0)
    table = torch.zeros(6, 3, 4)
    table[3, 1] = -torch.inf
    sweep = conditional_smc(LSTMTransition(4, 8), TableEmission(table), 5)
    assert sweep.failed.tolist() == [False, True, False]
    transition = LSTMTransition(4, 8)
    transition.head.bias.data[2] = torch.nan
    sweep = conditional_smc(transition, TableEmission(torch.zeros(6, 3, 4)), 5)
    assert sweep.failed.all() and ((sweep.z >= 0) & (sweep.z < 4)).all()
    transition = LSTMTransition(4, 8)
    transition.cell.lstm.weight_hh_l0.data[0] = torch.nan
    assert conditional_smc(transition, TableEmission(torch.zeros(6, 3, 4)), 5).failed.all()


def test_strided_arguments_are_read_as_they_stand():
    torch.manual_seed(0)
    transition, table = LSTMTransition(4, 8), torch.randn(4, 6, 3).permute(1, 2, 0)
    paths = torch.randint(4, (3, 6))
    runs = []
    for given in (table, table.contiguous()):
        torch.manual_seed(1)
        runs.append(conditional_smc(transition, TableEmission(given), 5, paths.T))
    assert torch.equal(runs[0].z, runs[1].z)


EXACT = [case for case in CASES if case["kind"] in ("lstm", "mlstm")]


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("case", EXACT, ids=name)
def test_invariance(case):
    """As ``tests/smc/test_invariance.py``, compiled. Each of about 50 p-values above ALPHA."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(torch.initial_seed() + 1000 * EXACT.index(case))
    sharpness, concentration = case["model"]
    data = {key: case[key] for key in ("kind", "K", "T", "ragged", "inputs", "scaled", "twist")}
    settings = {key: case[key] for key in case if key not in data and key != "model"}
    problem = random_problem(sharpness=sharpness, concentration=concentration, **data)
    posterior = problem.log_joint().softmax(-1)
    tensors = (value.float() if torch.is_tensor(value) else value for value in problem[1:2])
    table, lengths = next(tensors), problem.lengths
    rest = (None if value is None else value.float() for value in problem[3:])
    narrow = type(problem)(problem.transition.float(), table, lengths, *rest)
    assert one_sweep_p_value(narrow, 60_000, posterior=posterior, **settings) > ALPHA
