"""The LSTM transition: the contract, and what is its own."""

import pytest
import torch

from pyro_ssl import LSTMTransition, MultiplicativeLSTMTransition
from pyro_ssl.testing import TransitionContract


class TestLSTM(TransitionContract):
    def make(self, num_states=3):
        return LSTMTransition(num_states, hidden_size=6)


class TestLSTMWithInputs(TransitionContract):
    def make(self, num_states=3):
        return LSTMTransition(num_states, hidden_size=6, input_size=2)


class TestLSTMWithDropout(TransitionContract):
    def make(self, num_states=3):
        return LSTMTransition(num_states, hidden_size=6, dropout=0.5)


def test_equals_torch_lstm_on_one_hot_inputs():
    transition = LSTMTransition(3, hidden_size=6, input_size=2)
    z, inputs = torch.tensor([0, 2, 1]), torch.randn(3, 2)
    one_hot = torch.eye(4)[torch.tensor([3, 0, 2])]  # the start symbol, then z_{t-1}
    h, _ = transition.cell.lstm(torch.cat([one_hot, inputs], -1).unsqueeze(1))
    expected = transition.head(h.squeeze(1)).log_softmax(-1)[torch.arange(3), z]
    torch.testing.assert_close(transition.log_prob(z, inputs), expected)


def test_remembers_more_than_a_markov_chain_does():
    transition = LSTMTransition(2, hidden_size=6)
    near, far = transition.path_logits(torch.tensor([[0, 1, 0], [1, 1, 0]]))[:, 2]
    assert not torch.allclose(near, far)


def test_dropout_is_for_learning_alone():
    transition = LSTMTransition(3, hidden_size=6, dropout=0.5)
    z = torch.randint(3, (4, 5))
    assert not torch.equal(transition.log_prob(z), transition.log_prob(z))  # train() mode
    z_prev, state = z[:, 0], transition.initial_state((4,))
    for _ in range(2):
        logits, _ = transition.step_logits(z_prev, state)
        assert torch.equal(logits, transition.eval().step_logits(z_prev, state)[0])
        transition.train()


def test_inputs_shared_by_all_sequences():
    transition = LSTMTransition(3, hidden_size=6, input_size=2)
    z, inputs = torch.randint(3, (4, 5)), torch.randn(5, 2)
    expected = transition.log_prob(z, inputs.expand(4, -1, -1))
    torch.testing.assert_close(transition.log_prob(z, inputs), expected)


@pytest.mark.parametrize("num_states", [0, -1])
def test_refuses_no_states(num_states):
    with pytest.raises(ValueError, match="num_states is .*, expected a whole number of 1"):
        LSTMTransition(num_states, hidden_size=6)


@pytest.mark.parametrize("make", [LSTMTransition, MultiplicativeLSTMTransition])
@pytest.mark.parametrize("K", [5, 50])
def test_replay_by_one_hots_and_by_look_ups(make, K):
    """K=50 over H=4 units is where one-hots are too long for the fused call."""
    transition = make(K, 4, input_size=2)
    z, inputs = torch.randint(K, (3, 6)), torch.randn(3, 6, 2)
    state = transition.initial_state((3,))
    found = transition.replay(z, None, state, inputs)
    torch.testing.assert_close(found, transition.log_prob(z, inputs).detach())
