"""Sweeps of every kind, small and in float64, whose draws are recorded: one seed, one path.

``python -m tests.recorded.cases`` draws them anew and writes ``draws.json``. If that changes, the
random stream has changed, for which the commit must give a reason.
"""

import json
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovTransition,
    MultiplicativeLSTMTransition,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.transitions import GaussianMultiplicativeLSTMTransition, LinearGaussianTransition

DRAWS = Path(__file__).with_name("draws.json")
T, B, K, V, D = 12, 5, 3, 6, 2
LENGTHS = torch.tensor([12, 7, 1, 0, 11], device="cpu")


def _discrete(transition, *, inputs=None, lengths=None, scale=1.0, phi=None):
    words = torch.randint(V, (T, B))
    weights = torch.rand(K, V) + 0.05

    def model():
        pyro.module("transition", transition)
        emission = phi() if phi else weights / weights.sum(-1, keepdim=True)
        with pyro.plate("sequences", B), pyro.poutine.scale(scale=scale):
            steps = ssl_transition("z", transition, T, inputs=inputs, lengths=lengths)
            for t, z in steps:
                pyro.sample("x", dist.Categorical(emission[z]), obs=words[t])

    return model


def _dirichlet():
    return pyro.sample("phi", dist.Dirichlet(torch.full((K, V), 0.7)).to_event(1))


def _linear(transition, *, inputs=None, lengths=None, scale=1.0, dim=D):
    x, loading = torch.randn(T, B, 3), torch.randn(dim, 3)

    def model():
        pyro.module("transition", transition)
        with pyro.plate("sequences", B), pyro.poutine.scale(scale=scale):
            steps = ssl_transition("z", transition, T, inputs=inputs, lengths=lengths)
            for t, z in steps:
                pyro.sample("x", dist.Normal(z @ loading, 0.5).to_event(1), obs=x[t])

    return model


def _counts(transition, *, lengths=None):
    x = torch.randint(4, (T, B)).to(torch.get_default_dtype())

    def model():
        pyro.module("transition", transition)
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T, lengths=lengths):
                pyro.sample("x", dist.Poisson(z.sum(-1).exp()), obs=x[t])

    return model


def _sharp(transition):
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter.mul_(3.0)
    return transition


def _sweeps(model, **settings):
    """Three sweeps, each from the last path."""
    sampler, path = ParticleGibbs(model, twist=None, **settings), None
    for _ in range(3):
        path = sampler.sweep(path)
    return path


def _chains(model, **settings):
    sampler = ParticleGibbs(model, twist=None, **settings)
    sampler.run(num_samples=3, num_chains=2, disable_progbar=True)
    return torch.cat([value[-1].flatten() for value in sampler.get_samples().values()])


def _learned(model, **settings):
    settings |= {"twist": None, "dirichlet": "mean"}
    em = StochasticEM(model, pyro.optim.Adam({"lr": 0.05}), **settings)
    for _ in range(3):
        em.step()
    return em.paths


def _filtered(model, num_particles):
    return ParticleFilter(model, num_particles).log_likelihood()


def _lstm(**settings):
    return _sharp(LSTMTransition(K, 4, **settings))


def _gaussian(**settings):
    return GaussianLSTMTransition(D, 4, **settings)


def _inputs():
    return torch.randn(T, B, 2)


#: by name; each is called after ``pyro.set_rng_seed(0)``, with an empty parameter store
CASES = {
    "states": lambda: _sweeps(_discrete(_lstm()), num_particles=4),
    "states, ancestors each step": lambda: _sweeps(
        _discrete(_lstm()), num_particles=3, ancestor_sampling=1
    ),
    "states, no ancestors, multinomial": lambda: _sweeps(
        _discrete(_lstm()), num_particles=3, ancestor_sampling=0, resampling="multinomial"
    ),
    "states, ragged": lambda: _sweeps(_discrete(_lstm(), lengths=LENGTHS), ancestor_sampling=2),
    "states, inputs": lambda: _sweeps(
        _discrete(_lstm(input_size=2), inputs=_inputs()), ancestor_sampling=3
    ),
    "states, scaled": lambda: _sweeps(_discrete(_lstm(), scale=0.4), ancestor_sampling=2),
    "states, all at once": lambda: _sweeps(
        _discrete(_lstm(input_size=2), inputs=_inputs(), lengths=LENGTHS, scale=1.7),
        num_particles=2,
        ancestor_sampling=1,
    ),
    "states, multiplicative": lambda: _sweeps(
        _discrete(_sharp(MultiplicativeLSTMTransition(K, 4))), ancestor_sampling=2
    ),
    "states, Markov": lambda: _sweeps(_discrete(MarkovTransition(K)), ancestor_sampling=2),
    "states, chains": lambda: _chains(_discrete(_lstm(), lengths=LENGTHS)),
    "states, chains with topics": lambda: _chains(_discrete(_lstm(), phi=_dirichlet)),
    "states, learned": lambda: _learned(_discrete(_lstm(), phi=_dirichlet)),
    "states, filtered": lambda: _filtered(_discrete(_lstm(), lengths=LENGTHS), 7),
    "vectors": lambda: _sweeps(_linear(_gaussian()), num_particles=4),
    "vectors, ragged, inputs, scaled": lambda: _sweeps(
        _linear(_gaussian(input_size=2), inputs=_inputs(), lengths=LENGTHS, scale=0.6),
        ancestor_sampling=2,
    ),
    "vectors, increments": lambda: _sweeps(
        _linear(_gaussian(residual=True, reads="increments")), ancestor_sampling=3
    ),
    "vectors, D=4, multiplicative": lambda: _sweeps(
        _linear(GaussianMultiplicativeLSTMTransition(4, 3), dim=4), ancestor_sampling=2
    ),
    "vectors, linear chain": lambda: _chains(_linear(LinearGaussianTransition(D))),
    "vectors, counts": lambda: _sweeps(_counts(_gaussian(), lengths=LENGTHS), ancestor_sampling=2),
    "vectors, counts, chains": lambda: _chains(_counts(_gaussian())),
    "vectors, learned": lambda: _learned(_linear(_gaussian(), lengths=LENGTHS)),
}


def draw(name):
    """Draw a case anew, as a flat list of numbers."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    return CASES[name]().flatten().tolist()


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    DRAWS.write_text(json.dumps({name: draw(name) for name in CASES}, indent=None) + "\n")
