"""Cells apart from heads: the LSTM is torch's own, and all views of a cell agree."""

import pytest
import torch

from pyro_ssl.cells import LSTMCell, LSTMState, MultiplicativeLSTMCell, RecurrentCell
from pyro_ssl.cells.lstm import _coarse
from pyro_ssl.transitions import RecurrentTransition

T, N, D, H = 5, 4, 3, 6


class Elman(RecurrentCell):
    """A cell with the required methods alone."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.rnn = torch.nn.RNN(input_size, hidden_size)

    def initial_state(self, batch_shape):
        zeros = self.rnn.bias_ih_l0.new_zeros((*batch_shape, self.hidden_size))
        return LSTMState(zeros, zeros)

    def input_map(self):
        return self.rnn.weight_ih_l0, self.rnn.bias_ih_l0 + self.rnn.bias_hh_l0

    def advance(self, projected, state):
        h = torch.tanh(projected + state.h @ self.rnn.weight_hh_l0.T)
        return LSTMState(h, state.c)


CELLS = {
    "base": Elman,
    "lstm": LSTMCell,
    "mlstm": MultiplicativeLSTMCell,
    "mlstm, output": lambda *sizes: MultiplicativeLSTMCell(*sizes, squash="output"),
    "mlstm, weight norm": lambda *sizes: MultiplicativeLSTMCell(*sizes, weight_norm=True),
}


@pytest.fixture(params=CELLS)
def cell(request):
    cell = CELLS[request.param](D, H)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    return cell


def assert_close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


def by_steps(cell, x, state):
    out = []
    for x_t in x:
        state = cell.advance(cell.project(x_t), state)
        out.append(state.h)
    return torch.stack(out), state


def test_lstm_cell_is_torchs_lstm():
    cell, reference = LSTMCell(D, H), torch.nn.LSTM(D, H)
    cell.lstm.load_state_dict(reference.state_dict())
    x, h0, c0 = torch.randn(T, N, D), torch.randn(N, H), torch.randn(N, H)
    expected, (h, c) = reference(x, (h0.unsqueeze(0), c0.unsqueeze(0)))
    found, state = cell.sequence(x, LSTMState(h0, c0))
    assert_close((found, *state), (expected, h.squeeze(0), c.squeeze(0)))
    found, state = by_steps(cell, x, LSTMState(h0, c0))
    assert_close((found, *state), (expected, h.squeeze(0), c.squeeze(0)))


def test_base_class_loops_over_the_steps():
    cell, x = Elman(D, H), torch.randn(T, N, D)
    assert_close(cell.sequence(x)[0], cell.rnn(x)[0])


def test_sequence_equals_steps(cell):
    x = torch.randn(T, N, D)
    for state in (None, LSTMState(torch.randn(N, H), torch.randn(N, H))):
        h, last = cell.sequence(x, state)
        start = cell.initial_state((N,)) if state is None else state
        stepped, stepped_last = by_steps(cell, x, start)
        assert_close((h, *last), (stepped, *stepped_last))
        middle = cell.sequence(x[:2], state)[1]
        assert_close(cell.sequence(x[2:], middle)[0], h[2:])


@pytest.mark.parametrize("steps, rows", [(0, 3), (1, 1), (5, 9), (33, 2), (35, 17), (70, 100)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_replay_is_the_sequence_whatever_shape_the_kernel_has(dtype, tolerance, steps, rows):
    cell = LSTMCell(D, H).to(dtype)
    x, state = torch.randn(steps, rows, D, dtype=dtype), torch.randn(2, rows, H, dtype=dtype)
    state = LSTMState(*state)
    found = cell.replay(x, state)
    assert_close(found, cell.sequence(x, state)[0].detach(), tolerance)
    assert found.shape == (steps, rows, H) and not found.requires_grad


def test_replays_have_few_shapes():
    """About twice as many for each tenfold of steps, and few numbers are added."""
    sizes = {n: _coarse(n, 16) for n in range(2000)}
    assert len(set(sizes.values())) < 150
    assert all(n <= size <= 1.07 * n + 1 for n, size in sizes.items())
    assert all(_coarse(size, 16) == size for size in sizes.values())


def test_no_steps(cell):
    state = LSTMState(torch.randn(N, H), torch.randn(N, H))
    h, last = cell.sequence(torch.randn(0, N, D), state)
    assert h.shape == (0, N, H) and all(map(torch.equal, last, state))
    assert cell.sequence(torch.randn(T, 0, D))[0].shape == (T, 0, H)


def test_any_leading_dimensions(cell):
    x = torch.randn(T, 2, N, D)
    h, _ = by_steps(cell, x, cell.initial_state((2, N)))
    assert_close(h.flatten(1, 2), cell.sequence(x.flatten(1, 2))[0])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_stepper_equals_sequence(cell, dtype, tolerance):
    cell, x = cell.to(dtype), torch.randn(T, N, D, dtype=dtype)
    scale, advance = cell.stepper()
    projected = (cell.project(x) * scale).detach()
    state, out = cell.initial_state((N,)), []
    for rows in projected:
        state = advance(rows, state)
        assert not state.h.requires_grad
        out.append(state.h)
    assert_close(torch.stack(out), cell.sequence(x)[0], tolerance)


def test_gradients_are_those_of_finite_differences(cell):
    x = torch.randn(3, 2, D, requires_grad=True)
    start = [torch.randn(2, H, requires_grad=True) for _ in range(2)]
    torch.autograd.gradcheck(lambda x, *state: cell.sequence(x, LSTMState(*state))[0], (x, *start))


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
@pytest.mark.parametrize("kind", [LSTMCell, MultiplicativeLSTMCell])
def test_refuses_no_size(kind, sizes):
    with pytest.raises(ValueError, match="_size is 0, expected a whole number of 1"):
        kind(*sizes)


def test_head_refuses_a_cell_that_reads_too_little():
    with pytest.raises(ValueError, match=r"reads 3 numbers.*write LSTMCell\(4 \+ input_size"):
        RecurrentTransition(3, LSTMCell(3, H))
