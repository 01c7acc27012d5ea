"""The Markov transition: the contract, and what is its own."""

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import MarkovTransition
from pyro_ssl.testing import TransitionContract


class TestMarkov(TransitionContract):
    def make(self, num_states=3):
        chain = MarkovTransition(num_states)
        for parameter in chain.parameters():
            torch.nn.init.normal_(parameter)
        return chain


class TestMarkovGivenProbabilities(TransitionContract):
    def make(self, num_states=3):
        rows = dist.Dirichlet(torch.ones(num_states)).sample((num_states + 1,))
        return MarkovTransition(num_states, initial=rows[0], matrix=rows[1:])


def chain_and_law(K=3):
    rows = dist.Dirichlet(torch.ones(K)).sample((K + 1,))
    return MarkovTransition(K, initial=rows[0], matrix=rows[1:]), rows[0], rows[1:]


def test_equals_the_probabilities_it_was_given():
    chain, initial, matrix = chain_and_law()
    z = torch.tensor([2, 0, 1])
    expected = torch.stack([initial[2], matrix[2, 0], matrix[0, 1]]).log()
    torch.testing.assert_close(chain.log_prob(z), expected)


def test_equals_pyros_discrete_hmm():
    _, before, matrix = chain_and_law()
    chain = MarkovTransition(3, initial=before @ matrix, matrix=matrix)
    emission = dist.Categorical(dist.Dirichlet(torch.ones(4)).sample((3,)))
    x = torch.randint(4, (5,))
    hmm = dist.DiscreteHMM(before.log(), matrix.log(), emission)  # p(z_0), before the data
    paths = torch.cartesian_prod(*[torch.arange(3)] * 5)
    log_joint = chain.log_prob(paths).sum(-1) + emission.logits.log_softmax(-1)[paths, x].sum(-1)
    torch.testing.assert_close(log_joint.logsumexp(0), hmm.log_prob(x))


def test_gradient_reaches_probabilities_that_were_given():
    rows = torch.full((4, 3), 1 / 3, requires_grad=True)
    chain = MarkovTransition(3, initial=rows[0], matrix=rows[1:])
    chain.log_prob(torch.tensor([0, 1, 1])).sum().backward()
    assert rows.grad[0].any() and rows.grad[1:].any()


@pytest.mark.parametrize("given", [{"initial": torch.ones(2)}, {"matrix": torch.ones(3, 2)}])
def test_refuses_wrong_shapes(given):
    with pytest.raises(ValueError, match=r"has shape \(.*\), expected \(3,.*write Markov"):
        MarkovTransition(3, **given)
