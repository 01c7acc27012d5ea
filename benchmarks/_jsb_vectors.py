"""Vectors behind piano rolls, for ``jsb.py``: a Gaussian LSTM, and Bernoulli keys given z_t.

What a Deep Markov Model is, but that z_t depends on all latents before it, and that paths are drawn
from their posterior in place of a guide's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import AdamW
from torch import Tensor, nn

from pyro_ssl import GaussianLSTMTransition, StochasticEM, ssl_transition
from pyro_ssl.datasets import JSBChorales, PianoRolls

from ._jsb_common import Keys, begin, filtered, num_numbers, patiently, settled

__all__ = ["SETTINGS", "gaussian"]

KEYS = 88
START_STEPS, TRANSITION_STEPS = 300, 200
EPOCHS, PATIENCE, BATCH = 1000, 20, 64
NUM_PARTICLES, NUM_GRADIENT_STEPS, EVERY = 10, 4, 2  # epochs between two scores
SETTINGS = {"patience": PATIENCE, "batch": BATCH, "num_particles": NUM_PARTICLES}
SETTINGS |= {"num_gradient_steps": NUM_GRADIENT_STEPS, "start_steps": START_STEPS}


def model_of(transition: nn.Module, keys: nn.Module) -> Callable[..., None]:
    """Return p(z, x) of chorales, the log-odds of their keys a function of z_t."""

    def model(x: Tensor, lengths: Tensor, index: Tensor | None = None) -> None:
        pyro.module("transition", transition)
        pyro.module("keys", keys)
        with pyro.plate("chorales", x.shape[1], subsample=index):
            if index is not None:
                x, lengths = x[:, index], lengths[index]
            for t, z in ssl_transition("z", transition, len(x), lengths=lengths):
                pyro.sample("x", Keys(keys(z)), obs=x[t])

    return model


def start(transition: Any, keys: nn.Module, train: PianoRolls) -> None:
    """Find keys and latents as if steps were independent, z_t ~ N(0, I); teach the transition."""
    mask = train.mask
    z = nn.Parameter(0.1 * torch.randn(*mask.shape, transition.dim, device=mask.device))
    optim = torch.optim.Adam([z, *keys.parameters()], lr=0.02)
    for _ in range(START_STEPS):
        optim.zero_grad()
        log_p = Keys(keys(z)).log_prob(train.x)
        prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
        (-(log_p + prior)[mask].sum() / train.num_steps).backward()
        optim.step()
    path = z.detach().transpose(0, 1)
    optim = torch.optim.Adam(transition.parameters(), lr=0.01)
    for _ in range(TRANSITION_STEPS):
        optim.zero_grad()
        (-transition.log_prob(path)[mask.T].sum() / train.num_steps).backward()
        optim.step()


def gaussian(data: JSBChorales, seed: int, conditional: bool, **options: Any) -> dict[str, Any]:
    """Learn transition and keys by stochastic EM.

    :param conditional: by particle Gibbs, or by unconditional SMC.
    :param options: ``dim``, ``hidden_size``, ``key_units`` of a layer between z_t and the keys, 0
        for none, ``dropout``, ``learning_rate`` and ``weight_decay``.
    """
    begin(seed)
    dim, units = options["dim"], options["key_units"]
    transition = GaussianLSTMTransition(dim, options["hidden_size"], dropout=options["dropout"])
    keys: nn.Module = nn.Linear(dim, KEYS)
    if units:
        keys = nn.Sequential(nn.Linear(dim, units), nn.Tanh(), nn.Linear(units, KEYS))
    device = data.train.x.device
    transition, keys = transition.to(device), keys.to(device)
    start(transition, keys, data.train)
    model = model_of(transition, keys)
    optim = AdamW({"lr": options["learning_rate"], "weight_decay": options["weight_decay"]})
    how = {"conditional": conditional, "num_gradient_steps": NUM_GRADIENT_STEPS}
    em = StochasticEM(model, optim, NUM_PARTICLES, **how)

    def epoch() -> None:
        for index in torch.randperm(len(data.train.lengths), device=device).split(BATCH):
            em.step(data.train.x, data.train.lengths, index)

    def score() -> float:
        return filtered(model, {}, data.valid, NUM_PARTICLES)

    def keep() -> Any:
        return transition.state_dict(), keys.state_dict()

    states, told = patiently(epoch, score, keep, EPOCHS, PATIENCE, EVERY)
    for module, state in zip((transition, keys), states, strict=True):
        module.load_state_dict(state)
    found = settled(lambda P: filtered(model, {}, data.test, P), 30, 3000)
    return {**told, **found, "parameters": num_numbers(transition, keys)}
