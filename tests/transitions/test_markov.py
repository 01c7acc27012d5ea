"""The Markov transition: the contract, and what is its own."""

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import MarkovTransition
from pyro_ssl.exact.chains import enumerate_paths
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


class TestMarkovWithInputs(TransitionContract):
    def make(self, num_states=3):
        chain = MarkovTransition(num_states, input_size=2)
        for parameter in chain.parameters():
            torch.nn.init.normal_(parameter)
        return chain


class TestMarkovOfGivenProbabilitiesWithInputs(TransitionContract):
    def make(self, num_states=3):
        rows = dist.Dirichlet(torch.ones(num_states)).sample((num_states + 1,))
        chain = MarkovTransition(num_states, initial=rows[0], matrix=rows[1:], input_size=1)
        torch.nn.init.normal_(chain.input_weight)
        return chain


def chain_and_rows(K=3):
    rows = dist.Dirichlet(torch.ones(K)).sample((K + 1,))
    return MarkovTransition(K, initial=rows[0], matrix=rows[1:]), rows[0], rows[1:]


def test_equals_the_probabilities_it_was_given():
    chain, initial, matrix = chain_and_rows()
    z = torch.tensor([2, 0, 1])
    expected = torch.stack([initial[2], matrix[2, 0], matrix[0, 1]]).log()
    torch.testing.assert_close(chain.log_prob(z), expected)


def test_equals_pyros_discrete_hmm():
    _, before, matrix = chain_and_rows()
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


def test_inputs_tilt_the_rows():
    _, initial, matrix = chain_and_rows()
    chain = MarkovTransition(3, initial=initial, matrix=matrix, input_size=2)
    z, u = torch.tensor([2, 0, 1]), torch.randn(3, 2)
    plain = MarkovTransition(3, initial=initial, matrix=matrix)
    torch.testing.assert_close(chain.log_prob(z, u), plain.log_prob(z))  # U starts at 0
    torch.nn.init.normal_(chain.input_weight)
    rows = torch.stack([initial, matrix[2], matrix[0]]) * (u @ chain.input_weight.T).exp()
    expected = (rows / rows.sum(-1, keepdim=True))[torch.arange(3), z].log()
    torch.testing.assert_close(chain.log_prob(z, u), expected)


def test_exact_inference_takes_a_chain_with_inputs():
    """By enumeration, the exact evidence of a driven chain is that of time-varying matrices."""
    chain = MarkovTransition(2, input_size=1)
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter)
    u, log_emission = torch.randn(4, 1, 1), torch.randn(4, 1, 2)
    belief = (chain.initial_logits + u[0, 0] @ chain.input_weight.T).softmax(-1)
    evidence = torch.zeros(())
    for t in range(4):
        joint = belief * log_emission[t, 0].exp()
        evidence = evidence + joint.sum().log()
        if t < 3:
            rows = chain.transition_logits + u[t + 1, 0] @ chain.input_weight.T
            belief = joint / joint.sum() @ rows.softmax(-1)
    found = enumerate_paths(chain, log_emission, inputs=u).log_evidence
    torch.testing.assert_close(found[0], evidence.detach())


def test_refuses_inputs_it_does_not_read_and_asks_for_those_it_does():
    z = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="input_size=0 inputs, but inputs were given; write"):
        MarkovTransition(2).log_prob(z, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="input_size=1 inputs, but inputs were not given"):
        MarkovTransition(2, input_size=1).log_prob(z)
    with pytest.raises(ValueError, match="input_size is -1, expected"):
        MarkovTransition(2, input_size=-1)
