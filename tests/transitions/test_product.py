"""Several chains as one transition: the product of their probabilities."""

import itertools

import pytest
import torch

from pyro_ssl import LSTMTransition, MarkovTransition, MultiplicativeLSTMTransition
from pyro_ssl.smc.surrogate_product import along_states, fit_any_surrogate, from_sums
from pyro_ssl.testing import TransitionContract
from pyro_ssl.transitions import GaussianLSTMTransition, ProductState, ProductTransition, map_state


def markov(K, input_size=0):
    chain = MarkovTransition(K, input_size=input_size)
    for parameter in chain.parameters():
        parameter.data.normal_()
    return chain


class TestTwoChains(TransitionContract):
    def make(self, num_states=3):
        first, second = (2, 3) if num_states == 3 else (num_states, num_states)
        return ProductTransition([LSTMTransition(first, 4, input_size=2), markov(second)])


class TestThreeChainsThatReadInputs(TransitionContract):
    T = 3

    def make(self, num_states=3):
        a, b, c = (2, 3, 2) if num_states == 3 else (num_states,) * 3
        return ProductTransition(
            [markov(a, 1), MultiplicativeLSTMTransition(b, 3), LSTMTransition(c, 3, input_size=2)]
        )


def test_probabilities_are_products():
    """Of every pair, in the order that ``split`` and ``join`` have: the last runs fastest."""
    a, b = LSTMTransition(2, 4), markov(3)
    both = ProductTransition([a, b])
    pairs = list(itertools.product(range(2), range(3)))
    z = torch.arange(6)
    assert list(zip(*(part.tolist() for part in both.split(z)), strict=True)) == pairs
    assert torch.equal(both.join(both.split(z)), z)
    path_a, path_b = torch.randint(2, (5, 4)), torch.randint(3, (5, 4))
    expected = a.log_prob(path_a) + b.log_prob(path_b)
    torch.testing.assert_close(both.log_prob(both.join((path_a, path_b))), expected)
    logits = both.path_logits(both.join((path_a, path_b))).log_softmax(-1)
    by_hand = a.path_logits(path_a).log_softmax(-1)[..., [i for i, _ in pairs]]
    by_hand = by_hand + b.path_logits(path_b).log_softmax(-1)[..., [j for _, j in pairs]]
    torch.testing.assert_close(logits, by_hand)


def test_state_is_gathered_by_rows():
    state = ProductTransition([LSTMTransition(2, 4), LSTMTransition(2, 3)]).initial_state((5,))
    state = map_state(lambda s: s[:2], state)
    assert type(state) is ProductState
    assert [part.h.shape for part in state] == [(2, 4), (2, 3)]


@pytest.mark.parametrize("parts", [[], [GaussianLSTMTransition(2, 3)], [None]])
def test_what_is_no_chain_of_states_is_told(parts):
    with pytest.raises(TypeError, match="ProductTransition: .*expected .*write|Write"):
        ProductTransition(parts)


def test_training_mode_is_that_of_the_parts():
    parts = [LSTMTransition(2, 3).eval(), LSTMTransition(2, 3).eval()]
    assert not ProductTransition(parts).training and not parts[0].training


def test_markov_chains_are_their_own_surrogate():
    a, b = markov(2), markov(3)
    matrix = fit_any_surrogate(ProductTransition([a, b]), 5).matrix
    each = [chain.transition_logits.softmax(-1) for chain in (a, b)]
    torch.testing.assert_close(matrix, torch.kron(*each), atol=1e-5, rtol=0.0)


def test_surrogate_of_a_chain_with_inputs_has_a_matrix_for_each_step():
    both, inputs = ProductTransition([markov(2, 1), markov(3)]), torch.randn(4, 2, 1)
    matrix = fit_any_surrogate(both, 4, inputs=inputs).matrix
    assert matrix.shape == (4, 6, 6)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(4, 6))


def test_surrogate_along_paths_is_that_of_each_chain():
    a, b = LSTMTransition(2, 3), markov(3)
    both, path = ProductTransition([a, b]), torch.randint(6, (7, 4))
    found = from_sums(along_states(both, path, None, None)).matrix
    parts = [
        from_sums(along_states(part, z, None, None)).matrix
        for part, z in zip((a, b), both.split(path), strict=True)
    ]
    expected = torch.kron(*parts)
    torch.testing.assert_close(found, 0.98 * expected + 0.02 / 6)
