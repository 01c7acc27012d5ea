"""Models that are right: nothing may be found wrong with them."""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch

from pyro_ssl import (
    DiscreteTransition,
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovTransition,
    MultiplicativeLSTMTransition,
    ssl_transition,
)
from pyro_ssl.transitions import LinearGaussianTransition

T, B, K, V, D = 9, 4, 3, 5, 2


def sharp(transition):
    """A transition far from uniform."""
    for parameter in transition.parameters():
        parameter.data *= 3
    return transition


def words(*shape):
    return torch.randint(V, shape or (T, B))


def loop(emission, x, *, transition=None, plates=True, given=None, **how):
    """A model of one plate around the loop, and its arguments."""
    transition = transition or sharp(LSTMTransition(K, 4))
    fixed = given or dict

    def model(x):
        pyro.module("transition", transition)
        values = fixed()
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x), **how):
                pyro.sample("x", emission(z, **values), obs=x[t])

    return model, (x,)


def means():
    return {"mean": pyro.param("mean", torch.randn(K))}


def topics(concentration=0.3):
    prior = dist.Dirichlet(torch.full((K, V), concentration)).to_event(1)
    return {"phi": pyro.sample("phi", prior)}


def categorical():
    return loop(lambda z, phi: dist.Categorical(phi[z]), words(), given=topics)


def sharp_categorical():
    """Rows with probabilities below those that torch keeps in a ``Categorical``."""
    return loop(lambda z, phi: dist.Categorical(phi[z]), words(), given=lambda: topics(0.02))


def gaussian():
    return loop(lambda z, mean: dist.Normal(mean[z], 0.7), torch.randn(T, B), given=means)


def poisson():
    x = torch.poisson(torch.full((T, B), 2.0))
    return loop(lambda z, mean: dist.Poisson(mean[z].exp()), x, given=means)


def student():
    x = 3 * torch.randn(T, B)
    return loop(lambda z, mean: dist.StudentT(3.0, mean[z], 0.5), x, given=means)


def masked_and_ragged():
    x, seen = torch.randn(T, B), torch.rand(T, B) < 0.7
    lengths = torch.tensor([T, 1, 4, 0])
    x = x.masked_fill(~seen, torch.nan).masked_fill(torch.arange(T)[:, None] >= lengths, torch.nan)
    transition = sharp(LSTMTransition(K, 4))

    def model(x):
        pyro.module("transition", transition)
        mean = pyro.param("mean", torch.randn(K))
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T, lengths=lengths):
                with pyro.poutine.mask(mask=seen[t]):
                    pyro.sample("x", dist.Normal(mean[z], 0.5), obs=x[t])

    return model, (x,)


def padded_words():
    lengths = torch.tensor([T, 2, 4, 3])
    x = words().masked_fill(torch.arange(T)[:, None] >= lengths, -1)
    return loop(lambda z, phi: dist.Categorical(phi[z]), x, given=topics, lengths=lengths)


def inputs():
    driven = sharp(LSTMTransition(K, 4, input_size=2))
    u = torch.randn(T, B, 2)
    return loop(
        *(lambda z, phi: dist.Categorical(phi[z]), words()),
        given=topics,
        transition=driven,
        inputs=u,
    )


def multiplicative():
    mlstm = sharp(MultiplicativeLSTMTransition(K, 4))
    return loop(lambda z, phi: dist.Categorical(phi[z]), words(), given=topics, transition=mlstm)


def markov():
    """The chain is latent, and a step of it is impossible."""

    def model(x):
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(K, K)).to_event(1))
        matrix = torch.eye(K).roll(1, 0) * 0.5 + 0.5 * rows.tril()
        chain = MarkovTransition(K, initial=rows[0], matrix=matrix / matrix.sum(-1, keepdim=True))
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", chain, T):
                pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x[t])

    return model, (torch.randn(T, B),)


def two_plates():
    transition, x = sharp(LSTMTransition(K, 4)), words(T, 2, 3)

    def model(x):
        pyro.module("transition", transition)
        phi = topics()["phi"]
        with pyro.plate("users", 3), pyro.plate("days", 2):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model, (x,)


def no_plate():
    transition, x = sharp(LSTMTransition(K, 4)), words(T)

    def model(x):
        pyro.module("transition", transition)
        phi = topics()["phi"]
        for t, z in ssl_transition("z", transition, T):
            pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model, (x,)


def subsampled():
    transition, x = sharp(LSTMTransition(K, 4)), words(T, 20)

    def model(x):
        pyro.module("transition", transition)
        phi = topics()["phi"]
        with pyro.plate("sequences", 20, subsample_size=B) as index:
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[:, index][t])

    return model, (x,)


def several_sites():
    transition, x, y = sharp(LSTMTransition(K, 4)), words(), torch.randn(T, B, 2)

    def model(x, *, y):
        pyro.module("transition", transition)
        phi, base = topics()["phi"], pyro.sample("base", dist.Normal(0.0, 1.0))
        pyro.sample("seen", dist.Normal(base, 1.0), obs=torch.tensor(0.3))
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])
                mean = (base + z).unsqueeze(-1).expand(*z.shape, 2)
                pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y[t])

    return model, (x,), {"y": y}


class Lasted(NamedTuple):
    steps: torch.Tensor  # (..., K), 0 for all states but the current one


class Restless(DiscreteTransition):
    """The user's own: a state becomes less likely to last, the longer it has lasted."""

    def initial_state(self, batch_shape):
        return Lasted(self.like.new_zeros((*batch_shape, self.num_states)))

    def step_logits(self, z_prev, state, inputs=None):
        if z_prev is None:
            return state.steps, state
        now = torch.nn.functional.one_hot(z_prev, self.num_states)
        steps = (state.steps + 1.0) * now
        return 2.0 * now - 0.5 * steps, Lasted(steps)


def of_ones_own():
    return loop(
        *(lambda z, phi: dist.Categorical(phi[z]), words()), given=topics, transition=Restless(K)
    )


def vectors(emission, x, transition):
    return loop(emission, x, transition=transition)


def chain():
    turn = 0.9 * torch.linalg.qr(torch.randn(D, D)).Q
    return LinearGaussianTransition(D, matrix=turn, scale=torch.full((D,), 0.5))


def linear_gaussian():
    loading = torch.randn(3, D)
    return vectors(
        lambda z: dist.Normal(z @ loading.T, 0.4).to_event(1), torch.randn(T, B, 3), chain()
    )


def vectors_poisson():
    x = torch.poisson(torch.full((T, B, D), 2.0))
    return vectors(lambda z: dist.Poisson(z.exp()).to_event(1), x, chain())


def vectors_lstm():
    return vectors(
        lambda z: dist.Normal(z, 0.4).to_event(1),
        torch.randn(T, B, D),
        sharp(GaussianLSTMTransition(D, 4)),
    )


RIGHT = (
    *(categorical, sharp_categorical, gaussian, poisson, student, masked_and_ragged, padded_words),
    *(inputs, multiplicative, markov, two_plates, no_plate, subsampled, several_sites, of_ones_own),
    *(linear_gaussian, vectors_poisson, vectors_lstm),
)
#: of these no exact answer is known
NOT_EXACT = (vectors_poisson, vectors_lstm)
