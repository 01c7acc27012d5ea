"""The oracles agree with each other, with brute force, and with Pyro's own HMM."""

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import MarkovTransition
from pyro_ssl.exact import (
    enumerate_paths,
    markov_filter,
    markov_log_likelihood,
    markov_marginals,
    sample_markov_paths,
)
from pyro_ssl.steps import steps_within
from tests.statistics import ALPHA, chi_square, p_value, random_problem

SHAPES = [(1, 1), (1, 3), (2, 1), (2, 6), (3, 4), (4, 5)]  # K, T


def hmm(K, T, ragged=False):
    """A random HMM with its data, and its arguments to the exact algorithms."""
    problem = random_problem(K, T, kind="markov", ragged=ragged)
    initial = problem.transition.initial_logits.detach().softmax(-1)
    matrix = problem.transition.transition_logits.detach().softmax(-1)
    return problem, (initial, matrix, problem.log_emission, problem.lengths)


def active(problem):
    T, S, _ = problem.log_emission.shape
    lengths = torch.full((S,), T) if problem.lengths is None else problem.lengths
    return torch.arange(T)[:, None] < lengths  # (T, S)


def brute_force_marginals(problem):
    posterior = problem.log_joint().softmax(-1)  # (S, N)
    K = problem.log_emission.shape[-1]
    one_hot = torch.nn.functional.one_hot(problem.paths(), K).to(posterior.dtype)  # (N, T, K)
    return torch.einsum("sn,ntk->tsk", posterior, one_hot)


@pytest.mark.parametrize("K, T", SHAPES)
@pytest.mark.parametrize("kind", ["lstm", "markov"])
@pytest.mark.parametrize("ragged, inputs", [(False, False), (True, False), (True, True)])
def test_enumeration_is_brute_force(kind, K, T, ragged, inputs):
    problem = random_problem(K, T, kind=kind, ragged=ragged, inputs=inputs and kind == "lstm")
    arguments = problem.repeat(1)
    del arguments["transition_scale"]
    log_emission = arguments.pop("emission").table
    found = enumerate_paths(log_emission=log_emission, **arguments)
    log_joint = problem.log_joint()
    assert found.paths.equal(problem.paths())
    assert torch.allclose(found.log_joint, log_joint, rtol=1e-11, atol=1e-11)
    assert torch.allclose(found.log_evidence, log_joint.logsumexp(-1), rtol=1e-11, atol=1e-11)
    assert torch.allclose(found.posterior.sum(-1), torch.ones(log_joint.shape[0]))
    assert found.index(found.paths).equal(torch.arange(K**T))


def test_enumeration_with_inputs_that_differ_by_sequence():
    problem = random_problem(2, 3, ragged=True, inputs=True)
    both = enumerate_paths(problem.transition, problem.log_emission, inputs=problem.inputs)
    for s in range(2):
        alone = enumerate_paths(
            problem.transition, problem.log_emission[:, [s]], inputs=problem.inputs[:, [s]]
        )
        assert torch.allclose(both.log_joint[s], alone.log_joint[0], rtol=1e-12, atol=1e-12)


def test_too_many_paths_are_refused():
    with pytest.raises(ValueError, match="10\\^7 paths are too many"):
        enumerate_paths(random_problem(10, 1).transition, torch.zeros(7, 1, 10))


@pytest.mark.parametrize("K, T", SHAPES)
@pytest.mark.parametrize("ragged", [False, True])
def test_forward_algorithm_is_enumeration(K, T, ragged):
    problem, arguments = hmm(K, T, ragged)
    log_likelihood = markov_log_likelihood(*arguments)
    evidence = problem.log_joint().logsumexp(-1)
    assert torch.allclose(log_likelihood.sum(0), evidence, rtol=1e-11, atol=1e-11)
    assert (log_likelihood[~active(problem)] == 0).all()
    for t in range(1, T):  # each term is log p(x_t | x_{1:t-1}): the evidence of x_{1:t}, less
        start = problem._replace(log_emission=problem.log_emission[:t], lengths=None)
        sofar = start.log_joint().logsumexp(-1)
        upto = log_likelihood[:t].sum(0)
        within = active(problem)[t - 1]
        assert torch.allclose(upto[within], sofar[within], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("K, T", SHAPES)
@pytest.mark.parametrize("ragged", [False, True])
def test_filter_is_the_last_marginal_of_a_prefix(K, T, ragged):
    problem, arguments = hmm(K, T, ragged)
    belief, log_likelihood = markov_filter(*arguments)
    assert torch.equal(log_likelihood, markov_log_likelihood(*arguments))
    for t in range(1, T + 1):
        start = problem._replace(log_emission=problem.log_emission[:t], lengths=None)
        within = active(problem)[t - 1]
        expected = brute_force_marginals(start)[-1]
        assert torch.allclose(belief[t - 1, within], expected[within], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("K, T", SHAPES)
@pytest.mark.parametrize("ragged", [False, True])
def test_marginals_are_enumeration(K, T, ragged):
    problem, arguments = hmm(K, T, ragged)
    within = active(problem)
    expected = brute_force_marginals(problem)
    found = markov_marginals(*arguments)
    assert torch.allclose(found[within], expected[within], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("K, T", SHAPES)
@pytest.mark.parametrize("ragged", [False, True])
def test_gradient_of_the_evidence_is_the_marginals(K, T, ragged):
    problem, arguments = hmm(K, T, ragged)
    initial, matrix, log_emission, lengths = arguments
    log_emission = log_emission.clone().requires_grad_()
    markov_log_likelihood(initial, matrix, log_emission, lengths).sum().backward()
    within = active(problem)
    marginals = markov_marginals(*arguments)
    assert torch.allclose(log_emission.grad[within], marginals[within], rtol=1e-8, atol=1e-10)
    assert (log_emission.grad[~within] == 0).all()


def test_gradient_in_the_matrix_is_the_expected_transitions():
    problem, (initial, matrix, log_emission, _) = hmm(3, 4)
    log_matrix = matrix.log().requires_grad_()
    markov_log_likelihood(initial, log_matrix.exp(), log_emission).sum().backward()
    posterior, paths = problem.log_joint()[0].softmax(-1), problem.paths()
    pairs = (paths[:, :-1] * 3 + paths[:, 1:]).T  # (T-1, N)
    expected = sum(torch.bincount(pair, posterior, minlength=9) for pair in pairs).reshape(3, 3)
    assert torch.allclose(log_matrix.grad, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("K, T", [(2, 5), (4, 30)])
def test_log_likelihood_is_pyros_hmm(K, T):
    """Pyro's chain makes a transition before its first observation: to p(z_1), from anywhere."""
    torch.manual_seed(torch.initial_seed() + K)
    initial = dist.Dirichlet(torch.ones(K)).sample()
    matrix = dist.Dirichlet(torch.ones(K, K)).sample()
    phi = dist.Dirichlet(torch.ones(K, 7)).sample()
    x = torch.randint(7, (T, 3))
    pyros = dist.DiscreteHMM(
        torch.zeros(K),
        torch.cat([initial.expand(1, K, K), matrix.expand(T - 1, K, K)]).log(),
        dist.Categorical(phi),
    )
    log_emission = phi.log()[:, x].permute(1, 2, 0)
    ours = markov_log_likelihood(initial, matrix, log_emission).sum(0)
    assert torch.allclose(ours, pyros.log_prob(x.T), rtol=1e-11, atol=1e-11)


def test_states_that_cannot_be_reached():
    """Zeros in the matrix and the emission: no NaN, and the one possible path."""
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    arguments = torch.tensor([1.0, 0.0]), matrix, torch.zeros(5, 2, 2)
    path = torch.tensor([0, 1, 0, 1, 0])
    expected = torch.nn.functional.one_hot(path, 2).to(matrix).unsqueeze(1).expand(-1, 2, -1)
    assert markov_marginals(*arguments).equal(expected.contiguous())
    assert sample_markov_paths(*arguments).equal(path.unsqueeze(1).expand(-1, 2).contiguous())
    assert (markov_log_likelihood(*arguments) == 0).all()


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("K, T", [(2, 5), (3, 4)])
def test_sampled_paths_are_posterior_draws(K, T, ragged):
    torch.manual_seed(torch.initial_seed() + K)
    problem, _ = hmm(K, T, ragged)
    n, S = 50_000, problem.log_emission.shape[1]
    many = problem.repeat(n)
    initial = problem.transition.initial_logits.detach().softmax(-1)
    matrix = problem.transition.transition_logits.detach().softmax(-1)
    z = sample_markov_paths(initial, matrix, many["emission"].table, many["lengths"])
    index = problem.index(z).reshape(n, S)
    for s, posterior in enumerate(problem.log_joint().softmax(-1)):
        assert p_value([chi_square(index[:, s].bincount(minlength=K**T), posterior)]) > ALPHA


# ------------------------------------------------------------------- where probabilities underflow


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 5, 4, 6])])
def test_hard_zeros_and_outliers_have_finite_answers(dtype, lengths):
    """A left-to-right chain meets what only states out of its reach explain."""
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], dtype=dtype)
    initial = torch.tensor([1.0, 0.0, 0.0], dtype=dtype)
    loc = torch.tensor([0.0, 5.0, 10.0], dtype=dtype)
    x = torch.tensor([0.0, 0.0, 5.0, 5.0, 10.0, 10.0], dtype=dtype)[:, None].repeat(1, 4)
    x[0, 0], x[3, 1] = 10.0, -300.0
    table = -0.5 * ((x.unsqueeze(-1) - loc) / 0.3).square()
    chain = MarkovTransition(3, initial=initial, matrix=matrix)
    exact = enumerate_paths(chain, table, lengths=lengths)
    wanted = (table.requires_grad_(), matrix.requires_grad_())
    log_p = markov_log_likelihood(initial, matrix, table, lengths)
    torch.testing.assert_close(log_p.sum(0), exact.log_evidence, rtol=1e-5, atol=1e-4)
    assert exact.log_evidence[0] < -500
    within = torch.ones(6, 4, dtype=torch.bool) if lengths is None else steps_within(lengths, 6)
    one_hot = torch.nn.functional.one_hot(exact.paths, 3).to(dtype)
    marginals = torch.einsum("bn,ntk->tbk", exact.posterior, one_hot)[within].detach()
    found = markov_marginals(initial, matrix, table, lengths)[within]
    torch.testing.assert_close(found, marginals, rtol=0, atol=1e-5)
    gradient, moves = torch.autograd.grad(log_p.sum(), wanted)
    torch.testing.assert_close(gradient[within], marginals, rtol=0, atol=1e-5)
    assert moves.isfinite().all()
    path = sample_markov_paths(initial, matrix, table.detach(), lengths)
    drawn = table.detach().gather(-1, path.unsqueeze(-1)).squeeze(-1)
    assert (drawn[within] > -2e6).all() and (path.diff(dim=0)[within[1:]] >= 0).all()


def test_what_is_impossible_has_evidence_zero():
    table = torch.zeros(3, 2, 2)
    table[1, 0] = -torch.inf
    found = markov_log_likelihood(torch.ones(2) / 2, torch.ones(2, 2) / 2, table)
    assert found[1, 0] == -torch.inf and found[:, 1].isfinite().all()
