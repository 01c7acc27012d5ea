"""A gate made from an HMM is its posterior given the last state, and ``FilterRNN`` its filter."""

import itertools

import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F

from pyro_ssl import MarkovTransition
from pyro_ssl.belief import (
    FilterRNN,
    GateRNN,
    exact_filter,
    from_hmm,
    linear_gap,
    stationary_distribution,
)
from pyro_ssl.belief.filter import GateState
from pyro_ssl.exact.chains import enumerate_paths
from pyro_ssl.transitions import RecurrentTransition


def random_hmm(K, V):
    matrix = dist.Dirichlet(torch.ones(K, K)).sample()
    emission = dist.Dirichlet(torch.ones(K, V)).sample()
    return matrix, emission


def brute_force(matrix, emission, initial, y):
    """p(s_t | y_{1:t}) by summing over all paths of each prefix."""
    chain = MarkovTransition(len(matrix), initial=initial, matrix=matrix)
    out = []
    for t in range(1, len(y) + 1):
        all_paths = enumerate_paths(chain, emission.T.log()[y[:t]])
        last = F.one_hot(all_paths.paths[:, -1], len(matrix)).to(matrix.dtype)
        out.append(all_paths.posterior @ last)
    return torch.stack(out)


def test_gate_is_the_exact_posterior_given_the_last_state():
    for _ in range(20):
        V = 5
        matrix, emission = random_hmm(2, V)
        gate = from_hmm(matrix, emission)
        for last, v in itertools.product(range(2), range(V)):
            joint = matrix[last] * emission[:, v]
            evidence = gate.project(F.one_hot(torch.tensor(v), V).to(matrix))
            found = gate.advance(evidence, GateState(torch.tensor([float(last)]))).h
            assert abs(found.item() - float(joint[1] / joint.sum())) < 1e-12


@pytest.mark.parametrize("initial", [None, torch.tensor([0.05, 0.95])])
def test_gate_is_exact_at_the_first_step(initial):
    matrix, emission = random_hmm(2, 3)
    y = torch.tensor([[0, 1, 2]])
    found = from_hmm(matrix, emission, initial).sequence(F.one_hot(y, 3).to(matrix))[0]
    exact = exact_filter(matrix, emission, initial, y).filtered[..., 1:]
    assert torch.allclose(found, exact, atol=1e-12)


def test_gap_of_a_belief_is_zero_at_the_ends_and_not_between():
    matrix, emission = torch.tensor([[0.9, 0.1], [0.1, 0.9]]), random_hmm(2, 3)[1]
    gap = linear_gap(matrix, emission, num_points=11)
    assert gap.gap[[0, 5, 10]].abs().max() < 1e-12  # the middle, by symmetry
    h = 0.3
    exact = torch.tensor((0.1 * (1 - h) + 0.9 * h) / (0.9 * (1 - h) + 0.1 * h)).log()
    linear = (1 - 2 * h) * torch.tensor(0.1 / 0.9).log()
    assert torch.allclose(gap.gap[3], linear - exact, atol=1e-12)
    assert gap.gap[3].abs() > 0.2
    with pytest.raises(ValueError, match="no sequences were given; write"):
        _ = gap.path_kl


def test_gap_along_sequences():
    matrix, emission = (
        torch.tensor([[0.9, 0.1], [0.1, 0.9]]),
        torch.tensor([[0.7, 0.3], [0.2, 0.8]]),
    )
    y = torch.randint(2, (8, 5))
    gap = linear_gap(matrix, emission, y=y)
    exact = brute_force(matrix, emission, torch.tensor([0.5, 0.5]), y)[..., 1]
    assert torch.allclose(gap.exact_path, exact, atol=1e-12)
    assert gap.path_kl[0].abs().max() < 1e-12
    assert (gap.path_kl >= -1e-15).all() and gap.path_kl[1:].max() > 1e-3
    # Where the next state does not depend on the last, the gate is the filter.
    same = torch.tensor([[0.7, 0.3], [0.7, 0.3]])
    gap = linear_gap(same, emission, y=y)
    assert gap.gap.abs().max() < 1e-12 and gap.path_kl.abs().max() < 1e-12


@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_filter_network_is_the_filter(K):
    matrix, emission = random_hmm(K, 5)
    initial, y = dist.Dirichlet(torch.ones(K)).sample(), torch.randint(5, (6, 4))
    network = FilterRNN(matrix, emission, initial)
    h, last = network.sequence(F.one_hot(y, 5).to(matrix))
    exact = exact_filter(matrix, emission, initial, y)
    expected = brute_force(matrix, emission, initial, y)
    assert torch.allclose(h, expected, atol=1e-12)
    assert torch.allclose(exact.filtered, expected, atol=1e-12)
    assert torch.allclose(last.predicted, expected[-1] @ matrix, atol=1e-12)
    assert K == 2 or isinstance(from_hmm(matrix, emission), FilterRNN)


def test_filter_takes_zeros():
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    emission = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    chain = MarkovTransition(3, initial=stationary_distribution(matrix), matrix=matrix)
    z = torch.tensor([[0, 1, 2, 0, 0], [2, 0, 1, 1, 2]]).T
    assert chain.log_prob(z.T).isfinite().all()
    y = torch.tensor([0, 1, 0])[z]
    network = FilterRNN(matrix, emission)
    h = network.sequence(F.one_hot(y, 2).to(matrix))[0]
    assert torch.allclose(h, exact_filter(matrix, emission, None, y).filtered, atol=1e-12)


def test_predictions_are_of_the_next_symbol():
    matrix, emission = random_hmm(3, 4)
    y, lengths = torch.randint(4, (6, 3)), torch.tensor([6, 2, 1])
    found = exact_filter(matrix, emission, None, y)
    assert torch.allclose(found.log_predictive.exp().sum(-1), torch.ones(6, 3))
    own = found.log_predictive.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(own, found.log_likelihood, atol=1e-12)
    ragged = exact_filter(matrix, emission, None, y.index_fill(0, torch.tensor([5]), 0), lengths)
    assert torch.allclose(ragged.log_likelihood[:2, 1], found.log_likelihood[:2, 1], atol=1e-12)
    assert (ragged.log_likelihood[2:, 1] == 0).all()


def test_a_gate_is_a_cell():
    """Stepping, the samplers' stepper and the fused path agree, also from an h_0 other than 0."""
    cell = GateRNN(input_size=4, hidden_size=5)
    cell.start.copy_(torch.rand(5))
    transition = RecurrentTransition(3, cell)
    z = torch.randint(3, (2, 6))
    logits = transition.path_logits(z)
    state, rows, z_prev = transition.initial_state((2,)), transition.initial_state((2,)), None
    step = transition.stepper()
    for t in range(6):
        slow, state = transition.step_logits(z_prev, state)
        fast, rows = step(z_prev, rows, t)
        z_prev = z[:, t]
        assert torch.allclose(slow, logits[:, t], atol=1e-12)
        assert torch.allclose(fast, logits[:, t], atol=1e-12)


def test_stationary_distribution_stays():
    matrix = random_hmm(5, 2)[0]
    p = stationary_distribution(matrix)
    assert torch.allclose(p @ matrix, p, atol=1e-12) and (p > 0).all()
    assert torch.allclose(stationary_distribution(torch.eye(2)), torch.full((2,), 0.5))


def test_dtype_follows():
    matrix, emission = (rows.float() for rows in random_hmm(2, 3))
    gate = from_hmm(matrix, emission)
    assert {p.dtype for p in gate.state_dict().values()} == {torch.float32}
    assert exact_filter(matrix, emission, None, torch.zeros(2, 1).long()).filtered.dtype == (
        torch.float32
    )


def test_errors_teach():
    matrix, emission = random_hmm(2, 3)
    with pytest.raises(ValueError, match=r"expected \(K, K\), \(K, V\).*write emission.T"):
        from_hmm(matrix, emission.T)
    with pytest.raises(ValueError, match="matrix is no distribution.*write matrix = matrix /"):
        from_hmm(2 * matrix, emission)
    with pytest.raises(ValueError, match="probability of 0.*write FilterRNN"):
        from_hmm(torch.eye(2), emission)
    with pytest.raises(ValueError, match="rows of the matrix are the same.*leave initial out"):
        from_hmm(matrix[[0, 0]], emission, matrix[0].flip(0))
    with pytest.raises(ValueError, match="found 3 states, expected 2"):
        linear_gap(*random_hmm(3, 2))
    with pytest.raises(ValueError, match="symbols from 0 to 3, expected 0 to V - 1 = 2"):
        exact_filter(matrix, emission, None, torch.tensor([[0], [3]]))
    with pytest.raises(ValueError, match=r"int64 symbols \(T, B\).*words\[:, None\]"):
        exact_filter(matrix, emission, None, torch.tensor([0, 1]))
