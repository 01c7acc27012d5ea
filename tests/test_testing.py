"""The public tests for users' models tell a right sampler from a wrong one."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_ssl import LSTMTransition, ssl_transition
from pyro_ssl.smc.resampling import RESAMPLING, systematic
from pyro_ssl.testing import TransitionContract, invariance_test

K, V, T = 3, 4, 4


def sharp_transition(**kwargs):
    transition = LSTMTransition(K, 3, **kwargs)
    for parameter in transition.parameters():
        parameter.data *= 6  # a sharp prior, under which a wrong sampler shows
    return transition


def make_model(transition):
    def model(words, lengths=None, inputs=None):
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), 0.3)).to_event(1))
        with pyro.plate("documents", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words), lengths=lengths, inputs=inputs):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    return model


def biased_systematic(weights, first, u):
    """Draw all slots in order, then overwrite the first: looks right, and is not."""
    ancestors = systematic(weights, None, u / weights.shape[1])
    if first is not None:
        ancestors[:, 0] = first
    return ancestors


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
@pytest.mark.parametrize("ancestor_sampling", [0, 2])
@pytest.mark.parametrize("twist", ["markov", None])
def test_right_sampler_passes(resampling, ancestor_sampling, twist):
    result = invariance_test(
        make_model(sharp_transition()),
        torch.randint(V, (T, 2)),
        num_replicates=20_000,
        resampling=resampling,
        ancestor_sampling=ancestor_sampling,
        twist=twist,
    )
    assert result.p_value > 1e-6 and result.num_degrees > 5
    assert result.change_rate.shape == result.independent_rate.shape == (T, 2)
    assert (result.change_rate > 0).all()


def test_wrong_sampler_fails(monkeypatch):
    monkeypatch.setitem(RESAMPLING, "systematic", biased_systematic)
    result = invariance_test(
        make_model(sharp_transition()),
        torch.randint(V, (T, 3)),
        num_particles=2,
        ancestor_sampling=0,
    )
    assert result.p_value < 1e-12


def test_sampler_that_stays_is_seen_in_the_change_rate():
    model = make_model(sharp_transition())
    stays = invariance_test(model, torch.randint(V, (T, 1)), num_particles=1, num_replicates=1000)
    assert stays.p_value > 1e-6  # invariance alone does not show it
    assert not stays.change_rate.any() and (stays.independent_rate > 0).all()


def test_ragged_masked_scaled_with_inputs():
    lengths = torch.tensor([1, 3, T])
    model = make_model(sharp_transition(input_size=2))
    model = poutine.scale(poutine.mask(model, mask=torch.tensor([True, False, True])), scale=0.5)
    words, inputs = torch.randint(V, (T, 3)), torch.randn(T, 3, 2)
    result = invariance_test(model, words, lengths, inputs, num_replicates=20_000)
    assert result.p_value > 1e-6
    # The middle sequence is masked out as a whole.
    active = (torch.arange(T)[:, None] < lengths) & torch.tensor([True, False, True])
    assert torch.equal(result.change_rate > 0, active)
    assert torch.equal(result.independent_rate > 0, active)


def test_leaves_generators_and_parameters_alone():
    model = make_model(sharp_transition())
    words, state = torch.randint(V, (T, 1)), torch.get_rng_state()
    first = invariance_test(model, words, num_replicates=100)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = invariance_test(model, words, num_replicates=100)
    assert first.p_value == again.p_value
    assert first.p_value != invariance_test(model, words, num_replicates=100, seed=1).p_value


def test_says_when_there_are_too_many_paths():
    message = r"K\^T = 3\^20 paths are too many .* expected at most 10000; .* first 8 steps"
    with pytest.raises(ValueError, match=message):
        invariance_test(make_model(sharp_transition()), torch.zeros(20, 1, dtype=torch.long))


class Forgetful(LSTMTransition):
    """Its fused call does not know the start symbol."""

    def path_logits(self, z, inputs=None):
        return super().path_logits(z.roll(1, -1), inputs)


@pytest.mark.parametrize(
    "name",
    [
        "test_step_equals_fused_call",
        "test_stepper_equals_step",
        "test_gathered_state_equals_recomputed_prefix",
        "test_normalised",
    ],
)
def test_contract_is_not_kept_by_a_wrong_transition(name):
    contract = TransitionContract()
    contract.make = lambda num_states=3: Forgetful(num_states, 4)
    with pytest.raises(AssertionError):
        getattr(contract, name)()
