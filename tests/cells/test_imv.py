"""The IMV-LSTM's cells: the paper's equations, which unit reads which, and the gradient by hand."""

import copy

import pytest
import torch

from pyro_ssl.cells import (
    IMVFullLSTM,
    IMVFullLSTMCell,
    IMVTensorLSTM,
    IMVTensorLSTMCell,
    LSTMState,
    RecurrentCell,
)
from pyro_ssl.testing import GaussianTransitionContract, TransitionContract
from pyro_ssl.transitions import RecurrentGaussianTransition, RecurrentTransition

B, T, N, D = 3, 5, 4, 2
LAYERS = {"tensor": IMVTensorLSTM, "full": IMVFullLSTM}


@pytest.fixture(params=LAYERS)
def layer(request):
    return drawn(LAYERS[request.param](N, D))


def drawn(layer):
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


@pytest.fixture
def before():
    """(h, c) before the first step, ``(B, N, d)``."""
    return torch.randn(B, N, D), torch.randn(B, N, D)


class TensorTransition(TransitionContract):
    """Variables: the states and the start symbol one-hot, then two exogenous inputs."""

    def make(self, num_states=3):
        return RecurrentTransition(num_states, IMVTensorLSTMCell(num_states + 1 + 2, 3))


class TestTensorTransition(TensorTransition):
    pass


class TestFullTransition(TensorTransition):
    def make(self, num_states=3):
        return RecurrentTransition(num_states, IMVFullLSTMCell(num_states + 1 + 2, 3))


class TestTensorGaussianTransition(GaussianTransitionContract):
    def make(self, dim=2):
        return RecurrentGaussianTransition(dim, IMVTensorLSTMCell(dim + 1 + 3, 2))


# -------------------------------------------------------------------------- the equations


def sigmoid(a):
    return 1 / (1 + torch.exp(-a))


def candidate(layer, n, x, h, rows):
    """Eq. 1, or a gate of eq. 5: W ⊛ h + U ⊛ x + b of one variable, unit by unit."""
    W, U, b = layer.weight_hh[n], layer.weight_ih[n], layer.bias[n]
    return torch.stack([W[r] @ h[n] + U[r] * x[n] + b[r] for r in rows])


def tensor_step(layer, x, h, c):
    """Eqs. 1 and 5 to 7 for one sequence: x (N,), h and c (N, d)."""
    h_next, c_next = torch.empty(N, D), torch.empty(N, D)
    for n in range(N):
        j, i, f, o = (candidate(layer, n, x, h, range(k, k + D)) for k in range(0, 4 * D, D))
        c_next[n] = sigmoid(f) * c[n] + sigmoid(i) * torch.tanh(j)
        h_next[n] = sigmoid(o) * torch.tanh(c_next[n])
    return h_next, c_next


def full_step(layer, x, h, c):
    """Eqs. 1 to 4 for one sequence."""
    j = torch.stack([torch.tanh(candidate(layer, n, x, h, range(D))) for n in range(N)])
    W = torch.cat([layer.gate_weight_ih, layer.gate_weight_hh], 1)
    vector = torch.cat([x, h.flatten()])  # x_t ⊕ vec(h_{t-1})
    gates = sigmoid(torch.stack([w @ vector for w in W]) + layer.gate_bias)
    i, f, o = (gates[k * N * D : (k + 1) * N * D] for k in range(3))
    c_next = f * c.flatten() + i * j.flatten()
    return (o * torch.tanh(c_next)).view(N, D), c_next.view(N, D)


def from_the_paper(layer, x, h, c):
    step = tensor_step if isinstance(layer, IMVTensorLSTM) else full_step
    out, last = torch.empty(*x.shape, D), torch.empty(2, *h.shape)
    for b in range(len(x)):
        h_b, c_b = h[b], c[b]
        for t in range(x.shape[1]):
            h_b, c_b = step(layer, x[b, t], h_b, c_b)
            out[b, t] = h_b
        last[0, b], last[1, b] = h_b, c_b
    return out, last


@torch.no_grad()
def test_equations_of_the_paper(layer, before):
    x = torch.randn(B, T, N)
    expected, last = from_the_paper(layer, x, *before)
    h, state = layer(x, before)
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(tuple(state)), last, rtol=0, atol=1e-12)
    zeros = torch.zeros(B, N, D)
    expected, _ = from_the_paper(layer, x, zeros, zeros)
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_row_of_the_tensor_layer_reads_its_own_variable_alone(before):
    layer, x = drawn(IMVTensorLSTM(N, D)), torch.randn(B, T, N)
    h, _ = layer(x, before)
    for m in range(N):
        changed = x.clone()
        changed[:, :, m] += torch.randn(B, T)
        found, _ = layer(changed, before)
        others = [n for n in range(N) if n != m]
        assert torch.equal(found[:, :, others], h[:, :, others])
        assert not torch.isclose(found[:, :, m], h[:, :, m]).any()


@torch.no_grad()
def test_row_of_the_full_layer_reads_every_variable(before):
    layer, x = drawn(IMVFullLSTM(N, D)), torch.randn(B, T, N)
    h, _ = layer(x, before)
    for m in range(N):
        changed = x.clone()
        changed[:, :, m] += 1.0
        assert not torch.isclose(layer(changed, before)[0], h).any()


# ------------------------------------------------------------------------- the two paths


def flat(state):
    return LSTMState(*(s.flatten(1) for s in state))


def test_unrolled_equals_stepped_and_so_do_gradients(layer, before):
    x = torch.randn(T, B, N, requires_grad=True)
    state = tuple(s.requires_grad_() for s in before)
    weights = torch.randn(T, B, N * D), torch.randn(B, N * D), torch.randn(B, N * D)
    leaves = [x, *state, *layer.parameters()]
    found = []
    for sequence in (layer.sequence, lambda *args: RecurrentCell.sequence(layer, *args)):
        h, last = sequence(x, flat(state))
        loss = sum((w * v).sum() for w, v in zip(weights, (h, *last), strict=True))
        found.append((h, *last, *torch.autograd.grad(loss, leaves)))
    for unrolled, stepped in zip(*found, strict=True):
        torch.testing.assert_close(unrolled, stepped, rtol=0, atol=1e-11)


@pytest.mark.stage("system")
def test_gradient_equals_finite_differences(layer, before):
    x = torch.randn(B, 3, N, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x, h, c, *values):
        parameters = dict(zip(names, values, strict=True))
        out, last = torch.func.functional_call(layer, parameters, (x, (h, c)))
        return out, *last

    inputs = (x, *(s.requires_grad_() for s in before), *values)
    assert torch.autograd.gradcheck(run, inputs)


def test_gradient_reaches_every_parameter(layer):
    layer(torch.randn(B, T, N))[0].square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in layer.parameters())


def test_input_map_of_the_tensor_cell_keeps_variables_apart():
    weight, bias = IMVTensorLSTMCell(N, D).input_map()
    blocks = weight.view(N, 4 * D, N)
    assert torch.equal(blocks.abs().sum(1) > 0, torch.eye(N, dtype=torch.bool))
    assert bias.shape == (N * 4 * D,)


def test_continues_from_the_state_it_returned(layer):
    x = torch.randn(B, T, N)
    h, last = layer(x)
    first, state = layer(x[:, :2])
    second, end = layer(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), h, rtol=0, atol=1e-14)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(B, 0, N), (0, T, N), (1, 1, N)])
def test_small_sizes(layer, shape):
    h, last = layer(torch.randn(shape))
    assert h.shape == (*shape, D)
    assert last.h.shape == last.c.shape == (shape[0], N, D)
    if shape[1] == 0:
        assert not last.h.any()


def test_inputs_and_state_are_left_as_they_are(layer, before):
    x = torch.randn(B, T, N)
    copies = copy.deepcopy((x, *before))
    h, _ = layer(x, before)
    h.sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(copies, (x, *before), strict=True))


def test_dtype_follows_the_parameters(layer):
    layer = layer.to(torch.float32)
    h, last = layer(torch.randn(B, T, N, dtype=torch.float32))
    assert h.dtype == last.h.dtype == last.c.dtype == torch.float32
    made = type(layer)(N, D, dtype=torch.float32)
    assert all(p.dtype == torch.float32 for p in made.parameters())


def test_refuses_other_inputs(layer):
    match = r"expected 4 variables last; write IMV\w+\(num_variables=3, units=2\)"
    with pytest.raises(ValueError, match=match):
        layer(torch.randn(B, T, 3))
    with pytest.raises(ValueError, match=match):
        layer.sequence(torch.randn(T, B, 3))


@pytest.mark.parametrize("sizes, name", [((0, 2), "num_variables"), ((2, 0), "units")])
def test_refuses_no_size(sizes, name):
    with pytest.raises(ValueError, match=f"{name} is 0, expected a whole number of 1"):
        IMVTensorLSTM(*sizes)
