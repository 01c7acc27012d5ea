"""The product: two kernels of the same figures, and the faster one is taken."""

import pytest
import torch

from pyro_ssl.cells import linear_add as module
from pyro_ssl.cells.linear_add import linear_add

needs_onednn = pytest.mark.skipif(
    module._ONEDNN_LINEAR is None, reason="torch has no such operator here"
)


@pytest.fixture(autouse=True)
def _nothing_measured(monkeypatch):
    monkeypatch.setattr(module, "ONEDNN_WINS", {})


@pytest.fixture
def timed(monkeypatch):
    """A clock by which one kernel is the faster, and the calls that it timed."""
    calls = []

    def set_winner(winner):
        def seconds(kernel, *operands):
            calls.append((kernel, operands))
            return 1.0 if kernel is winner else 2.0

        monkeypatch.setattr(module, "_seconds", seconds)
        return calls

    return set_winner


def operands(form, N=7, dtype=torch.float32):
    x, weight = torch.randn(N, 5, dtype=dtype), torch.randn(6, 5, dtype=dtype)
    rows = torch.randn(N, 9, dtype=dtype)
    addends = {"none": None, "bias": torch.randn(6, dtype=dtype), "rows": rows[:, :6].contiguous()}
    return x, weight, (addends | {"rows apart": rows[:, 3:]})[form]


FORMS = ("none", "bias", "rows", "rows apart")


@needs_onednn
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("winner", ["_by_onednn", "_by_addmm"])
def test_both_kernels_give_the_same_figures(form, winner, timed):
    timed(getattr(module, winner))
    x, weight, addend = operands(form)
    product = x.double() @ weight.double().T
    expected = product if addend is None else product + addend.double()
    torch.testing.assert_close(linear_add(x, weight, addend).double(), expected, rtol=0, atol=1e-5)


@needs_onednn
def test_the_clock_decides_once_for_each_size(timed, monkeypatch):
    calls = timed(module._by_onednn)
    assert module._onednn_wins(*operands("bias")) and module._onednn_wins(*operands("rows"))
    assert len(calls) == 2 * module.REPEATS
    timed(module._by_addmm)
    assert module._onednn_wins(*operands("bias"))
    assert not module._onednn_wins(*operands("bias", N=700))
    assert len(calls) == 4 * module.REPEATS


@needs_onednn
def test_a_measurement_is_cheap_and_leaves_no_trace(timed):
    calls, N = timed(module._by_onednn), module.MOST_MEASURED // 10
    x, weight, addend = operands("rows", N)
    kept, generator = addend.clone(), torch.get_rng_state()
    assert module._onednn_wins(x, weight, addend)
    assert all(x.shape[0] * weight.numel() <= module.MOST_MEASURED for _, (x, weight, _) in calls)
    assert all(len(addend) == len(x) for _, (x, _, addend) in calls)
    assert addend.equal(kept) and torch.get_rng_state().equal(generator)
    assert module._onednn_wins(*operands("rows", 4 * N)) and len(calls) == 2 * module.REPEATS


@needs_onednn
def test_with_a_real_clock():
    assert module._onednn_wins(*operands("bias")) in (True, False)
    assert len(module.ONEDNN_WINS) == 1


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_measured_in_float64_or_where_there_are_no_rows(form):
    x, weight, addend = operands(form, dtype=torch.float64)
    expected = x @ weight.T if addend is None else x @ weight.T + addend
    assert torch.allclose(linear_add(x, weight, addend), expected, rtol=0, atol=1e-14)
    assert linear_add(*operands(form, N=0)).shape == (0, 6)
    assert not module.ONEDNN_WINS
