"""Memory by lag, where it is known: Markov chains, copies, mixtures of lags, Gaussians."""

import itertools
from typing import NamedTuple

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import LSTMTransition, MarkovTransition
from pyro_ssl.belief import gaussian_total_variation, memory_horizon
from pyro_ssl.datasets import PlantedTransition
from pyro_ssl.errors import NonFiniteError
from pyro_ssl.testing import TransitionContract
from pyro_ssl.transitions import (
    DiscreteTransition,
    GaussianLSTMTransition,
    LinearGaussianTransition,
    Moments,
)
from tests.test_device import NoBareFactory


class Past(NamedTuple):
    """The last L latents as indicators, ``(..., L, K)``, the latest first; 0 before the first."""

    recent: torch.Tensor


class LagMixture(DiscreteTransition):
    """p(z_t = k | past) = Σ_l w_l [z_{t-l} = k] + rest / K (Raftery 1985)."""

    def __init__(self, num_states, weights):
        super().__init__(num_states)
        self.register_buffer("weights", torch.as_tensor(weights))

    def initial_state(self, batch_shape):
        return Past(self.weights.new_zeros(*batch_shape, len(self.weights), self.num_states))

    def step_logits(self, z_prev, state, inputs=None):
        recent = state.recent
        if z_prev is not None:
            now = torch.nn.functional.one_hot(z_prev, self.num_states).to(recent)
            recent = torch.cat([now.unsqueeze(-2), recent[..., :-1, :]], -2)
        p = (self.weights.unsqueeze(-1) * recent).sum(-2)
        rest = 1.0 - p.sum(-1, keepdim=True)  # also the weight of lags that reach before the start
        return (p + rest / self.num_states).log(), Past(recent)


class TestLagMixture(TransitionContract):
    def make(self, num_states=3):
        return LagMixture(num_states, [0.4, 0.0, 0.3])


def copy_process(lag, share=0.9, K=4):
    return LagMixture(K, torch.tensor([0.0] * (lag - 1) + [share]))


def markov(K=5):
    rows = dist.Dirichlet(torch.ones(K)).sample((K + 1,))
    return MarkovTransition(K, initial=rows[0], matrix=rows[1:]), rows[1:]


def test_markov_chain_has_horizon_one():
    chain, matrix = markov()
    found = memory_horizon(chain, max_lag=10, num_changes=4)
    assert found.horizon == 1
    assert found.tv[0] > 0.1 and not found.tv[1:].any()  # exactly 0
    # Given paths, all changes: the mean over z_s of the mean over other rows.
    z = torch.randint(5, (7, 13))
    found = memory_horizon(chain, z=z, max_lag=12, num_changes=4)  # one place: the first
    rows = (matrix[:, None] - matrix).abs().sum(-1) / 2
    torch.testing.assert_close(found.tv[0], (rows.sum(-1) / 4)[z[:, 0]].mean())


def test_copy_process_has_its_lag():
    found = memory_horizon(copy_process(8), max_lag=12)
    assert found.horizon == 8
    expected = torch.zeros(12).index_fill(0, torch.tensor([7]), 0.9)
    torch.testing.assert_close(found.tv, expected)
    torch.testing.assert_close(found.standard_error, torch.zeros(12), atol=1e-12, rtol=0)
    assert memory_horizon(copy_process(8), max_lag=8).horizon == 8
    assert memory_horizon(copy_process(8), max_lag=7).horizon == 0


def test_falls_off_as_the_mixture_does():
    weights = 0.5 ** torch.arange(1.0, 10.0)  # 1/2, 1/4, …, of which 1/128 < 0.01
    found = memory_horizon(LagMixture(3, weights), max_lag=14)
    torch.testing.assert_close(found.tv[:9], weights)
    assert (found.tv[9:] < 1e-12).all() and found.horizon == 6
    assert memory_horizon(LagMixture(3, weights), max_lag=14, threshold=0.1).horizon == 3


def planted_by_enumeration(transition, T):
    """Mean total variation by lag over all paths and all changes of z_1, by Bayes' rule alone."""
    K, tv = transition.num_states, torch.zeros(T - 1)
    paths = torch.tensor(list(itertools.product(range(K), repeat=T)))
    p_path = transition.log_prob(paths).sum(-1).exp()
    for path, p in zip(paths, p_path, strict=True):
        for lag in range(1, T):
            given = []  # p(z_t | z_{1:t-1}) for each z_1
            for first in range(K):
                prefix = torch.cat([torch.tensor([first]), path[1:lag]])
                ends = torch.cat([prefix.expand(K, -1), torch.arange(K)[:, None]], 1)
                joint = transition.log_prob(ends).sum(-1).exp()
                given.append(joint / joint.sum())
            gaps = [(p_t - given[path[0]]).abs().sum() / 2 for p_t in given]
            tv[lag - 1] += p * sum(gaps) / (K - 1)
    return tv


def test_planted_memory_equals_enumeration():
    """4 standard errors at 3 lags: a false alarm in 5,000."""
    transition = PlantedTransition(2, 1, cue_probability=0.4)
    exact = planted_by_enumeration(transition, 4)
    found = memory_horizon(transition, max_lag=3, length=4, num_paths=2000)
    assert ((found.tv - exact).abs() < 4 * found.standard_error).all()
    assert (found.standard_error < 0.01).all() and found.horizon == 3 and (exact > 0.05).all()


def test_paths_that_are_given():
    transition = copy_process(2)
    z, lengths = torch.randint(4, (6, 9)), torch.tensor([9, 4, 9, 2, 9, 9])
    found = memory_horizon(transition, z=z, max_lag=4, lengths=lengths)
    torch.testing.assert_close(found.tv, torch.tensor([0.0, 0.9, 0.0, 0.0]))
    # Values past the lengths change nothing.
    lstm, padding = LSTMTransition(4, 6), torch.arange(9) >= lengths[:, None]
    kept = []
    for other in (0, 3):
        torch.manual_seed(0)
        kept.append(
            memory_horizon(lstm, z=z.masked_fill(padding, other), max_lag=4, lengths=lengths)
        )
    assert torch.equal(kept[0].tv, kept[1].tv)
    # A path of one step predicts nothing.
    chain, matrix = markov(4)
    lengths = torch.tensor([1, 9])
    found = memory_horizon(chain, z=z[:2], max_lag=8, lengths=lengths, num_changes=3)
    others = (matrix[z[1, 0]] - matrix).abs().sum(-1) / 2
    torch.testing.assert_close(found.tv[0], others.sum() / 3)
    one = memory_horizon(transition, z=z[:1], max_lag=4)
    assert one.tv[1] == pytest.approx(0.9) and one.standard_error.isnan().all()


def test_inputs():
    lstm = LSTMTransition(3, 6, input_size=2)
    u = torch.randn(20, 12, 2)
    drawn = memory_horizon(lstm, inputs=u, max_lag=5)
    assert drawn.tv.shape == (5,) and (drawn.tv > 0).all()
    given = memory_horizon(lstm, z=torch.randint(3, (20, 12)), inputs=u, max_lag=5)
    assert (given.tv > 0).all()


def test_dtype_and_device_follow(device):
    chain = LinearGaussianTransition(2)
    for transition in (LSTMTransition(3, 4), PlantedTransition(2, 1), chain):
        with NoBareFactory():
            found = memory_horizon(transition.float().to(device), max_lag=3, num_paths=5)
        assert found.tv.dtype == found.standard_error.dtype == torch.float32
        assert {value.device.type for value in found[:3]} == {device.type}


def test_an_lstm_that_does_not_read_latents_has_no_memory():
    lstm = LSTMTransition(3, 6, dropout=0.5).train()
    with torch.no_grad():
        lstm.cell.lstm.weight_ih_l0.zero_()
    found = memory_horizon(lstm, max_lag=5)
    assert not found.tv.any() and found.horizon == 0  # with dropout they would differ
    assert lstm.training and lstm.dropout.training


def test_gaussian_chain():
    a, q = 0.8, 0.5
    chain = LinearGaussianTransition(1, matrix=torch.tensor([[a]]), scale=torch.tensor([q]))
    found = memory_horizon(chain, max_lag=5, change=2.0, length=30)
    # After the first step z_s has scale q, so that the mean moves by 2 a q: 2Φ(a) - 1. At the
    # first the scale is 1.
    z = torch.randn(4, 7, 1)
    first = memory_horizon(chain, z=z, max_lag=6, change=2.0)
    assert float(first.tv[0]) == pytest.approx(
        2 * float(torch.special.ndtr(torch.tensor(a / q))) - 1
    )
    normal = 2 * float(torch.special.ndtr(torch.tensor(a))) - 1
    assert float(found.tv[0]) == pytest.approx((7 * normal + float(first.tv[0])) / 8)
    assert not found.tv[1:].any() and found.horizon == 1


def test_vectors():
    chain = LinearGaussianTransition(3, matrix=0.9 * torch.eye(3), scale=torch.ones(3))
    found = memory_horizon(chain, max_lag=4)  # moved by 1 in each coordinate, times 0.9
    expected = 2 * torch.special.ndtr(torch.tensor(0.9 * 3**0.5 / 2)) - 1
    torch.testing.assert_close(found.tv[0], expected)
    assert not found.tv[1:].any()
    # Coordinates move up or down, each by itself: their sum moves at half of the places, by 2. A
    # false alarm in 16,000, at 4 standard errors of 1,000 coins for each of 8 places.
    chain = LinearGaussianTransition(2, matrix=torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    found = memory_horizon(chain, max_lag=2, num_paths=1000)
    moved = 2 * torch.special.ndtr(torch.tensor(1.0)) - 1
    assert abs(found.tv[0] - moved / 2) < 4 * moved / 2 / 8000**0.5
    recurrent = memory_horizon(GaussianLSTMTransition(2, 5), max_lag=4)
    assert ((recurrent.tv > 0) & (recurrent.tv < 1)).all()


@pytest.mark.parametrize("ratio", [0.2, 0.999, 1.0, 1.001, 3.0])
@pytest.mark.parametrize("distance", [-2.0, 0.0, 0.01, 5.0])
def test_total_variation_of_normals(distance, ratio):
    p = Moments(torch.tensor([1.0]), torch.tensor([0.5]))
    q = Moments(p.mean + distance * p.scale, ratio * p.scale)
    grid = torch.linspace(-30, 30, 600_001)
    densities = [dist.Normal(*moments).log_prob(grid).exp() for moments in (p, q)]
    expected = torch.trapezoid((densities[0] - densities[1]).abs(), grid) / 2
    torch.testing.assert_close(gaussian_total_variation(p, q), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(gaussian_total_variation(q, p), expected, rtol=0, atol=1e-7)


def test_total_variation_of_vectors():
    p = Moments(torch.zeros(2), torch.ones(2))
    assert gaussian_total_variation(p, p) == 0.0
    # In one coordinate alone, where it is exact: 4 standard errors of 100,000 draws in [0, 1].
    q = Moments(torch.tensor([1.0, 0.0]), torch.tensor([0.7, 1.0]))
    exact = gaussian_total_variation(Moments(*(m[:1] for m in p)), Moments(*(m[:1] for m in q)))
    found = gaussian_total_variation(p, q, num_draws=100_000)
    assert abs(float(found - exact)) < 4 * 0.5 / 100_000**0.5


def test_errors_teach():
    with pytest.raises(ValueError, match="2 paths of up to 5 steps for max_lag=5.*write max_lag=4"):
        memory_horizon(markov()[0], z=torch.zeros(2, 5).long(), max_lag=5)
    with pytest.raises(ValueError, match="num_changes is 5, expected from 1 to K - 1 = 4"):
        memory_horizon(markov()[0], num_changes=5)
    with pytest.raises(NonFiniteError, match="the changed path is one that the transition holds"):
        torch.manual_seed(0)
        memory_horizon(Impossible(3), max_lag=2)


class Impossible(LagMixture):
    """A chain whose only possible path is 0, 0, 0, …: another has no prediction."""

    def __init__(self, num_states):
        super().__init__(num_states, [1.0])

    def step_logits(self, z_prev, state, inputs=None):
        _, state = super().step_logits(z_prev, state)
        only = torch.tensor([0.0, *[-torch.inf] * (self.num_states - 1)])
        left = state.recent[..., 1:].any(-1).any(-1, keepdim=True)
        return torch.where(left, -torch.inf, only), state
