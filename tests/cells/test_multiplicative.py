"""The multiplicative LSTM: the paper's equations, and its special case, the LSTM."""

import copy
import pickle

import pytest
import torch

from pyro_ssl.cells import LSTMCell, LSTMState, MultiplicativeLSTM, MultiplicativeLSTMCell
from pyro_ssl.testing import TransitionContract
from pyro_ssl.transitions import MultiplicativeLSTMTransition

T, N, D, H = 6, 4, 3, 5
OPTIONS = {
    "plain": {},
    "output": {"squash": "output"},
    "weight norm": {"weight_norm": True},
    "output, weight norm": {"squash": "output", "weight_norm": True},
}


@pytest.fixture(params=OPTIONS)
def layer(request):
    layer = MultiplicativeLSTM(D, H, **OPTIONS[request.param])
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


class Contract(TransitionContract):
    options: dict = {}

    def make(self, num_states=3):
        return MultiplicativeLSTMTransition(num_states, hidden_size=6, **self.options)


class TestMultiplicativeLSTM(Contract):
    pass


class TestOutputSquash(Contract):
    options = {"squash": "output"}


class TestWithInputs(Contract):
    options = {"input_size": 2, "forget_bias": 3.0}


class TestAllOptions(Contract):
    options = {
        **{"input_size": 2, "squash": "output", "weight_norm": True},
        **{"dropout": 0.5, "variational_dropout": 0.5},
    }


# -------------------------------------------------------------------------- the equations


def weights_of(layer):
    """W_mx, W_hx, W_mh, W_hm as the paper has them, row by row."""
    matrices = []
    for name in ("weight_ih", "weight_mh", "weight_hm"):
        rows = getattr(layer, name)
        if layer.weight_norm:
            magnitudes = getattr(layer, f"{name}_magnitude")
            pairs = zip(magnitudes, rows, strict=True)
            rows = torch.stack([g * v / v.square().sum().sqrt() for g, v in pairs])
        matrices.append(rows)
    return (matrices[0][:H], matrices[0][H:], *matrices[1:])


def from_the_paper(layer, x, h, c):
    """Krause et al. 2016, one sequence after another, unit by unit."""
    W_mx, W_hx, W_mh, W_hm = weights_of(layer)
    out = torch.empty(*x.shape[:2], H)
    last = torch.empty(2, x.shape[1], H)
    for n in range(x.shape[1]):
        h_n, c_n = h[n], c[n]
        for t in range(len(x)):
            m = torch.stack([(W_mx[j] @ x[t, n]) * (W_mh[j] @ h_n) for j in range(H)])
            g, i, f, o = (
                torch.stack(
                    [W_hx[r] @ x[t, n] + W_hm[r] @ m + layer.bias[r] for r in range(k, k + H)]
                )
                for k in (0, H, 2 * H, 3 * H)
            )
            if layer.squash == "output":
                c_n = f.sigmoid() * c_n + i.sigmoid() * g
                h_n = torch.tanh(c_n * o.sigmoid() + layer.bias_h)
            else:
                c_n = f.sigmoid() * c_n + i.sigmoid() * g.tanh()
                h_n = o.sigmoid() * c_n.tanh()
            out[t, n] = h_n
        last[0, n], last[1, n] = h_n, c_n
    return out, last


@torch.no_grad()
def test_equations_of_the_paper(layer):
    x, h, c = torch.randn(T, N, D), torch.randn(N, H), torch.randn(N, H)
    expected, last = from_the_paper(layer, x, h, c)
    found, state = layer(x, (h, c))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(state), last, rtol=0, atol=1e-12)
    zeros = torch.zeros(N, H)
    torch.testing.assert_close(layer(x)[0], from_the_paper(layer, x, zeros, zeros)[0])


def as_lstm(cell, lstm, one_columns):
    """Give an mLSTM cell the parameters of an LSTM, and m_t = h_{t-1}."""
    order = [2, 0, 1, 3]  # torch's i, f, g, o to the paper's g, i, f, o

    def reordered(value):
        blocks = value.chunk(4)
        return torch.cat([blocks[k] for k in order])

    with torch.no_grad():
        cell.weight_ih[:H] = one_columns
        cell.weight_ih[H:] = reordered(lstm.weight_ih_l0)
        cell.weight_mh.copy_(torch.eye(H))
        cell.weight_hm.copy_(reordered(lstm.weight_hh_l0))
        cell.bias.copy_(reordered(lstm.bias_ih_l0 + lstm.bias_hh_l0))
    cell.reset_magnitudes()


@pytest.mark.parametrize("weight_norm", [False, True])
def test_is_the_lstm_where_m_is_h(weight_norm):
    cell, lstm = MultiplicativeLSTMCell(D, H, weight_norm=weight_norm), LSTMCell(D, H)
    as_lstm(cell, lstm.lstm, torch.ones(H, D))
    x = torch.eye(D)[torch.randint(D, (T, N))]
    torch.testing.assert_close(cell.sequence(x)[0], lstm.sequence(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("squash", "biases"), [("cell", 4 * H), ("output", 5 * H)])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_has_more_parameters_than_an_lstm(squash, biases, weight_norm):
    cell = MultiplicativeLSTMCell(D, H, squash=squash, weight_norm=weight_norm)
    count = sum(parameter.numel() for parameter in cell.parameters())
    assert count == 5 * H * H + 5 * H * D + biases + weight_norm * 10 * H
    assert count > 4 * H * H + 4 * H * D + 4 * H


# -------------------------------------------------------------------------- options


def test_start():
    cell = MultiplicativeLSTMCell(D, H, squash="output", forget_bias=3.0)
    for square in (cell.weight_mh, *cell.weight_hm.chunk(4)):
        torch.testing.assert_close(square @ square.T, torch.eye(H))
    torch.testing.assert_close(cell.weight_ih[:H].T @ cell.weight_ih[:H], torch.eye(D))
    assert torch.equal(cell.bias, torch.tensor([0.0, 0.0, 3.0, 0.0]).repeat_interleave(H))
    assert not cell.bias_h.any()


def test_weight_norm_starts_at_the_weights_and_scales_them_by_row():
    torch.manual_seed(0)
    plain = MultiplicativeLSTMCell(D, H)
    torch.manual_seed(0)
    normed = MultiplicativeLSTMCell(D, H, weight_norm=True)
    x = torch.randn(T, N, D)
    torch.testing.assert_close(normed.sequence(x)[0], plain.sequence(x)[0])
    with torch.no_grad():
        before = normed.sequence(x)[0]
        for name in ("weight_ih", "weight_mh", "weight_hm"):
            getattr(normed, name).mul_(7.0)  # v has a direction only
        torch.testing.assert_close(normed.sequence(x)[0], before)
        normed.weight_ih_magnitude.mul_(2.0)
        plain.weight_ih.mul_(2.0)
        torch.testing.assert_close(normed.sequence(x)[0], plain.sequence(x)[0])


def test_variational_dropout_is_one_mask_per_sequence():
    p = 0.5
    cell = MultiplicativeLSTMCell(D, H, variational_dropout=p)
    x = torch.randn(T, N, D)
    torch.manual_seed(1)
    found, _ = cell.sequence(x)
    torch.manual_seed(1)
    mask = torch.nn.functional.dropout(torch.ones(N, H), p)
    assert set(mask.unique().tolist()) == {0.0, 1 / (1 - p)}
    state = cell.initial_state((N,))
    for t in range(T):
        state = cell.advance(cell.project(x[t]), LSTMState(state.h * mask, state.c))
        torch.testing.assert_close(found[t], state.h)


def test_variational_dropout_is_for_learning_alone():
    transition = MultiplicativeLSTMTransition(3, hidden_size=H, variational_dropout=0.5)
    z = torch.randint(3, (4, 5))
    assert not torch.equal(transition.log_prob(z), transition.log_prob(z))  # train() mode
    z_prev, state = z[:, 0], transition.initial_state((4,))._replace(h=torch.randn(4, H))
    stepping = transition.step_logits(z_prev, state)[0], transition.stepper()(z_prev, state, 1)[0]
    transition.eval()
    assert torch.equal(stepping[0], transition.step_logits(z_prev, state)[0])
    assert torch.equal(stepping[1], transition.stepper()(z_prev, state, 1)[0])
    assert torch.equal(transition.log_prob(z), transition.log_prob(z))


@pytest.mark.parametrize("weight_norm", [False, True])
def test_each_state_has_a_recurrent_matrix_of_its_own(weight_norm):
    transition = MultiplicativeLSTMTransition(3, hidden_size=H, weight_norm=weight_norm)
    near_one = transition.cell.input_map()[0][:H]
    torch.testing.assert_close(near_one, transition.cell.weight_ih[:H])
    assert (near_one - 1).abs().max() <= 1 and near_one.std(1).min() > 0
    with torch.no_grad():  # z_{t-1} acts through the way h is read alone
        transition.cell.weight_ih[H:] = 0
    state = LSTMState(torch.randn(H), torch.randn(H))
    one, other = transition.step_logits(torch.tensor([0, 1]), state)[0]
    assert not torch.allclose(one, other)


def test_layer_follows_device_and_dtype():
    layer = MultiplicativeLSTM(D, H, device="meta", dtype=torch.float32, weight_norm=True)
    h, state = layer(torch.empty(T, N, D, device="meta", dtype=torch.float32))
    assert {v.device.type for v in (h, *state)} == {"meta"} and h.dtype == torch.float32


def test_layer_is_copied(layer):
    x = torch.randn(T, N, D)
    loaded = MultiplicativeLSTM(D, H, squash=layer.squash, weight_norm=layer.weight_norm)
    loaded.load_state_dict(layer.state_dict())
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), loaded):
        assert torch.equal(twin(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"squash": "tanh"}, 'squash is "tanh", expected "cell" or "output"'),
        ({"variational_dropout": 1.0}, "variational_dropout is 1.0, expected a number from 0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        MultiplicativeLSTM(D, H, **options)
