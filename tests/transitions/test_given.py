"""A transition at other values of its parameters."""

import pytest
import torch

from pyro_ssl import (
    DiscreteTransition,
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovTransition,
    MultiplicativeLSTMTransition,
)
from pyro_ssl.transitions import GaussianTransition, ProductTransition
from pyro_ssl.transitions.given import at_drawn_weights

KINDS = {
    "lstm": lambda: LSTMTransition(3, 4),
    "mlstm": lambda: MultiplicativeLSTMTransition(3, 4),
    "markov": lambda: MarkovTransition(3),
    "gaussian": lambda: GaussianLSTMTransition(2, 4),
}


def path_of(transition):
    if isinstance(transition, GaussianTransition):
        return torch.randn(2, 5, 2)
    return torch.randint(3, (2, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_transition_that_has_these_values(kind):
    """Steps and fused calls alike, for each parameter alone and for all of them."""
    transition, path = KINDS[kind](), path_of(KINDS[kind]())
    before = {name: value.detach().clone() for name, value in transition.named_parameters()}
    for names in [*([name] for name in before), list(before)]:
        values = {name: torch.randn_like(before[name]) for name in names}
        twin, wanted = transition.given(values), KINDS[kind]()
        wanted.load_state_dict({**transition.state_dict(), **values})
        assert twin.log_prob(path).allclose(wanted.log_prob(path))
        assert first_step(twin).allclose(first_step(wanted))
    after = dict(transition.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def first_step(transition):
    predicted = transition.stepper()(None, transition.initial_state((2,)), 0)[0]
    return predicted if isinstance(predicted, torch.Tensor) else predicted[0]


def test_gradients_reach_the_values():
    transition, path = LSTMTransition(3, 4), torch.randint(3, (2, 5))
    values = {
        name: torch.randn_like(value).requires_grad_()
        for name, value in transition.named_parameters()
    }
    transition.given(values).log_prob(path).sum().backward()
    assert all(value.grad is not None for value in values.values())
    assert all(value.grad is None for value in transition.parameters())


@pytest.mark.parametrize("wrong", [{"head": torch.zeros(3, 4)}, {"head.weight": torch.ones(4, 3)}])
def test_names_and_shapes_are_checked(wrong):
    with pytest.raises(
        ValueError, match=r"LSTMTransition.given: head.* of shape \(., .\), expected"
    ):
        LSTMTransition(3, 4).given(wrong)


DROPPED = {
    "lstm": LSTMTransition(3, 4, dropout=0.25),
    "mlstm": MultiplicativeLSTMTransition(3, 4, dropout=0.25),
    "gaussian": GaussianLSTMTransition(2, 4, dropout=0.25),
    "product": ProductTransition([LSTMTransition(2, 4, dropout=0.25), MarkovTransition(2)]),
}


@pytest.mark.parametrize("kind", DROPPED)
def test_weights_are_drawn_as_dropout_has_them(kind):
    """Each unit's column of W is 0 or W / (1 - dropout), one draw for steps and fused calls."""
    transition = DROPPED[kind].double().eval()
    (name,) = (name for name, _ in transition.named_parameters() if name.endswith("head.weight"))
    W, met = transition.get_parameter(name).detach().clone(), set()
    for _ in range(20):
        twin = at_drawn_weights(transition)
        drawn = twin.get_submodule(name.removesuffix(".weight")).weight
        kept = drawn.abs().sum(0) > 0
        assert drawn.equal(torch.where(kept, W * (1.0 / 0.75), 0.0))
        assert not drawn.requires_grad
        met.add(tuple(kept.tolist()))
        path, wanted = path_of(transition), transition.given({name: drawn})
        assert twin.log_prob(path).equal(wanted.log_prob(path))
        assert first_step(twin).equal(first_step(wanted))
    assert len(met) > 3
    assert transition.get_parameter(name).equal(W)


@pytest.mark.parametrize(
    "transition",
    [
        LSTMTransition(3, 4),
        MarkovTransition(3),
        LSTMTransition(3, 4, dropout=0.5).given({"head.weight": torch.ones(3, 4)}),
    ],
)
def test_where_no_weight_has_a_distribution_there_is_nothing_to_draw(transition):
    assert at_drawn_weights(transition) is transition


class Shifted(DiscreteTransition):
    """An LSTM with logits of its own beside it, which have a distribution too."""

    def __init__(self):
        super().__init__(3)
        self.lstm = LSTMTransition(3, 4, dropout=0.5)
        self.shift = torch.nn.Parameter(torch.zeros(3))

    def initial_state(self, batch_shape):
        return self.lstm.initial_state(batch_shape)

    def step_logits(self, z_prev, state, inputs=None):
        logits, state = self.lstm.step_logits(z_prev, state)
        return logits + self.shift, state

    def draw_weights(self):
        return {"shift": torch.arange(3.0)}


def test_weights_of_a_transition_and_of_one_within_it_are_drawn():
    transition = Shifted().eval()
    twin = at_drawn_weights(transition)
    assert twin.shift.tolist() == [0.0, 1.0, 2.0] and not transition.shift.any()
    values = {"shift": twin.shift, "lstm.head.weight": twin.lstm.head.weight}
    path = torch.randint(3, (2, 5))
    assert twin.log_prob(path).equal(transition.given(values).log_prob(path))
    assert not twin.lstm.head.weight.equal(transition.lstm.head.weight)
