"""The lowest level at its edges: padding, sequences that cannot be, sizes of 0 and 1."""

import math

import pytest
import torch

from pyro_ssl import exact, smc
from pyro_ssl import transitions as tr

INITIAL, STUCK = torch.tensor([1.0, 0.0]), torch.eye(2)
NOISE = 0.9 * torch.eye(2) + 0.05


def chain(matrix=NOISE):
    initial, matrix = INITIAL.double(), matrix.double()
    return initial, matrix / matrix.sum(-1, keepdim=True)


def impossible():
    """State 0 alone is reached, and at step 1 of the second sequence only state 1 explains x."""
    table = torch.zeros(3, 2, 2)
    table[1, 1, 0] = -math.inf
    return table


# ------------------------------------------------------------------------------------ padding


@pytest.mark.parametrize("padding", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_padding_is_never_read(padding, dtype):
    lengths = torch.tensor([4, 2, 0], dtype=dtype)
    table = torch.randn(4, 3, 2)
    past = (torch.arange(4)[:, None] >= lengths).unsqueeze(-1)
    results = []
    for value in (0.0, padding):
        given = table.masked_fill(past, value).requires_grad_()
        log_p = exact.markov_log_likelihood(*chain(), given, lengths)
        log_p.sum().backward()
        marginals = exact.markov_marginals(*chain(), given, lengths).masked_fill(past, 0.0)
        torch.manual_seed(0)
        path = exact.sample_markov_paths(*chain(), given, lengths)
        transition = tr.MarkovTransition(2, initial=chain()[0], matrix=chain()[1])
        joint = exact.enumerate_paths(transition, given.detach(), lengths=lengths).log_evidence
        results.append((log_p.detach(), given.grad, marginals, path, joint))
    for one, other in zip(*results, strict=True):
        assert one.isfinite().all() and torch.equal(one, other)
    torch.testing.assert_close(results[0][0].sum(0), results[0][4])


def test_kalman_reads_no_padding():
    linear = tr.LinearGaussianTransition(2)
    emission = exact.LinearEmission(torch.ones(1, 2), torch.zeros(1), torch.eye(1))
    x, lengths = torch.randn(4, 3, 1), torch.tensor([4, 2, 0])
    x[2:, 1:] = math.nan
    found = exact.kalman_filter(linear, emission, x, lengths=lengths)
    masked = exact.kalman_filter(linear, emission, x, mask=torch.arange(4)[:, None] < lengths)
    assert found.mean.isfinite().all()
    assert torch.equal(found.log_likelihood[:2, :2], masked.log_likelihood[:2, :2])


# -------------------------------------------------------------------- what has probability 0


def test_from_an_impossible_observation_on_nothing_is_known():
    belief, log_p = exact.markov_filter(*chain(STUCK), impossible())
    assert log_p[:, 1].tolist() == [0.0, -math.inf, -math.inf]
    assert belief[1:, 1].isnan().all() and belief[0, 1].tolist() == [1.0, 0.0]
    assert log_p[:, 0].abs().max() == 0.0 and belief[:, 0].isfinite().all()
    transition = tr.MarkovTransition(2, initial=chain()[0], matrix=STUCK.double())
    assert exact.enumerate_paths(transition, impossible()).log_evidence.tolist() == [0, -math.inf]


@pytest.mark.parametrize("function", [exact.markov_marginals, exact.sample_markov_paths])
def test_an_impossible_sequence_has_no_posterior(function):
    message = "1 sequences have probability 0 under the chain, the first at step 1; expected a sta"
    with pytest.raises(ValueError, match=message):
        function(*chain(STUCK), impossible())
    lengths = torch.tensor([3, 1])
    assert function(*chain(STUCK), impossible(), lengths).isfinite().all()


# -------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("T, B, K", [(1, 1, 1), (1, 3, 2), (3, 1, 2), (3, 2, 1), (3, 0, 2)])
def test_exact_sizes(T, B, K):
    initial, matrix, table = torch.ones(K) / K, torch.ones(K, K) / K, torch.randn(T, B, K)
    expected = table.logsumexp(-1) - math.log(K)  # the states are independent
    torch.testing.assert_close(exact.markov_log_likelihood(initial, matrix, table), expected)
    torch.testing.assert_close(exact.markov_marginals(initial, matrix, table), table.softmax(-1))
    assert exact.sample_markov_paths(initial, matrix, table).shape == (T, B)
    transition = tr.MarkovTransition(K, initial=initial, matrix=matrix)
    found = exact.enumerate_paths(transition, table).log_evidence
    torch.testing.assert_close(found, expected.sum(0))


@pytest.mark.parametrize("T, B, P", [(1, 1, 1), (1, 2, 3), (3, 1, 1), (3, 0, 2), (0, 2, 2)])
@pytest.mark.parametrize("K", [1, 2])
def test_sweep_sizes(T, B, P, K):
    """With one state, or independent ones, particles agree on the evidence."""
    transition = tr.MarkovTransition(K)
    table = torch.randn(T, B, K)
    sweep = smc.conditional_smc(transition, smc.TableEmission(table), P)
    torch.testing.assert_close(sweep.log_likelihood, table.logsumexp(-1) - math.log(K))
    again = smc.conditional_smc(
        transition, smc.TableEmission(table), P, sweep.path, ancestor_sampling=1
    )
    assert again.path.shape == (T, B)
    assert P > 1 or torch.equal(again.path, sweep.path)
    future = smc.roll_out(transition, sweep, 2)
    assert future.paths.shape == (2, B, P)
    assert torch.equal(future.state_probs, torch.full((2, B, K), 1 / K))


@pytest.mark.parametrize("T, B", [(0, 2), (1, 1), (3, 0)])
def test_paths_of_any_size(T, B):
    for transition in (
        *(tr.LSTMTransition(1, 1), tr.MarkovTransition(2), tr.LinearGaussianTransition(1)),
        *(tr.GaussianLSTMTransition(1, 1), tr.GaussianLSTMTransition(4, 1, residual=True)),
    ):
        p = tr.PathDistribution(transition, T, batch_shape=(B,))
        z = p.sample((2,))
        assert z.shape == (2, B, T, *transition.event_shape)
        assert p.log_prob(z).shape == (2, B)
        assert transition.log_prob(z).shape == (2, B, T)
