"""What the methods of ``jsb.py`` share: when a fit ends, and when a score has settled."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor

from pyro_ssl import ParticleFilter
from pyro_ssl.datasets import PianoRolls

__all__ = [
    "LEAST_CHANGE",
    "Fit",
    "Keys",
    "begin",
    "filtered",
    "num_numbers",
    "patiently",
    "settled",
]

#: nats per step below which a score has settled
LEAST_CHANGE = 0.01

#: what a fit has kept, and what is to be told of it
Fit = tuple[Any, dict[str, Any]]


class Keys(dist.TorchDistribution):
    """Independent keys, as a Bernoulli for each; log p under many states is a product of matrices.

    Where all steps meet the same states, that of a Bernoulli would go through ``(K, T, B, 88)``
    numbers, as that of ``Categorical(phi[z]).to_event(1)`` would.

    :param Tensor odds: log-odds, ``(..., 88)``.
    :param Tensor silent: log-probability of silence, ``(..., 88)``, which these determine.
    """

    arg_constraints = {"odds": constraints.real_vector}
    support = constraints.independent(constraints.boolean, 1)

    def __init__(
        self, odds: Tensor, silent: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self.odds = odds
        self.silent = -torch.nn.functional.softplus(odds) if silent is None else silent
        super().__init__(odds.shape[:-1], odds.shape[-1:], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of rolls ``(..., 88)``."""
        if self._validate_args:
            self._validate_sample(value)
        odds = self.odds
        if value.dim() < odds.dim() and odds.shape[1:-1].numel() == 1:  # (K, 1, 1, 88)
            chosen = (value @ odds.flatten(0, -2).T).movedim(-1, 0)
        else:
            chosen = (value * odds).sum(-1)
        return chosen + self.silent.sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Keys:
        """Return a distribution of a larger batch shape."""
        shape = (*batch_shape, *self.event_shape)
        return Keys(self.odds.expand(shape), self.silent.expand(shape), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rolls."""
        return torch.bernoulli(self.odds.sigmoid().expand(*sample_shape, *self._extended_shape()))


def patiently(
    step: Callable[[], Any],
    score: Callable[[], float],
    keep: Callable[[], Any],
    num_epochs: int,
    patience: int,
    every: int = 1,
) -> Fit:
    """Learn until ``patience`` epochs have brought no lower score, or ``num_epochs`` are over.

    :param step: an epoch.
    :param score: of validation data, the lowest is the best; asked for after ``every`` epochs.
    :param keep: what the best epoch is to be remembered by; copied.
    :returns: that, and its score, its number, how many epochs there were, and how the fit ended.
    """
    best, kept, kept_epoch, epoch = math.inf, None, 0, 0
    while epoch < num_epochs and epoch < kept_epoch + patience:
        epoch += 1
        step()
        if epoch % every:
            continue
        found = score()
        if found < best:
            best, kept, kept_epoch = found, copy.deepcopy(keep()), epoch
    ended = "patience" if epoch >= kept_epoch + patience else "epochs"
    return kept, {"valid": best, "kept_epoch": kept_epoch, "epochs": epoch, "ended": ended}


def settled(score: Callable[[int], float], first: int, most: int) -> dict[str, Any]:
    """Score with three times as many particles, until that changes it by less than .01 nats.

    :param score: nats per step, of a number of particles.
    :returns: the last score, its number of particles, and by how much it differs from the one
        before.
    """
    num_particles, found = first, score(first)
    change = math.inf
    while abs(change) >= LEAST_CHANGE and 3 * num_particles <= most:
        num_particles *= 3
        before, found = found, score(num_particles)
        change = found - before
    return {"test": found, "particles": num_particles, "change": change}


def filtered(
    model: Callable[..., Any], values: dict[str, Tensor], rolls: PianoRolls, num_particles: int
) -> float:
    """Nats per step by a particle filter, chorales in parts that fit in memory."""
    pf = ParticleFilter(poutine.condition(model, values), num_particles, store_history=False)
    size = max(1, 20_000 // num_particles)
    total = 0.0
    for index in torch.arange(len(rolls.lengths)).split(size):
        lengths = rolls.lengths[index]
        with torch.no_grad():
            x = rolls.x[: int(lengths.max()), index]
            total += float(pf.log_evidence(x, lengths).sum())
    return -total / rolls.num_steps


def num_numbers(*modules: torch.nn.Module) -> int:
    """Count the numbers that modules have learned."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def begin(seed: int) -> None:
    """Start anew: every method has random numbers of its own, whatever ran before."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
