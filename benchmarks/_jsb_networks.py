r"""Networks for ``jsb.py`` that are not this library's: an LSTM over x, and a Deep Markov Model.

The Deep Markov Model is that of Krishnan, Shalit & Sontag ("Structured Inference Networks for
Nonlinear State Space Models", AAAI 2017), by its equations:

.. math::
    g = σ(\mathrm{MLP}_g(z_{t-1})), \quad h = \mathrm{MLP}_h(z_{t-1}), \\
    z_t \sim \mathrm{N}\big((1 - g) ⊙ (A z_{t-1} + b) + g ⊙ h, \;
    \mathrm{diag}\,\mathrm{softplus}(W \mathrm{relu}(h) + c)\big), \\
    x_t \sim \mathrm{Bernoulli}(σ(\mathrm{MLP}_x(z_t)))

and a guide that goes from left to right, each step knowing z_{t-1} and, by a recurrent network that
reads from right to left, all of x_{t:T}. KL annealing as there: its weight goes from .2 to
1, here before patience counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor, nn

from pyro_ssl.datasets import JSBChorales, PianoRolls

from ._jsb_common import begin, num_numbers, patiently, settled

__all__ = ["SETTINGS", "deep_markov", "lstm"]

KEYS = 88
LSTM_EPOCHS, LSTM_PATIENCE, BATCH = 500, 20, 16
DEEP_EPOCHS, DEEP_PATIENCE, ANNEALING = 3000, 50, 100
SETTINGS = {"batch": BATCH, "lstm_patience": LSTM_PATIENCE, "patience": DEEP_PATIENCE}
SETTINGS |= {"annealing": ANNEALING}


def minibatches(rolls: PianoRolls, size: int) -> list[PianoRolls]:
    """All chorales in random order, each minibatch as long as its longest."""
    found = []
    for index in torch.randperm(len(rolls.lengths)).split(size):
        lengths = rolls.lengths[index]
        found.append(PianoRolls(rolls.x[: int(lengths.max()), index], lengths))
    return found


class NextKeys(nn.Module):
    """Log-odds of each key at each step, from all steps before it."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(KEYS))
        self.cell = nn.LSTM(KEYS, hidden_size)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(hidden_size, KEYS)

    def log_prob(self, rolls: PianoRolls) -> Tensor:
        """Return log p(x_t | x_{1:t-1}) of all steps that there are, added up."""
        x = rolls.x
        before = torch.cat([self.start.expand(1, x.shape[1], -1), x[:-1]])
        odds = self.head(self.drop(self.cell(self.drop(before))[0]))
        return dist.Bernoulli(logits=odds).log_prob(x).sum(-1)[rolls.mask].double().sum()


def lstm(data: JSBChorales, seed: int, **options: Any) -> dict[str, Any]:
    """Learn an LSTM that predicts the keys of the next step, independent given the past.

    :param options: ``hidden_size``, ``dropout``, ``learning_rate`` and ``weight_decay``.
    """
    begin(seed)
    net = NextKeys(options["hidden_size"], options["dropout"])
    rates = {"lr": options["learning_rate"], "weight_decay": options["weight_decay"]}
    optim = torch.optim.AdamW(net.parameters(), **rates)

    def epoch() -> None:
        net.train()
        for batch in minibatches(data.train, BATCH):
            optim.zero_grad()
            (-net.log_prob(batch) / batch.num_steps).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optim.step()
        net.eval()

    @torch.no_grad()
    def score(rolls: PianoRolls) -> float:
        return -float(net.log_prob(rolls)) / rolls.num_steps

    valid = partial(score, data.valid)
    state, told = patiently(epoch, valid, net.state_dict, LSTM_EPOCHS, LSTM_PATIENCE)
    net.load_state_dict(state)
    return {**told, "test": score(data.test), "parameters": num_numbers(net)}


Moments = tuple[Tensor, Tensor]


class Path(dist.TorchDistribution):
    """z_1, z_2, ... in R^D, each a diagonal Gaussian given the one before; reparametrised.

    :param moments: of z_t given z_{t-1}, for some steps at once: ``(previous, steps)`` to mean and
        standard deviation, all ``(T, B, D)``.
    :param Tensor start: z_0, ``(D,)``.
    :param Tensor mask: ``(T, B)``, steps that count.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self, moments: Callable[[Tensor, slice], Moments], start: Tensor, mask: Tensor
    ) -> None:
        self.moments, self.start, self.mask = moments, start, mask
        T, B = mask.shape
        super().__init__((B,), (T, len(start)), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw paths ``(B, T, D)``, step by step."""
        T, B = self.mask.shape
        z, path = self.start.expand(1, B, -1), []
        for t in range(T):
            mean, scale = self.moments(z, slice(t, t + 1))
            z = mean + scale * torch.randn_like(mean)
            path.append(z)
        return torch.cat(path).transpose(0, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of paths ``(B, T, D)``, all steps at once, ``(B,)``."""
        z = value.transpose(0, 1)
        previous = torch.cat([self.start.expand(1, z.shape[1], -1), z[:-1]])
        mean, scale = self.moments(previous, slice(None))
        each = dist.Normal(mean, scale).log_prob(z).sum(-1)
        return torch.where(self.mask, each, 0.0).sum(0)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Path:
        """Return itself: the plate around it has as many chorales as it has."""
        assert torch.Size(batch_shape) == self.batch_shape
        return self


def layers(*sizes: int) -> nn.Sequential:
    """Linear layers with rectifiers between them."""
    pairs = zip(sizes, sizes[1:], strict=False)
    found = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*found[:-1])


class DeepMarkov(nn.Module):
    """The networks of model and guide."""

    def __init__(self, dim: int, hidden_size: int, guide_size: int) -> None:
        super().__init__()
        self.start, self.guide_start = (nn.Parameter(torch.zeros(dim)) for _ in range(2))
        self.gate, self.proposed = (layers(dim, hidden_size, dim) for _ in range(2))
        self.linear, self.scale = nn.Linear(dim, dim), nn.Linear(dim, dim)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(dim))
            self.linear.bias.zero_()
        self.keys = layers(dim, hidden_size, hidden_size, KEYS)
        self.reader = nn.GRU(KEYS, guide_size)
        self.combine = nn.Linear(dim, guide_size)
        self.guide_mean, self.guide_scale = (nn.Linear(guide_size, dim) for _ in range(2))

    def transition(self, previous: Tensor, steps: slice) -> Moments:
        """Moments of z_t given z_{t-1}."""
        gate, proposed = self.gate(previous).sigmoid(), self.proposed(previous)
        mean = (1 - gate) * self.linear(previous) + gate * proposed
        return mean, nn.functional.softplus(self.scale(proposed.relu())) + 1e-4

    def model(self, rolls: PianoRolls, weight: float) -> None:
        """p(z, x), the former to the power of ``weight``."""
        pyro.module("deep", self)
        with pyro.plate("chorales", len(rolls.lengths)):
            with poutine.scale(scale=weight):
                z = pyro.sample("z", Path(self.transition, self.start, rolls.mask))
            odds = self.keys(z.transpose(0, 1))
            there = rolls.mask.unsqueeze(-1)
            keys = dist.Bernoulli(logits=odds.transpose(0, 1)).mask(there.transpose(0, 1))
            pyro.sample("x", keys.to_event(2), obs=rolls.x.transpose(0, 1))

    def guide(self, rolls: PianoRolls, weight: float) -> None:
        """q(z | x), to the power of ``weight``."""
        right = self._read(rolls)

        def moments(previous: Tensor, steps: slice) -> Moments:
            both = 0.5 * (self.combine(previous).tanh() + right[steps])
            return self.guide_mean(both), nn.functional.softplus(self.guide_scale(both)) + 1e-4

        with pyro.plate("chorales", len(rolls.lengths)), poutine.scale(scale=weight):
            pyro.sample("z", Path(moments, self.guide_start, rolls.mask))

    def _read(self, rolls: PianoRolls) -> Tensor:
        """What is read from the end of each chorale back to each step, ``(T, B, guide_size)``."""
        back = rolls.lengths - 1 - torch.arange(len(rolls.x)).unsqueeze(-1)  # (T, B)
        back = torch.where(back < 0, torch.arange(len(rolls.x)).unsqueeze(-1), back).unsqueeze(-1)
        found = self.reader(rolls.x.gather(0, back.expand_as(rolls.x)))[0]
        return found.gather(0, back.expand_as(found))


def deep_markov(data: JSBChorales, seed: int, **options: Any) -> dict[str, Any]:
    """Learn a Deep Markov Model by Pyro's ``SVI``.

    :param options: ``dim``, ``hidden_size``, ``guide_size``, ``learning_rate``, ``weight_decay``.
    :returns: with ``bound``, -ELBO of the test chorales, and ``test``, by importance sampling.
    """
    begin(seed)
    deep = DeepMarkov(options["dim"], options["hidden_size"], options["guide_size"])
    rates = {"lr": options["learning_rate"], "weight_decay": options["weight_decay"]}
    optim = ClippedAdam({**rates, "betas": (0.96, 0.999), "clip_norm": 10.0})
    svi = SVI(deep.model, deep.guide, optim, Trace_ELBO())

    def epoch(weight: float = 1.0) -> None:
        for batch in minibatches(data.train, BATCH):
            svi.step(batch, weight)

    def score(rolls: PianoRolls = data.valid) -> float:
        return svi.evaluate_loss(rolls, 1.0) / rolls.num_steps

    for n in range(ANNEALING):
        epoch(0.2 + 0.8 * n / ANNEALING)
    state, told = patiently(epoch, score, deep.state_dict, DEEP_EPOCHS, DEEP_PATIENCE)
    deep.load_state_dict(state)
    bound = sum(score(data.test) for _ in range(10)) / 10
    found = settled(lambda P: importance(deep, data.test, P), 100, 3000)
    sizes = num_numbers(deep) - num_numbers(deep.reader, deep.combine, deep.guide_mean)
    size = sizes - num_numbers(deep.guide_scale) - deep.guide_start.numel()
    return {**told, **found, "bound": bound, "parameters": size}


@torch.no_grad()
def importance(deep: DeepMarkov, rolls: PianoRolls, num_draws: int) -> float:
    """Nats per step, by p(z, x) / q(z | x) averaged over draws of each chorale's path."""
    log_ratio, B = [], len(rolls.lengths)
    for part in torch.arange(num_draws).split(25):
        several = PianoRolls(rolls.x.repeat(1, len(part), 1), rolls.lengths.repeat(len(part)))
        guide = poutine.trace(deep.guide).get_trace(several, 1.0)
        model = poutine.trace(poutine.replay(deep.model, guide)).get_trace(several, 1.0)
        for trace in (guide, model):
            trace.compute_log_prob()
        ratio = model.nodes["z"]["log_prob"] - guide.nodes["z"]["log_prob"]
        log_ratio.append((ratio + model.nodes["x"]["log_prob"]).view(-1, B))
    each = torch.cat(log_ratio).double().logsumexp(0) - math.log(num_draws)
    return -float(each.sum()) / rolls.num_steps
