"""Gates taken apart: put together again, they give the network's own forward pass."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_ssl import LSTMTransition, MultiplicativeLSTMTransition, TopicalSSL
from pyro_ssl.belief import (
    GateRNN,
    belief_view,
    dependency_graph,
    gate_weights,
    product_belief,
    read_gates,
)
from pyro_ssl.belief.filter import FilterRNN
from pyro_ssl.cells import (
    IMVFullLSTM,
    IMVFullLSTMCell,
    IMVTensorLSTM,
    IMVTensorLSTMCell,
    LSTMCell,
    LSTMState,
    MultiplicativeLSTM,
    MultiplicativeLSTMCell,
)
from pyro_ssl.transitions import (
    GaussianLSTMTransition,
    GaussianMultiplicativeLSTMTransition,
    RecurrentTransition,
)
from tests.test_device import NoBareFactory

T, B, E, H = 6, 3, 4, 5


def close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def check_parts(view):
    """Evidence plus prior are the posterior's log-odds; entropy and bits are its own."""
    for belief in view.gates.values():
        assert torch.equal(belief.log_odds, belief.prior_log_odds + belief.evidence_log_odds)
        close(belief.posterior, torch.sigmoid(belief.log_odds))
        p, told = belief.posterior, belief.log_odds.abs() < 10  # by p, before it rounds to 1
        close(belief.log_odds[told], p[told].logit(), 1e-10)
        q = torch.sigmoid(-belief.log_odds)
        close(belief.entropy, -torch.xlogy(p, p) - torch.xlogy(q, q), 1e-12)
        assert torch.equal(belief.bits, p > 0.5)


def check_lstm(view, h, c_last=None, state=None, squash=torch.tanh):
    """c_t = f c_{t-1} + i g and h_t = o tanh(c_t) from the view alone, against h of the source."""
    check_parts(view)
    gates = {name: belief.posterior for name, belief in view.gates.items()}
    assert list(gates) == ["input", "forget", "output"]
    c = torch.zeros_like(view.h[0]) if state is None else state[1]
    for t in range(len(h)):
        c = gates["forget"][t] * c + gates["input"][t] * view.candidate[t]
        close(view.c[t], c)
        close(h[t], squash(gates["output"][t], c))
    close(view.h, h)
    if c_last is not None:
        close(c, c_last)


def lstm_output(o, c):
    return o * torch.tanh(c)


@pytest.mark.parametrize("bias", [True, False])
def test_nn_lstm(bias):
    lstm, x = nn.LSTM(E, H, bias=bias), torch.randn(T, B, E)
    h, (_, c) = lstm(x)
    check_lstm(belief_view(lstm, x), h, c[0], squash=lstm_output)
    state = torch.randn(1, B, H), torch.randn(1, B, H)
    h, (_, c) = lstm(x, state)
    check_lstm(belief_view(lstm, x, state), h, c[0], (state[0][0], state[1][0]), lstm_output)
    twin = nn.LSTM(E, H, bias=bias, batch_first=True)
    twin.load_state_dict(lstm.state_dict())
    close(belief_view(twin, x.transpose(0, 1)).h, belief_view(lstm, x).h)


def test_nn_lstm_of_three_layers():
    lstm, x = nn.LSTM(E, H, 3, dropout=0.5), torch.randn(T, B, E)  # in train mode
    state = torch.randn(3, B, H), torch.randn(3, B, H)
    h, (h_last, c_last) = lstm.eval()(x, state)
    lstm.train()
    for layer in range(3):
        view = belief_view(lstm, x, state, layer=layer)
        close(view.h[-1], h_last[layer])
        check_lstm(view, view.h, c_last[layer], (None, state[1][layer]), lstm_output)
        assert view.evidence_of == ("x_t" if layer == 0 else f"h_t of layer {layer - 1}")
    close(view.h, h)


def test_nn_lstm_cell():
    cell, x = nn.LSTMCell(E, H), torch.randn(T, B, E)
    state, out = (torch.randn(B, H), torch.randn(B, H)), []
    first = state
    for x_t in x:
        state = cell(x_t, state)
        out.append(state[0])
    check_lstm(belief_view(cell, x, first), torch.stack(out), state[1], first, lstm_output)


def test_lstm_cell():
    cell, x = LSTMCell(E, H), torch.randn(T, B, E)
    state = LSTMState(torch.randn(B, H), torch.randn(B, H))
    h, last = cell.sequence(x, state)
    check_lstm(belief_view(cell, x, state), h, last.c, state, lstm_output)


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("squash", ["cell", "output"])
def test_multiplicative_cell(squash, weight_norm):
    cell = MultiplicativeLSTMCell(
        E, H, squash=squash, weight_norm=weight_norm, variational_dropout=0.5
    )
    if weight_norm:
        for name in ("ih", "mh", "hm"):
            nn.init.uniform_(getattr(cell, f"weight_{name}_magnitude"), 0.5, 2.0)
    if squash == "output":
        nn.init.normal_(cell.bias_h)
    x = torch.randn(T, B, E)
    state = LSTMState(torch.randn(B, H), torch.randn(B, H))
    view = belief_view(cell, x, state)  # in train mode, but dropout is left out
    h, last = cell.eval().sequence(x, state)

    def output(o, c):
        return lstm_output(o, c) if squash == "cell" else torch.tanh(o * c + cell.bias_h)

    check_lstm(view, h, last.c, state, output)
    # Each input's own recurrent matrix, which is linear in the input, makes the prior.
    before = torch.cat([state.h[None], h[:-1]])
    for name, weight in gate_weights(cell).items():
        if name != "candidate":
            matrix = torch.einsum("tbi,ijk->tbjk", x, weight)
            prior = (matrix @ before.unsqueeze(-1)).squeeze(-1)
            close(view.gates[name].prior_log_odds, prior)


def test_multiplicative_layer():
    layer, x = MultiplicativeLSTM(E, H), torch.randn(T, B, E)
    h, (_, c) = layer(x)
    check_lstm(belief_view(layer, x), h, c, squash=lstm_output)


@pytest.mark.parametrize("cell_type", [IMVTensorLSTMCell, IMVFullLSTMCell])
def test_imv_cells(cell_type):
    cell, N, d = cell_type(E, 3), E, 3
    nn.init.normal_(cell.bias)
    x = torch.randn(T, B, N)
    state = LSTMState(torch.randn(B, N * d), torch.randn(B, N * d))
    view = belief_view(cell, x, state)
    h, last = cell.sequence(x, state)
    check_lstm(view, h, last.c, state, lstm_output)
    # W_h times the state before is the prior; the rest of a step is the evidence of x alone.
    before, weights = torch.cat([state.h[None], h[:-1]]), gate_weights(cell)
    for name, belief in view.gates.items():
        close(belief.prior_log_odds, before @ weights[name].T)
        others = belief_view(cell, x, LSTMState(*(2 * s for s in state))).gates[name]
        close(belief.evidence_log_odds, others.evidence_log_odds)
    across = torch.block_diag(*[torch.ones(d, d)] * N) == 0
    alone = [name for name, weight in weights.items() if not weight[across].any()]
    tensor = cell_type is IMVTensorLSTMCell
    assert set(alone) == ({*weights} if tensor else {"candidate"})
    blocks = dependency_graph(cell, "candidate", threshold=0.0).blocks()
    assert blocks == [list(range(n * d, n * d + d)) for n in range(N)]


@pytest.mark.parametrize("layer_type", [IMVTensorLSTM, IMVFullLSTM])
def test_imv_layers_are_batch_first(layer_type):
    layer, x = layer_type(E, 3), torch.randn(B, T, E)
    state = torch.randn(B, E, 3), torch.randn(B, E, 3)
    for before in (None, state):
        h, (_, c) = layer(x, before)
        flat = None if before is None else tuple(s.flatten(1) for s in before)
        view = belief_view(layer, x, before)
        check_lstm(view, h.flatten(2).transpose(0, 1), c.flatten(1), flat, lstm_output)


def test_plain_gate():
    gate, x = GateRNN(E, H), torch.randn(T, B, E)
    gate.start.copy_(torch.rand(H))
    view = belief_view(gate, x)
    h, _ = gate.sequence(x)
    check_parts(view)
    assert list(view.gates) == ["posterior"] and view.c is None and view.candidate is None
    close(view.gates["posterior"].posterior, h)
    close(view.h, h)
    prior = torch.cat([gate.start.expand(1, B, H), h[:-1]]) @ gate.weight_hh.T
    close(view.gates["posterior"].prior_log_odds, prior)
    close(view.gates["posterior"].evidence_log_odds, F.linear(x, gate.weight_ih, gate.bias))


def test_symbols_are_one_hot_vectors():
    words = torch.randint(E, (T, B))
    for source in (nn.LSTM(E, H), GateRNN(E, H)):
        close(belief_view(source, words).h, belief_view(source, F.one_hot(words, E)).h)


@pytest.mark.parametrize("input_size", [0, 2])
@pytest.mark.parametrize("make", [LSTMTransition, MultiplicativeLSTMTransition])
def test_transition_reads_latents(make, input_size):
    transition = make(3, H, input_size=input_size, dropout=0.5).train()
    z = torch.randint(3, (B, T))
    u = torch.randn(B, T, input_size) if input_size else None
    view = belief_view(transition, z, exogenous=u)
    assert transition.training
    assert view.evidence_of == ("[z_{t-1}; u_t]" if input_size else "z_{t-1}")
    logits = transition.head(view.h).transpose(0, 1)
    close(logits, transition.eval().path_logits(z, u))
    check_lstm(view, view.h, squash=lstm_output)
    # The first step reads the start symbol and not z; later steps do not read the last latent.
    other = belief_view(transition, (z + 1) % 3, exogenous=u)
    last = torch.cat([z[:, :-1], (z[:, -1:] + 1) % 3], 1)
    assert torch.equal(other.h[0], view.h[0]) and not torch.equal(other.h[1], view.h[1])
    assert torch.equal(belief_view(transition, last, exogenous=u).h, view.h)


@pytest.mark.parametrize("reads", ["positions", "increments"])
@pytest.mark.parametrize("make", [GaussianLSTMTransition, GaussianMultiplicativeLSTMTransition])
def test_transition_over_vectors(make, reads):
    transition = make(2, H, residual=True, reads=reads)
    z = torch.randn(B, T, 2)
    view = belief_view(transition, z)
    previous = F.pad(z, (0, 0, 1, 0))[:, :T]
    mean = transition.head(view.h).transpose(0, 1)[..., :2] + previous
    mean[:, 0] = transition.initial_mean  # a parameter of a residual transition
    close(mean, transition.path_moments(z).mean)
    check_lstm(view, view.h, squash=lstm_output)


def test_transition_over_a_gate_and_inside_a_fitted_model():
    view = belief_view(RecurrentTransition(3, GateRNN(4, H)), torch.randint(3, (B, T)))
    assert list(view.gates) == ["posterior"] and view.evidence_of == "z_{t-1}"
    ssl = TopicalSSL(3, 5, hidden_size=H)
    view = belief_view(ssl.transition, torch.randint(3, (B, T)))
    assert "evidence of z_{t-1}" in str(view) and "forget: mean posterior 0." in str(view)


def test_a_view_leaves_no_trace():
    transition = LSTMTransition(3, H)
    cell, z, seed = transition.cell, torch.randint(3, (B, T)), torch.get_rng_state()
    view = belief_view(transition, z)
    assert transition.cell is cell and torch.equal(torch.get_rng_state(), seed)
    assert not any(value.requires_grad for value in (view.h, *view.gates["input"]))


def test_joint_beliefs():
    view = belief_view(nn.LSTM(E, H), torch.randn(T, B, E))
    forget = view.gates["forget"]
    close(view.joint("forget"), product_belief(forget.posterior))
    pair = view.joint("forget", [3, 0])  # the first unit is the most significant bit
    p = forget.posterior
    close(pair[..., 2], p[..., 3] * (1 - p[..., 0]))
    best = view.most_probable("forget", 4)
    assert torch.equal(best.states[..., 0, :], forget.bits)
    top = view.joint("forget").topk(4).values
    close(best.log_probs.exp(), top)
    with pytest.raises(ValueError, match=r'no gate "posterior", expected one of \[.input.'):
        view.joint("posterior")


def test_entropy_of_certain_units():
    gate = GateRNN(1, 3)
    with torch.no_grad():
        gate.weight_hh.zero_(), gate.weight_ih.zero_()
        gate.bias.copy_(torch.tensor([0.0, 50.0, -1000.0]))
    entropy = belief_view(gate, torch.zeros(1, 1, 1)).gates["posterior"].entropy[0, 0]
    expected = torch.tensor([math.log(2), 51 * math.exp(-50), 0.0])
    torch.testing.assert_close(entropy, expected, rtol=1e-10, atol=0)


def test_dtype_and_device_follow(device):
    z = torch.randint(3, (B, T), device=device)
    for source, inputs in (
        (nn.LSTM(3, H), z),
        (MultiplicativeLSTMCell(3, H), z),
        (GateRNN(3, H), z),
        (IMVTensorLSTMCell(3, 2), z),
        (IMVFullLSTMCell(3, 2), z),
        (LSTMTransition(3, H), z),
        (GaussianLSTMTransition(3, H), torch.randn(B, T, 3, device=device, dtype=torch.float32)),
    ):
        with NoBareFactory():
            view = belief_view(source.float().to(device), inputs)
        values = [view.h, *next(iter(view.gates.values()))[:4]]
        assert {v.dtype for v in values} == {torch.float32}
        assert {v.device.type for v in values} == {device.type}


def test_errors_teach():
    x, z = torch.randn(T, B, E), torch.tensor([[0, 2, 1, 1, 0, 0]] * B)
    transition = LSTMTransition(3, H)
    cases = [
        (TypeError, "found Linear, expected nn.LSTM", (nn.Linear(2, 2), x), {}),
        (TypeError, "found FilterRNN", (FilterRNN(torch.eye(2), torch.eye(2)), x), {}),
        (ValueError, "bidirectional=True", (nn.LSTM(E, H, bidirectional=True), x), {}),
        (ValueError, "layer is 1, expected one from 0 to 0", (nn.LSTM(E, H), x), {"layer": 1}),
        (ValueError, r"write x\[:, None\] for one", (nn.LSTM(E, H), x[0]), {}),
        (ValueError, "symbols from 0 to 2, expected 0 to 1", (nn.LSTM(2, H), z), {}),
        (ValueError, r"expected \(B, T\).*write z.T", (transition, z[0]), {}),
        (ValueError, r"expected \(B, T, 2\)", (GaussianLSTMTransition(2, H), z), {}),
        (ValueError, "input_size=0 exogenous inputs, but some", (transition, z), {"exogenous": x}),
        (ValueError, "has no exogenous inputs", (nn.LSTM(E, H), x), {"exogenous": x}),
    ]  # fmt: skip
    for error, message, args, settings in cases:
        with pytest.raises(error, match=message):
            read_gates(*args, **settings)
