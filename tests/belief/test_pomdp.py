"""A gate's kernel against a loop over bits; its policy and rollout against the networks."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_ssl import LanguageModel, LSTMTransition, MultiplicativeLSTMTransition
from pyro_ssl.belief import GateRNN, joint_states, product_belief, to_pomdp
from pyro_ssl.cells import LSTMCell


def sharp_gate(V, k):
    gate = GateRNN(V, k)
    for parameter in gate.parameters():
        parameter.data.normal_(0, 2)
    gate.start.copy_(torch.rand(k))
    return gate


def test_joint_states_count_in_base_2():
    assert joint_states(3).tolist() == [list(s) for s in itertools.product((0, 1), repeat=3)]
    assert joint_states(0).shape == (1, 0)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_kernel_equals_a_loop_over_bits(k):
    pomdp, action = to_pomdp(sharp_gate(4, k)), torch.randn(k)
    kernel = pomdp.kernel(action)
    strings = list(itertools.product((0, 1), repeat=k))
    for i, s in enumerate(strings):
        p = torch.sigmoid(pomdp.weight @ torch.tensor(s, dtype=torch.float64) + action)
        for j, s_new in enumerate(strings):
            expected = 1.0
            for unit, bit in enumerate(s_new):
                expected *= float(p[unit] if bit else 1 - p[unit])
            assert abs(float(kernel[i, j]) - expected) < 1e-12


def test_product_belief_of_ten_units_equals_enumeration():
    pomdp = to_pomdp(sharp_gate(2, 10))
    p = torch.rand(3, 10)
    bits = joint_states(10)
    expected = torch.where(bits.bool(), p.unsqueeze(-2), 1 - p.unsqueeze(-2)).prod(-1)
    assert torch.allclose(product_belief(p), expected, rtol=1e-10, atol=0)
    kernel = pomdp.kernel(torch.tensor(1))
    assert kernel.shape == (1024, 1024)
    assert torch.allclose(kernel.sum(-1), torch.ones(1024), atol=1e-10)


def test_the_gate_is_exact_where_the_state_is_known_only():
    pomdp = to_pomdp(sharp_gate(4, 3))
    bits = joint_states(3).double()
    symbols = torch.tensor([2] * 8)
    gate = product_belief(pomdp.update(bits, symbols))
    exact = pomdp.exact_update(torch.eye(8), symbols)
    assert torch.allclose(gate, exact, atol=1e-12)
    belief = torch.rand(3)
    mean_field = product_belief(pomdp.update(belief, symbols[0]))
    exact = pomdp.exact_update(product_belief(belief), symbols[0])
    assert torch.allclose(exact.sum(), torch.tensor(1.0))
    assert (mean_field - exact).abs().max() > 1e-3


def test_rollout_is_the_gate_s_run():
    gate, symbols = sharp_gate(4, 3), torch.randint(4, (6, 2))
    expected = gate.sequence(F.one_hot(symbols, 4).double())[0]
    assert torch.allclose(to_pomdp(gate).rollout(symbols), expected, atol=1e-12)
    rest = to_pomdp(gate).rollout(symbols[2:], expected[1])
    assert torch.allclose(rest, expected[2:], atol=1e-12)


@pytest.mark.parametrize("number, gate", [(0, "input"), (1, "forget"), (3, "output")])
def test_gates_of_an_lstm(number, gate):
    """The gate that is read equals the sum inside the LSTM, found by the LSTM's own step."""
    cell = LSTMCell(4, 3)
    h, c, y = torch.rand(3), torch.randn(3), torch.tensor(2)
    gates = cell.project(F.one_hot(y, 4).double()) + h @ cell.lstm.weight_hh_l0.T
    i, f, g, o = gates.chunk(4)
    after = cell.lstm(F.one_hot(y, 4).double()[None, None], (h[None, None], c[None, None]))[1]
    new_c = after[1][0, 0]
    assert torch.allclose(new_c, f.sigmoid() * c + i.sigmoid() * g.tanh(), atol=1e-12)
    for source in (cell, cell.lstm):
        found = to_pomdp(source, gate).update(h, y)
        assert torch.allclose(found, (i, f, g, o)[number].sigmoid(), atol=1e-12)


def test_language_model_reads_its_embedding():
    model = LanguageModel(5, embedding_size=4, hidden_size=3)
    pomdp = to_pomdp(model, "forget")
    assert pomdp.policy.shape == (5, 3)
    by_hand = to_pomdp(model.recurrent, "forget", symbols=model.embedding.weight[:5])
    assert torch.equal(pomdp.policy, by_hand.policy)


def test_an_ssl_s_transition_reads_its_latents_and_the_start_symbol():
    transition = LSTMTransition(4, 3)
    pomdp = to_pomdp(transition, "forget")
    assert pomdp.policy.shape == (5, 3)
    assert torch.equal(pomdp.policy, to_pomdp(transition.cell, "forget").policy)
    batch_first = nn.LSTM(5, 3, bias=False, batch_first=True)
    assert torch.allclose(to_pomdp(batch_first, "input").policy, batch_first.weight_ih_l0[:3].T)


def test_errors_teach():
    with pytest.raises(ValueError, match="12 units have 2.12 joint states.*write to_hmm"):
        to_pomdp(GateRNN(2, 12)).kernel(torch.zeros(12))
    with pytest.raises(
        ValueError, match='no gate "posterior" in a LSTM.*write to_pomdp.lstm, "forget"'
    ):
        to_pomdp(nn.LSTM(2, 3))
    with pytest.raises(ValueError, match='no gate "candidate"'):
        to_pomdp(nn.LSTM(2, 3), "candidate")
    with pytest.raises(ValueError, match="MultiplicativeLSTMCell depends on its input"):
        to_pomdp(MultiplicativeLSTMTransition(2, 3), "forget")
    with pytest.raises(TypeError, match="found GRU, expected"):
        to_pomdp(nn.GRU(2, 3), "forget")
