"""User-written transitions: nested states, no parameters, no tensors at all."""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_ssl import LSTMTransition, MarkovTransition, ssl_transition
from pyro_ssl.belief import memory_horizon
from pyro_ssl.cells import LSTMState
from pyro_ssl.testing import GaussianTransitionContract, TransitionContract, invariance_test
from pyro_ssl.transitions import (
    DiscreteTransition,
    GaussianLSTMTransition,
    GaussianTransition,
    LinearGaussianTransition,
    Moments,
    PathDistribution,
    ReadState,
    map_state,
)

D, K, T = 2, 3, 4


class Visits(NamedTuple):
    count: Tensor  # (..., K)


class Memory(NamedTuple):
    visits: Visits
    before: Tensor  # (..., K), the last latent but one


class Nested(DiscreteTransition):
    """Prefers states that were visited often, and avoids the last but one."""

    def initial_state(self, batch_shape):
        zeros = self.like.new_zeros((*batch_shape, self.num_states))
        return Memory(Visits(zeros), zeros)

    def step_logits(self, z_prev, state, inputs=None):
        if z_prev is None:
            return state.before, state
        now = F.one_hot(z_prev, self.num_states).to(self.like)
        count = state.visits.count + now
        return count - 2.0 * state.before, Memory(Visits(count), now)


class Time(NamedTuple):
    t: Tensor


class Widening(GaussianTransition):
    """A random walk whose steps widen; it has neither parameters nor buffers."""

    def initial_state(self, batch_shape):
        return Time(self.like.new_ones(batch_shape))

    def step_moments(self, z_prev, state, inputs=None):
        scale = state.t.unsqueeze(-1).expand(*state.t.shape, self.dim)
        mean = torch.zeros_like(scale) if z_prev is None else z_prev
        return Moments(mean, scale), Time(state.t + 1.0)


class TestNested(TransitionContract):
    def make(self, num_states=K):
        return Nested(num_states)


class TestWithoutTensors(GaussianTransitionContract):
    def make(self, dim=D):
        return Widening(dim)


def test_nested_state_is_gathered_by_the_sweep():
    """``Nested`` remembers enough to fail a sampler that gathers wrong rows."""
    transition = Nested(K)

    def model(x):
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x[t])

    result = invariance_test(model, torch.randn(T, 2), num_replicates=20_000)
    assert result.p_value > 1e-6 and (result.change_rate > 0).all()


@pytest.mark.parametrize("transition", [Widening(D), Nested(K)])
def test_paths_and_horizon_of_a_transition_without_parameters(transition):
    lengths = torch.tensor([0, 2, T])
    paths = PathDistribution(transition, T, lengths=lengths)
    z = paths.sample((5,))
    assert z.shape == (5, 3, T, *transition.event_shape) and paths.log_prob(z).shape == (5, 3)
    assert memory_horizon(transition, max_lag=2, num_paths=5).tv.shape == (2,)


# ------------------------------------------------------------------------------- map_state


def test_map_state_keeps_the_types():
    rows = torch.tensor([2, 0])
    state = ReadState(LSTMState(torch.randn(3, 4), torch.randn(3, 4)), torch.randn(3, 2))
    found = map_state(lambda s: s.index_select(0, rows), state)
    assert type(found) is ReadState and type(found.cell) is LSTMState
    assert torch.equal(found.cell.c, state.cell.c[rows])
    assert torch.equal(found.last, state.last[rows])
    empty = MarkovTransition(3).initial_state((3,))
    assert map_state(torch.clone, empty) == empty
    assert torch.equal(map_state(torch.neg, state.last), -state.last)


# ------------------------------------------------------------------------------- like


def test_like_is_of_the_first_parameter():
    like = LSTMTransition(3, 4).float().like
    assert like.shape == () and like.dtype == torch.float32 and not like.requires_grad
    assert LSTMTransition(3, 4).to("meta").like.device.type == "meta"


def test_like_is_of_the_first_floating_buffer_without_parameters():
    chain = LinearGaussianTransition(
        D,
        matrix=torch.eye(D, dtype=torch.float32),
        offset=torch.zeros(D, dtype=torch.float32),
        scale=torch.ones(D, dtype=torch.float32),
        initial_mean=torch.zeros(D, dtype=torch.float32),
        initial_scale=torch.ones(D, dtype=torch.float32),
    )
    assert not list(chain.parameters())
    assert chain.like.dtype == chain.initial_state((2,)).batch.dtype == torch.float32
    counted = Nested(K)
    counted.register_buffer("num_calls", torch.tensor(0))
    assert counted.like.dtype == torch.get_default_dtype()
    counted.register_buffer("weight", torch.ones(2, dtype=torch.float32))
    assert counted.like.dtype == torch.float32


def test_like_is_of_the_defaults_without_tensors():
    assert Widening(D).like.dtype == torch.float64  # the tests' default
    with torch.device("meta"):
        assert Widening(D).like.device.type == "meta"


@pytest.mark.parametrize(
    "make",
    [
        lambda like: LinearGaussianTransition(D, matrix=torch.eye(D, **like)),
        lambda like: LinearGaussianTransition(D, initial_scale=torch.ones(D, **like)),
        lambda like: MarkovTransition(K, initial=torch.ones(K, **like), input_size=2),
        lambda like: MarkovTransition(K, matrix=torch.ones(K, K, **like)),
    ],
)
def test_what_is_left_out_is_like_what_is_given(make):
    for like in ({"dtype": torch.float32}, {"dtype": torch.float32, "device": "meta"}):
        transition = make(like)
        for value in (*transition.parameters(), *transition.buffers()):
            assert value.dtype == torch.float32 and value.device.type == like.get("device", "cpu")


# ------------------------------------------------------------------------------- state_dict


def test_scales_of_the_gaussian_head_are_kept_and_moved_with_it():
    options = {"residual": True, "reads": "increments"}
    fitted = GaussianLSTMTransition(D, 4, min_scale=0.2, increment_scale=0.3, **options)
    loaded = GaussianLSTMTransition(D, 4, **options)
    loaded.load_state_dict(fitted.state_dict())
    z = torch.randn(2, T, D)
    assert torch.equal(loaded.log_prob(z), fitted.log_prob(z))
    assert (loaded.min_scale, loaded.increment_scale) == (0.2, 0.3)
    assert loaded.float().min_scale.dtype == torch.float32
    assert loaded.to("meta").increment_scale.device.type == "meta"
    assert not {"min_scale", "increment_scale"} & dict(fitted.named_parameters()).keys()
