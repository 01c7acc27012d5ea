"""What is replayed of the reference: no step that is known already, and every other one."""

from typing import NamedTuple

import pytest
import torch

from pyro_ssl import LSTMTransition, MarkovTransition
from pyro_ssl.smc import TableEmission, ancestors, conditional_smc, future
from pyro_ssl.transitions import DiscreteTransition, Transition

K, T, B, P = 3, 40, 6, 5


class LeakyState(NamedTuple):
    """c ``(..., K)``."""

    c: torch.Tensor


class Leaky(DiscreteTransition):
    """Logits 2 sin(c) of c_t = f c_{t-1} + onehot(z_{t-1}), whose forget gate is f."""

    def __init__(self, forget):
        super().__init__(K)
        self.register_buffer("forget", torch.tensor(forget))

    def initial_state(self, batch_shape):
        return LeakyState(self.forget.new_zeros((*batch_shape, K)))

    def step_logits(self, z_prev, state, inputs=None):
        if z_prev is not None:
            now = torch.nn.functional.one_hot(z_prev, K).to(self.forget.dtype)
            state = LeakyState(self.forget * state.c + now)
        return 2.0 * state.c.sin(), state


class ReplaysAll(Leaky):
    """The same with a replay of its own, which keeps no states: it is made to the end."""

    def replay(self, z, z_prev, state, inputs=None):
        return super().replay(z, z_prev, state, inputs)


@pytest.fixture
def replayed(monkeypatch):
    """By sequence, how many steps were replayed of each prefix but the reference's first."""
    calls, score = [], future.Future._score

    def watched(self, start, stop, z_prev, state, which):
        if self.own is not None:
            calls.append((start, stop, which.tolist()))
        return score(self, start, stop, z_prev, state, which)

    monkeypatch.setattr(future.Future, "_score", watched)
    return calls


def sweep(transition, *, seed=0, every=10, num_steps=T, **settings):
    torch.manual_seed(seed)
    dtype = transition.like.dtype
    emission = TableEmission(torch.randn(num_steps, B, K, dtype=dtype))
    reference = torch.randint(K, (num_steps, B))
    settings = {"ancestor_sampling": every, "proposal_lag": 2} | settings
    return conditional_smc(transition, emission, P, reference, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_that_forgets_is_replayed_until_it_has(dtype, replayed):
    """With f = 0 a state is the last latent, which the steps of the proposal have read."""
    sweep(Leaky(0.0).to(dtype))
    assert not replayed
    sweep(Leaky(0.0).to(dtype), proposal_lag=1)
    assert replayed and all(stop - start <= future.MARKS for start, stop, _ in replayed)


@pytest.mark.parametrize("dtype, bits", [(torch.float32, 24), (torch.float64, 53)])
def test_half_is_forgotten_when_no_bit_is_left(dtype, bits, replayed):
    """Each step takes a bit of what differs."""
    sweep(Leaky(0.5).to(dtype), every=100, num_steps=200)
    begin = min(start for start, _, _ in replayed)
    end = max(stop for _, stop, _ in replayed if stop < begin + 100)
    assert bits / 2 < end - begin < bits + 2 * future.MARKS


@pytest.mark.stage("system")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("forget", [1.0, 0.9, 0.5, 0.0])
def test_a_stop_changes_no_bit(forget, dtype, num_seeds=1):
    """Figures and draws are those of replays to the end; with f = 1 there is no stop at all."""
    for seed in range(num_seeds):
        stopped, full = (
            sweep(cls(forget).to(dtype), seed=seed, every=3, num_steps=70)
            for cls in (Leaky, ReplaysAll)
        )
        assert stopped.path.equal(full.path) and stopped.ancestors.equal(full.ancestors)
        assert stopped.log_likelihood.equal(full.log_likelihood)


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("forget", [1.0, 0.9, 0.5, 0.0])
def test_a_stop_changes_no_bit_of_many(forget):
    for dtype in (torch.float32, torch.float64):
        test_a_stop_changes_no_bit(forget, dtype, 10)


def test_one_that_never_forgets_is_replayed_to_the_end(replayed):
    sweep(Leaky(1.0))
    assert {stop for _, stop, _ in replayed} >= {T}


@pytest.mark.parametrize("lengths", [None, torch.tensor([40, 1, 0, 7, 39, 20])])
def test_only_sequences_whose_states_differ(lengths, replayed, monkeypatch):
    """Not those that propose what they have, nor came to the same state, nor ended already."""
    transition, proposed = LSTMTransition(K, 4), []
    ends = torch.full((B,), T) if lengths is None else lengths
    inner = future.Future.proposed

    def watched(self, start, state, own_rows, rows):
        differ = (state.h[own_rows] != state.h[rows]).any(-1) & (start < ends)
        which = differ.nonzero().flatten().tolist()
        proposed.append((start, max(ends[which], default=0), which))
        return inner(self, start, state, own_rows, rows)

    monkeypatch.setattr(future.Future, "proposed", watched)
    sweep(transition, every=3, lengths=lengths)
    assert replayed == [call for call in proposed if call[2]]
    assert any(len(which) < B for _, _, which in proposed)


@pytest.mark.parametrize("kind", ["chain", "one particle"])
def test_nothing_is_replayed_where_nothing_is_remembered(kind, monkeypatch):
    """Not even the reference's own past."""

    def refuse(self, *args):
        raise AssertionError("replayed")

    monkeypatch.setattr(Transition, "_replay_on", refuse)
    if kind == "chain":
        assert sweep(MarkovTransition(K), every=1).path.shape == (T, B)
    else:
        emission = TableEmission(torch.randn(T, B, K))
        reference = torch.randint(K, (T, B))
        found = conditional_smc(Leaky(1.0), emission, 1, reference, ancestor_sampling=1)
        assert found.path.equal(reference)


@pytest.mark.stage("system")
def test_what_is_kept_is_of_the_past_that_was_accepted(monkeypatch):
    """After all redraws the scores and the states are those of slot 0's own path."""
    kept = []

    class Watched(future.Future):
        def accept(self, start, accepted, far):
            super().accept(start, accepted, far)
            kept.append((start, accepted, self))

    monkeypatch.setattr(ancestors, "Future", Watched)
    monkeypatch.setattr(future, "MARKS", 4)
    for seed in range(3):
        kept.clear()
        found = sweep(Leaky(0.9), every=10, seed=seed)
        assert any(accepted.any() for _, accepted, _ in kept)
        start, _, last = kept[-1]
        keeps_slot_0(Leaky(0.9), found, start, last)


def keeps_slot_0(transition, found, start, last):
    path, slot, sequences = torch.empty(T, B).long(), torch.zeros(B).long(), torch.arange(B)
    for t in reversed(range(T)):
        path[t] = found.z[t, sequences, slot]
        slot = found.ancestors[t, sequences, slot]
    log_p = transition.log_prob(path.T).T
    torch.testing.assert_close(last.own[start:, :, 0], log_p[start:], rtol=0, atol=1e-12)
    state, z_prev = transition.initial_state((B,)), None
    for t in range(T):
        if t > start and t in last.marks:
            torch.testing.assert_close(last.marks[t], state, rtol=0, atol=1e-12)
        _, state = transition.step_logits(z_prev, state)
        z_prev = path[t]
