"""Gaussian transitions satisfy the contract, and have the documented distributions."""

from typing import NamedTuple

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl.cells import LSTMCell, RecurrentCell
from pyro_ssl.testing import GaussianTransitionContract
from pyro_ssl.transitions import (
    GaussianLSTMTransition,
    GaussianMultiplicativeLSTMTransition,
    GaussianTransition,
    LinearGaussianTransition,
    Moments,
    RecurrentGaussianTransition,
)

D, H, T = 2, 4, 5


class TestLSTM(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianLSTMTransition(dim, H)


class TestLSTMWithInputs(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianLSTMTransition(dim, H, input_size=3, residual=True)


class TestLSTMWithDropout(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianLSTMTransition(dim, H, dropout=0.5, min_scale=0.3)


class TestIncrements(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianLSTMTransition(
            dim, H, residual=True, reads="increments", increment_scale=0.3
        )


class TestIncrementsWithInputs(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianMultiplicativeLSTMTransition(
            dim, H, input_size=2, residual=True, reads="increments"
        )


class TestMultiplicative(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianMultiplicativeLSTMTransition(dim, H, residual=True)


class TestMultiplicativeWithInputs(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianMultiplicativeLSTMTransition(
            dim, H, input_size=2, squash="output", weight_norm=True
        )


def chain_of(dim, input_size=0):
    """A linear chain, of parameters that are learned."""
    chain = LinearGaussianTransition(dim, input_size=input_size)
    for parameter in chain.parameters():
        parameter.data.normal_().mul_(0.5)
    return chain


class TestAroundAChain(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianLSTMTransition(dim, H, around=chain_of(dim), min_scale=0.1)


class TestAroundAChainWithInputs(GaussianTransitionContract):
    def make(self, dim=D):
        return GaussianMultiplicativeLSTMTransition(
            dim, H, input_size=2, around=chain_of(dim, 2), reads="increments"
        )


class PlainState(NamedTuple):
    h: torch.Tensor


class PlainRNN(RecurrentCell):
    """A cell with the required methods alone."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.inner = torch.nn.Linear(input_size, hidden_size)
        self.outer = torch.nn.Linear(hidden_size, hidden_size)

    def initial_state(self, batch_shape):
        zeros = self.outer.weight.new_zeros((*batch_shape, self.hidden_size))
        return PlainState(zeros)

    def input_map(self):
        return self.inner.weight, self.inner.bias

    def advance(self, projected, state):
        return PlainState(torch.tanh(projected + self.outer(state.h)))


class TestOwnCell(GaussianTransitionContract):
    def make(self, dim=D):
        return RecurrentGaussianTransition(dim, PlainRNN(dim + 1 + 2, H), residual=True)


# ------------------------------------------------------------------------------- by hand


def test_around_a_chain_the_head_corrects_in_units_of_its_steps():
    chain = chain_of(D, 1)
    transition = GaussianLSTMTransition(D, H, input_size=1, around=chain, min_scale=0.25)
    plain = GaussianLSTMTransition(D, H, input_size=1, min_scale=0.25)
    plain.load_state_dict({k: v for k, v in transition.state_dict().items() if "around" not in k})
    z, u = torch.randn(3, T, D), torch.randn(3, T, 1)
    found, base, correction = (t.path_moments(z, u) for t in (transition, chain, plain))
    for one, other in zip(found, base, strict=True):
        torch.testing.assert_close(one[:, 0], other[:, 0])
    mean = base.mean + chain.scale * correction.mean
    torch.testing.assert_close(found.mean[:, 1:], mean[:, 1:])
    torch.testing.assert_close(found.scale[:, 1:], (chain.scale * correction.scale)[:, 1:])


def test_a_chain_that_does_not_fit_is_told():
    message = r"around has 2 latents and 1 inputs, expected 3 and 1, as the cell"
    with pytest.raises(ValueError, match=message):
        GaussianLSTMTransition(3, H, input_size=1, around=chain_of(2, 1))
    with pytest.raises(TypeError, match="around is a float, expected a LinearGaussianTransition"):
        GaussianLSTMTransition(3, H, around=0.9)


@pytest.mark.parametrize("residual", [False, True])
def test_lstm_is_equation_9(residual):
    """One step after another, by torch's own cell: [z, start, u], softplus and its floor."""
    transition = GaussianLSTMTransition(D, H, input_size=1, residual=residual, min_scale=0.25)
    z, u = torch.randn(3, T, D), torch.randn(3, T, 1)
    lstm, by_hand = transition.cell.lstm, torch.nn.LSTMCell(D + 2, H)
    by_hand.load_state_dict({n[: -len("_l0")]: p for n, p in lstm.state_dict().items()})
    weight, bias = transition.head.weight, transition.head.bias
    z_prev, start, state, expected = torch.zeros(3, D), torch.ones(3, 1), None, []
    if residual:
        with torch.no_grad():
            transition.initial_mean.normal_()
            transition.log_initial_scale.normal_()
    for t in range(T):
        state = by_hand(torch.cat([z_prev, start, u[:, t]], -1), state)
        mean = state[0] @ weight[:D].T + bias[:D] + (z_prev if residual else 0.0)
        scale = torch.log1p((state[0] @ weight[D:].T + bias[D:]).exp()) + 0.25
        if residual and t == 0:
            mean, scale = (
                transition.initial_mean,
                transition.log_initial_scale.exp().clamp(min=0.25),
            )
        expected.append(dist.Normal(mean, scale).log_prob(z[:, t]).sum(-1))
        z_prev, start = z[:, t], torch.zeros(3, 1)
    torch.testing.assert_close(transition.log_prob(z, u), torch.stack(expected, -1))


def test_scale_never_falls_below_its_floor():
    transition = GaussianLSTMTransition(D, H, min_scale=0.125)
    with torch.no_grad():
        transition.head.bias[D:] = -1e4
    assert torch.equal(transition.path_moments(torch.randn(T, D)).scale, torch.full((T, D), 0.125))
    residual = GaussianLSTMTransition(D, H, residual=True, min_scale=0.125)
    with torch.no_grad():
        residual.log_initial_scale.fill_(-1e4)
    assert torch.equal(residual.path_moments(torch.randn(1, D)).scale, torch.full((1, D), 0.125))


def test_start_is_not_a_latent_that_is_zero():
    transition = GaussianLSTMTransition(D, H)
    state = transition.initial_state(())
    (at_start, _), _ = transition.step_moments(None, state)
    (at_zero, _), _ = transition.step_moments(torch.zeros(D), state)
    assert not torch.allclose(at_start, at_zero)


def test_residual_adds_the_previous_latent():
    plain, residual = (GaussianLSTMTransition(D, H, residual=r) for r in (False, True))
    residual.load_state_dict(plain.state_dict(), strict=False)
    z = torch.randn(T, D)
    found, other = residual.path_moments(z), plain.path_moments(z)
    torch.testing.assert_close(found.mean[1:] - other.mean[1:], z[:-1])
    torch.testing.assert_close(found.scale[1:], other.scale[1:])
    assert torch.equal(found.mean[0], torch.zeros(D))  # m and s of the first latent
    assert torch.equal(found.scale[0], torch.ones(D))


def test_increments_are_what_positions_differ_by():
    """The cell reads (z_{t-1} - z_{t-2}) / scale, and nothing at the second step."""
    positions, increments = (
        GaussianLSTMTransition(D, H, residual=True, reads=reads)
        for reads in ("positions", "increments")
    )
    increments.load_state_dict(positions.state_dict())
    increments.increment_scale.fill_(0.5)
    z = torch.randn(3, T, D)
    steps = torch.cat([torch.zeros(3, 1, D), 2.0 * z.diff(dim=1)], 1)
    mean = increments.path_moments(z).mean
    shifted = mean[:, 1:] - z[:, :-1]  # the head's output
    expected = positions.path_moments(steps).mean[:, 1:] - steps[:, :-1]
    torch.testing.assert_close(shifted, expected)
    away = increments.path_moments(z + 7.0).mean[:, 1:] - 7.0
    torch.testing.assert_close(away, mean[:, 1:])  # wherever the path goes


def test_dropout_is_for_learning_alone():
    transition = GaussianLSTMTransition(D, H, dropout=0.5)  # train() mode
    z = torch.randn(4, T, D)
    assert not torch.equal(transition.log_prob(z), transition.log_prob(z))
    z_prev, state = z[:, 0], transition.initial_state((4,))

    def stepping():
        step = transition.stepper()
        return transition.step_moments(z_prev, state)[0], step(z_prev, state, 1)[0]

    before = stepping()
    transition.eval()
    for found, expected in zip(before, stepping(), strict=True):
        assert torch.equal(found.mean, expected.mean) and torch.equal(found.scale, expected.scale)


def test_stepper_with_no_rows_in_float32():
    transition = GaussianLSTMTransition(D, H, input_size=1).float()
    step = transition.stepper(torch.zeros(T, 0, 1).float())
    state = transition.initial_state((0,))
    moments, state = step(None, state, 0)
    moments, _ = step(moments.mean, state, 1)
    assert moments.mean.shape == (0, D) and moments.scale.dtype == torch.float32


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianLSTMTransition(0, H), "dim is 0, expected"),
        (
            lambda: GaussianLSTMTransition(D, H, reads="increments"),
            'reads="increments" with residual=False, expected .* with residual=True',
        ),
        (
            lambda: GaussianLSTMTransition(D, H, residual=True, reads="steps"),
            'reads="steps" .* expected one of',
        ),
        (
            lambda: GaussianLSTMTransition(D, H, min_scale=0.0),
            "min_scale must be positive, found 0",
        ),
        (
            lambda: GaussianLSTMTransition(D, H, increment_scale=-1.0),
            "increment_scale must be positive, found -1",
        ),
        (
            lambda: RecurrentGaussianTransition(D, LSTMCell(D, H)),
            r"the cell reads 2 numbers, expected at least 3, .*start flag; write LSTMCell\(3 \+",
        ),
        (
            lambda: LinearGaussianTransition(D, scale=torch.ones(D, D)),
            r"scale has shape \(2, 2\), expected \(2,\); write LinearGaussianTransition\(2,",
        ),
        (
            lambda: LinearGaussianTransition(D, matrix=torch.ones(D)),
            r"matrix has shape \(2,\), expected \(2, 2\)",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_default_path_is_the_loop():
    """Without ``path_moments``, paths are teacher-forced step by step, also paths of no steps."""

    class Drift(GaussianTransition):
        def initial_state(self, batch_shape):
            return PlainState(torch.zeros(*batch_shape, 1))

        def step_moments(self, z_prev, state, inputs=None):
            mean = state.h + torch.ones(self.dim) if z_prev is None else z_prev + 1.0
            return (mean, torch.full_like(mean, 0.5)), state

    z = torch.randn(3, T, D)
    drift = Drift(D)
    mean, scale = drift.path_moments(z)
    torch.testing.assert_close(mean, torch.cat([torch.zeros(3, 1, D), z[:, :-1]], 1) + 1.0)
    assert torch.equal(scale, torch.full_like(z, 0.5))
    assert drift.log_prob(z[:, :0]).shape == (3, 0)


# ------------------------------------------------------------------------------- the contract


class Wrong(GaussianLSTMTransition):
    """Its fused call sees z_{t+1}, and takes variances for standard deviations."""

    def path_moments(self, z, inputs=None):
        mean, scale = super().path_moments(z.roll(-2, -2), inputs)
        return Moments(mean, scale.square())

    def log_prob(self, z, inputs=None):
        return super().log_prob(z, inputs) + 0.1


@pytest.mark.parametrize(
    "name",
    [
        "test_step_equals_fused_call",
        "test_gradient_of_step_equals_that_of_fused_call",
        "test_stepper_equals_step",
        "test_gathered_state_equals_recomputed_prefix",
        "test_later_values_change_nothing",
        "test_small_sizes",
        "test_moments_are_those_of_the_distribution",
        "test_density_integrates_to_one",
    ],
)
def test_contract_is_not_kept_by_a_wrong_transition(name):
    contract = GaussianTransitionContract()
    contract.make = lambda dim=D: Wrong(dim, H)
    with pytest.raises(AssertionError):
        getattr(contract, name)()
