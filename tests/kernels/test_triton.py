"""The kernels for GPUs give torch's draws: in Triton's interpreter on a CPU, and on a GPU.

Where there is no GPU, ``tests/conftest.py`` turns the interpreter on before Triton is imported, and
the dispatch is told that the CPU is a GPU. On one, each compiled variant takes seconds to make, so
that fewer are tested.
"""

import sys
import warnings

import pyro
import pytest
import torch

from pyro_ssl import LSTMTransition, kernels
from pyro_ssl.kernels import loading
from pyro_ssl.smc import MarkovSurrogate, TableEmission, conditional_smc, filter_smc
from pyro_ssl.smc.compiled import compiled_sweep, compiled_trace_back
from pyro_ssl.smc.randomness import Randomness
from pyro_ssl.smc.sweep import _trace_back
from tests.kernels.test_states import FACTORS as OF_STATES
from tests.kernels.test_states import same, sweep_of
from tests.statistics import covering_list

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def triton_runs(monkeypatch):
    """Sweeps of ``DEVICE`` in float32 are Triton's."""
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(DEVICE if ON_GPU else None)
    monkeypatch.delenv("PYRO_SSL_KERNELS", raising=False)
    monkeypatch.setattr(loading, "GPU", DEVICE.type)
    loading._load_triton.cache_clear()
    if not kernels.available(DEVICE):
        pytest.skip(str(kernels.available(DEVICE)))
    yield
    loading._load_triton.cache_clear()
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float64)


FACTORS = OF_STATES | {
    "K": (1, 2, 5, 16, 70),
    "H": (1, 7, 16, 40, 64),
    "T": (1, 2, 6),
    "B": (1, 2, 3),
    "num_particles": (1, 2, 5, 16, 17),
    "proposal_lag": (1, 2, 30),
}
PAIRS = covering_list(FACTORS, lambda case: True, 40)
SIMPLE = {factor: levels[0] for factor, levels in FACTORS.items()}
SIMPLE |= {"cell": "long", "K": 50, "H": 64, "T": 25, "B": 9, "num_particles": 10}
ON_CHIP = [
    SIMPLE,
    SIMPLE | {"reference": False, "twist": True, "ragged": True},
    SIMPLE | {"ancestor_sampling": 3, "proposal_lag": 2, "scaled": True, "ragged": True},
    SIMPLE | {"ancestor_sampling": 5, "twist": True, "inputs": True, "cell": "lstm"},
    SIMPLE | {"resampling": "multinomial", "num_particles": 17, "K": 5, "H": 7},
    SIMPLE | {"num_particles": 1, "K": 1, "H": 1, "T": 1, "B": 1},
    SIMPLE | {"cell": "mlstm", "twist": True},
    SIMPLE | {"cell": "mlstm_output", "ancestor_sampling": 3, "reference": True},
]


@pytest.mark.stage("system")
@pytest.mark.parametrize("case", PAIRS, ids=str)
@pytest.mark.skipif(ON_GPU, reason="each would be compiled: see test_same_draws_on_cuda")
def test_same_draws_as_torch(case):
    arguments, run = sweep_of(case)
    found = run()
    with kernels.turned_off():
        same(found, run(), arguments["lengths"])


@pytest.mark.cuda
@pytest.mark.parametrize("case", ON_CHIP, ids=str)
def test_same_draws_on_cuda(case, monkeypatch):
    # By default cuDNN rounds what torch replays for ancestor sampling to ten bits.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    arguments, run = sweep_of(case)
    found = run()
    with kernels.turned_off():
        same(found, run(), arguments["lengths"], tolerance=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 1), (2, 4, 7), (5, 2, 300)])
def test_uniforms_are_those_of_torch_bit_for_bit(dtype, seed, shape):
    T, B, size = shape
    sequences = torch.tensor([0, 2**31 + 5, 2**40 + 7, 3])[:B]
    randomness = Randomness(seed, sequences)
    for purpose in (0, 4):
        found = randomness.uniform(purpose, T, size, dtype)
        with kernels.turned_off():
            assert torch.equal(found, randomness.uniform(purpose, T, size, dtype))
    assert found.shape == shape and found.dtype == dtype and found.device.type == DEVICE.type


@pytest.mark.parametrize("T, B, P", [(1, 1, 1), (7, 3, 5), (4, 70, 2)])
def test_lineages_are_those_of_torch(T, B, P):
    ancestors, slot = torch.randint(P, (T, B, P)), torch.randint(P, (B,))
    found = compiled_trace_back(ancestors, slot)
    z = torch.arange(P).expand(T, B, P)
    with kernels.turned_off():
        assert torch.equal(found, _trace_back(z, ancestors, slot))


@pytest.mark.parametrize("K", [1, 3, 16, 50, 128, 129])
@pytest.mark.parametrize("T, B", [(1, 1), (2, 9), (5, 17)])
@pytest.mark.parametrize("ragged", [False, True])
def test_messages_are_those_of_torch(K, T, B, ragged):
    torch.manual_seed(0)
    surrogate = MarkovSurrogate(torch.rand(K, K).softmax(-1))
    table = 3.0 * torch.randn(T, B, K)
    table[T // 2, 0] = -torch.inf  # explained by no state
    lengths = torch.randint(1, T + 1, (B,)) if ragged else None
    found = surrogate.twist(TableEmission(table), lengths).table
    with kernels.turned_off():
        expected = surrogate.twist(TableEmission(table), lengths).table
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_is_what_runs(monkeypatch):
    """The equalities above are no torch against torch; what Triton does not do, torch does."""
    ran = []

    def sweep(given):
        ran.append(compiled_sweep(given) is not None)

    monkeypatch.setattr("pyro_ssl.smc.sweep.compiled_sweep", sweep)
    monkeypatch.setattr("pyro_ssl.smc.compiled.sweep_states", None)  # that of the CPU

    class Mine(LSTMTransition):
        """A user's own may step in another way."""

    emission, transition = TableEmission(torch.randn(2, 2, 3)), LSTMTransition(3, 4)
    conditional_smc(transition, emission, 5)
    conditional_smc(Mine(3, 4), emission, 5)
    conditional_smc(LSTMTransition(3, 4).double(), TableEmission(emission.table.double()), 5)
    conditional_smc(transition, emission, 65)
    with kernels.turned_off():
        conditional_smc(transition, emission, 5)
    assert ran == [True, False, False, False, False]


def test_too_little_memory_on_the_chip_leaves_it_to_torch(monkeypatch):
    from triton.runtime.errors import OutOfResources

    def refuse(*args, **options):
        raise OutOfResources(300_000, 200_000, "shared memory")

    emission, transition = TableEmission(torch.randn(2, 2, 3)), LSTMTransition(3, 4)
    with kernels.turned_off():
        expected = conditional_smc(transition, emission, 5, seed=1)
    monkeypatch.setattr(sys.modules["pyro_ssl.kernels.gpu.states"], "launch", refuse)
    found = conditional_smc(transition, emission, 5, seed=1)
    same(found, expected, None)


@pytest.mark.stage("system")
@pytest.mark.parametrize("spread", [60.0, 200.0, 1e4])
def test_prior_and_emission_that_hardly_overlap(spread):
    torch.manual_seed(0)
    transition, table = LSTMTransition(6, 8), torch.zeros(6, 2, 6)
    transition.head.bias.data = torch.tensor([spread, 0.0, 0.0, 0.0, -spread, -spread / 2])
    table[..., 0] = -2.0 * spread
    found = conditional_smc(transition, TableEmission(table), 5, seed=1)
    with kernels.turned_off():
        expected = conditional_smc(transition, TableEmission(table), 5, seed=1)
    assert torch.equal(found.path, expected.path)
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-5, atol=1e-4)


@pytest.mark.stage("system")
def test_states_that_cannot_be_are_never_drawn():
    torch.manual_seed(0)
    table = torch.randn(8, 5, 20)
    table[torch.rand(8, 5, 20) < 0.8] = -torch.inf
    table[..., 3] = 0.0
    sweep = conditional_smc(LSTMTransition(20, 8), TableEmission(table), 10)
    assert table.gather(-1, sweep.z.flatten(1).view(8, 5, 10)).isfinite().all()
    assert not sweep.failed.any()


@pytest.mark.stage("system")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_failures_are_told():
    """Weights that are all zero, or NaN, are reported as torch reports them, and draw nothing."""
    torch.manual_seed(0)
    table = torch.zeros(4, 3, 4)
    table[2, 1] = -torch.inf
    sweep = conditional_smc(LSTMTransition(4, 8), TableEmission(table), 5)
    assert sweep.failed.tolist() == [False, True, False]
    transition = LSTMTransition(4, 8)
    transition.head.bias.data[2] = torch.nan
    sweep = conditional_smc(transition, TableEmission(torch.zeros(4, 3, 4)), 5)
    assert sweep.failed.all() and ((sweep.z >= 0) & (sweep.z < 4)).all()


@pytest.mark.stage("system")
def test_strided_arguments_are_read_as_they_stand():
    torch.manual_seed(0)
    transition, table = LSTMTransition(4, 8), torch.randn(4, 6, 3).permute(1, 2, 0)
    paths = torch.randint(4, (3, 6))
    strided = conditional_smc(transition, TableEmission(table), 5, paths.T, seed=1)
    plain = conditional_smc(transition, TableEmission(table.contiguous()), 5, paths.T, seed=1)
    assert torch.equal(strided.z, plain.z)


def test_says_why_not(monkeypatch):
    monkeypatch.setenv("PYRO_SSL_KERNELS", "0")
    assert not kernels.available(DEVICE) and kernels.on_gpu(DEVICE) is None
    monkeypatch.delenv("PYRO_SSL_KERNELS")
    assert "Triton" in str(kernels.available(DEVICE)) and kernels.on_gpu(DEVICE) is not None
    for triton, why in ((None, "pip install triton"), (_Version("3.1.0"), "older than 3.6")):
        loading._load_triton.cache_clear()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "triton", triton)
            assert not kernels.available(DEVICE) and why in str(kernels.available(DEVICE))
    loading._load_triton.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr("pyro_ssl.kernels.gpu.uniforms", lambda *args: 1 / 0)
        assert "does not run here: division by zero" in str(kernels.available(DEVICE))
    loading._load_triton.cache_clear()


class _Version:
    def __init__(self, version):
        self.__version__ = version


@pytest.mark.cuda
@pytest.mark.parametrize("ancestor_sampling", [0, 5])
def test_nothing_waits_for_the_gpu(ancestor_sampling):
    """Where no values are checked: to read a check's verdict the host has to wait."""
    pyro.enable_validation(False)
    torch.manual_seed(0)
    T, B, K = 30, 4, 5
    transition, table = LSTMTransition(K, 8), torch.randn(T, B, K)
    surrogate = MarkovSurrogate(torch.rand(K, K).softmax(-1))
    path, lengths = torch.randint(K, (T, B)), torch.tensor([30, 1, 7, 30])

    def run():
        emission = TableEmission(table)
        twist = surrogate.twist(emission, lengths)
        settings = {"lengths": lengths, "twist": twist, "ancestor_sampling": ancestor_sampling}
        conditional_smc(transition, emission, 5, path, **settings)

    run()
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [f"{w.filename}:{w.lineno}" for w in met if "called a synchronizing" in str(w.message)]
    assert not waits


@pytest.mark.stage("system")
@pytest.mark.parametrize("twisted", [False, True])
def test_a_sweep_goes_on_from_where_particles_stand(twisted):
    """In two parts it has the draws that it has in one."""
    transition, P = LSTMTransition(3, 4).to(DEVICE), 5
    emission, twist = (TableEmission(torch.randn(6, 2, 3, device=DEVICE)) for _ in range(2))
    parts = zip(emission.split(2), twist.split(2) if twisted else (None, None), strict=True)
    whole = conditional_smc(transition, emission, P, seed=1, twist=twist if twisted else None)
    standing, found, first = None, [], 0
    for part, beta in parts:
        how = {"seed": 1, "twist": beta, "start": standing, "first_step": first}
        filtered = filter_smc(transition, part, P, **how)
        found.append(filtered.log_likelihood)
        standing, first = filtered.standing, 2
    assert torch.equal(torch.cat(found), whole.log_likelihood)
    assert torch.equal(standing.z, whole.z[-1])
