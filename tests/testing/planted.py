"""Faults planted into users' models, each with the check that has to find it."""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn

from pyro_ssl import LSTMTransition, ssl_transition
from tests.testing.right_models import B, K, Restless, T, V, loop, sharp, topics, words

PLANTED = {}


def planted(check, verdict="failed"):
    """Add a fault: a function that returns a model and its arguments."""

    def add(make):
        PLANTED[make.__name__] = make, check, verdict
        return make

    return add


def by(transition):
    return loop(
        *(lambda z, phi: dist.Categorical(phi[z]), words()), given=topics, transition=transition
    )


def body_of(observe, x=None):
    """A model whose body is given: ``observe(t, z, x, phi)``."""
    transition = sharp(LSTMTransition(K, 4))

    def model(x):
        pyro.module("transition", transition)
        phi = topics()["phi"]
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                observe(t, z, x, phi)

    return model, (words() if x is None else x,)


# ------------------------------------------------------------------------------- the transition


@planted("step is log_prob")
def its_fused_call_is_of_another_temperature():
    class Hotter(LSTMTransition):
        def path_logits(self, z, inputs=None):
            return 0.5 * super().path_logits(z, inputs)

    return by(sharp(Hotter(K, 4)))


@planted("step is log_prob")
def its_stepper_reads_the_inputs_of_the_step_before():
    class Late(LSTMTransition):
        def stepper(self, inputs=None):
            return super().stepper(inputs.roll(1, 0))

    return loop(
        *(lambda z, phi: dist.Categorical(phi[z]), words()),
        given=topics,
        transition=sharp(Late(K, 4, input_size=2)),
        inputs=torch.randn(T, B, 2),
    )


@planted("rows apart")
def its_step_centres_over_the_batch():
    class Centred(Restless):
        def step_logits(self, z_prev, state, inputs=None):
            logits, state = super().step_logits(z_prev, state)
            return logits - (logits.mean(0) if logits.dim() > 1 else 0.0), state

    return by(Centred(K))


@planted("rows apart")
def it_has_batch_norm_in_training_mode():
    class Normed(Restless):
        def __init__(self, num_states):
            super().__init__(num_states)
            self.norm = nn.BatchNorm1d(num_states)

        def step_logits(self, z_prev, state, inputs=None):
            logits, state = super().step_logits(z_prev, state)
            flat = self.norm(logits.reshape(-1, self.num_states))
            return flat.reshape(logits.shape), state

    return by(Normed(K))


class Empty(NamedTuple):
    batch: torch.Tensor


@planted("state gathers")
def it_remembers_on_self():
    """Where a path began is kept on the object, so resampling does not move it."""

    class OnSelf(Restless):
        def initial_state(self, batch_shape):
            self.first = None
            return Empty(self.like.new_zeros((*batch_shape, 0)))

        def step_logits(self, z_prev, state, inputs=None):
            shape = (*state.batch.shape[:-1], self.num_states)
            if z_prev is None:
                return self.like.new_zeros(shape), state
            if self.first is None or self.first.shape != z_prev.shape:
                self.first = z_prev
            return 2.0 * nn.functional.one_hot(self.first, self.num_states), state

    return by(OnSelf(K))


@planted("repeats")
def it_counts_steps_on_self():
    class Counting(Restless):
        def __init__(self, num_states):
            super().__init__(num_states)
            self.count = 0

        def step_logits(self, z_prev, state, inputs=None):
            self.count += 1
            logits, state = super().step_logits(z_prev, state)
            return logits / self.count, state

    return by(Counting(K))


@planted("normalised")
def its_log_prob_is_of_logits():
    class Unnormalised(LSTMTransition):
        def log_prob(self, z, inputs=None):
            return self.path_logits(z, inputs).gather(-1, z.unsqueeze(-1)).squeeze(-1)

    return by(sharp(Unnormalised(K, 4)))


@planted("causal")
def it_sees_the_latents_that_come():
    class Peeking(LSTMTransition):
        def path_logits(self, z, inputs=None):
            return super().path_logits(z.roll(-2, -1), inputs)

    return by(sharp(Peeking(K, 4)))


@planted("repeats")
def it_has_dropout_in_training_mode():
    return by(sharp(LSTMTransition(K, 8, dropout=0.5)).train())


@planted("evidence")
def its_stepper_goes_wrong_after_six_steps():
    class Tiring(LSTMTransition):
        def stepper(self, inputs=None):
            step = super().stepper(inputs)

            def tired(z_prev, state, t):
                logits, state = step(z_prev, state, t)
                return logits * (1.0 if t < 6 else 0.5), state

            return tired

    return by(sharp(Tiring(K, 4)))


# --------------------------------------------------------------------------------- the emission


@planted("emission local")
def it_observes_given_the_latent_before():
    return body_of(
        lambda t, z, x, phi: pyro.sample("x", dist.Categorical(phi[z.roll(1, -2)]), obs=x[t])
    )


@planted("emission local")
def it_observes_given_a_running_sum():
    return body_of(
        lambda t, z, x, phi: pyro.sample("x", dist.Poisson(1.0 + z.cumsum(-2)), obs=x[t])
    )


@planted("emission local")
def numbers_of_each_step_land_on_the_sequences():
    width = torch.rand(T) + 0.5

    def observe(t, z, x, phi):
        pyro.sample("x", dist.Normal(z.to(x.dtype), width[t]), obs=x[t])

    return body_of(observe, torch.randn(T, T))


@planted("emission repeats")
def its_decoder_has_dropout():
    decoder = nn.Sequential(nn.Embedding(K, 8), nn.Dropout(0.5), nn.Linear(8, V))

    def observe(t, z, x, phi):
        pyro.module("decoder", decoder)
        pyro.sample("x", dist.Categorical(logits=decoder(z)), obs=x[t])

    return body_of(observe)


@planted("runs")
def it_hangs_on_no_latent():
    return body_of(lambda t, z, x, phi: pyro.sample("x", dist.Categorical(phi[0]), obs=x[t]))


@planted("runs")
def its_mean_is_not_a_number():
    mean = torch.tensor([0.0, torch.nan, 1.0])
    return body_of(
        lambda t, z, x, phi: pyro.sample("x", dist.Delta(mean[z], log_density=mean[z]), obs=x[t])
    )


@planted("runs")
def its_rows_are_mixed_up():
    """By a number of each sequence in place of the latent."""
    which = torch.randint(K, (B,))
    return body_of(lambda t, z, x, phi: pyro.sample("x", dist.Categorical(phi[which]), obs=x[t]))


@planted("Pyro's trace")
def it_acts_differently_where_states_are_a_grid():
    def observe(t, z, x, phi):
        rows = phi if z.dim() > x[t].dim() else phi.flip(-1)
        pyro.sample("x", dist.Categorical(rows[z]), obs=x[t])

    return body_of(observe)


@planted("Pyro's trace")
def it_observes_more_under_the_samplers():
    def observe(t, z, x, phi):
        pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])
        if z.dim() > x[t].dim():
            pyro.factor("more", 0.3 * z)

    return body_of(observe)


# -------------------------------------------------------------------------------- the statements


@planted("data kept")
def it_centres_the_data_in_place():
    transition = sharp(LSTMTransition(K, 4))

    def model(x):
        pyro.module("transition", transition)
        x -= x.mean(0)
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x[t])

    return model, (torch.randn(T, B),)


@planted("data kept")
def it_changes_data_that_it_closes_over():
    x = torch.randn(T, B)

    def observe(t, z, _, phi):
        x.mul_(1.5)
        pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x[t])

    return body_of(observe)


@planted("runs")
def its_plate_is_forgotten():
    transition, x = sharp(LSTMTransition(K, 4)), words()

    def model(x):
        pyro.module("transition", transition)
        phi = topics()["phi"]
        for t, z in ssl_transition("z", transition, T):
            pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model, (x,)


@planted("runs")
def its_data_are_batch_first():
    return body_of(
        lambda t, z, x, phi: pyro.sample("x", dist.Categorical(phi[z]), obs=x.T[t]), words(T, T + 1)
    )


@planted("weights", "warning")
def its_body_is_scaled():
    def observe(t, z, x, phi):
        with poutine.scale(scale=0.5):
            pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return body_of(observe)


@planted("parameters", "warning")
def its_transition_is_not_registered():
    transition = sharp(LSTMTransition(K, 4))

    def model(x):
        phi = topics()["phi"]
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model, (words(),)


@planted("parameters", "warning")
def its_decoder_is_not_registered():
    decoder = nn.Embedding(K, V)
    return body_of(
        lambda t, z, x, phi: pyro.sample("x", dist.Categorical(logits=decoder(z)), obs=x[t])
    )


class Last(NamedTuple):
    z: torch.Tensor  # (..., LAG), the oldest first; -1 before there were any


LAG = 20


@planted("movement", "warning")
def its_particles_are_too_few():
    """Each latent is that of long ago: none but the reference's past explains what comes."""

    class Lagged(Restless):
        def initial_state(self, batch_shape):
            return Last(self.like.new_full((*batch_shape, LAG), -1).long())

        def step_logits(self, z_prev, state, inputs=None):
            if z_prev is not None:
                state = Last(torch.cat([state.z[..., 1:], z_prev.unsqueeze(-1)], -1))
            oldest = state.z[..., 0]
            known = (oldest >= 0).unsqueeze(-1)
            return known * 6.0 * nn.functional.one_hot(oldest.clamp(min=0), K), state

    return loop(
        *(lambda z: dist.Normal(0.7 * z, 1.0), 0.7 + torch.randn(200, B)), transition=Lagged(K)
    )
