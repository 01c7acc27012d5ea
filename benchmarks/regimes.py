"""Regimes of linear dynamics whose order no first-order chain knows.

    python -m benchmarks.regimes [--seeds 3]

x_t ~ N(A_k x_{t-1} + b_k, diag R_k) in the plane, with k = z_t: rotations of three speeds. Regimes
come as 0, 1, 0, 2, ..., each for 8 steps, from a random place in that cycle: how long a regime has
lasted tells when it ends, and the one before tells what comes after 0. 40 sequences of 120 steps to
learn from, and as many to be judged by.

One regime by least squares; a Markov chain by exact EM, begun from regressions of pieces; and from
what that found, stochastic EM by particle Gibbs under a semi-Markov chain and under an LSTM; and
the LSTM from random parameters. The truth is the planted model. Log-likelihoods are log p(x_t |
x_{1:t-1}) per step, and errors those of the mean of forecasts, steps ahead, as a root mean square,
on the other sequences. Regimes are the most frequent ones of draws of p(z | x), there too, matched
one to one.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from benchmarks._common import mean_sd
from benchmarks._regimes_methods import (
    D,
    Dynamics,
    Fitted,
    K,
    markov,
    regimes,
    regressions,
    stochastic,
)
from benchmarks._results import Results, by_seed
from pyro_ssl import LSTMTransition, MarkovEM, MarkovTransition, ParticleFilter, ParticleGibbs
from pyro_ssl.transitions import SemiMarkovTransition

AHEAD = 20


@dataclass(frozen=True)
class Settings:
    """What the figures depend on."""

    sequences: int = 40
    length: int = 120
    stay: int = 8
    hidden: int = 16
    longest: int = 12
    markov_steps: int = 60
    steps: int = 200
    rate: float = 0.02
    hazard_rate: float = 0.2
    particles: int = 10
    filter_particles: int = 200


def planted(s: Settings) -> tuple[Dynamics, MarkovTransition, Tensor]:
    """The dynamics, the chain of places in the cycle, and the regime at each place."""
    angle, damping = torch.tensor([0.05, 0.35, -0.25]), torch.tensor([0.99, 0.97, 0.97])
    c, r = damping * angle.cos(), damping * angle.sin()
    matrix = torch.stack([torch.stack([c, -r], -1), torch.stack([r, c], -1)], -2)
    offset = torch.tensor([[0.1, 0.0], [0.0, 0.0], [0.0, -0.1]])
    regime = torch.tensor([0, 1, 0, 2]).repeat_interleave(s.stay)
    M = len(regime)
    chain = torch.eye(M).roll(1, 1)
    place = MarkovTransition(M, initial=torch.ones(M) / M, matrix=chain)
    return Dynamics(matrix, offset, torch.full((K, D), 0.2)), place, regime


def simulate(s: Settings) -> tuple[Tensor, Tensor]:
    """x ``(T, B, D)`` and its regimes ``(T, B)``."""
    dynamics, _, regime = planted(s)
    begin = torch.randint(len(regime), (s.sequences,))
    z = regime[(torch.arange(s.length).unsqueeze(1) + begin) % len(regime)]
    x = [torch.randn(s.sequences, D)]
    for z_t in z[1:]:
        x.append(dynamics.mean(x[-1], z_t) + dynamics.scale[z_t] * torch.randn(s.sequences, D))
    return torch.stack(x), z


def errors(model: Callable[..., Any], dynamics: Dynamics, x: Tensor, s: Settings) -> list[float]:
    """Root mean squares of forecasts 1 and AHEAD steps on, from every tenth step."""
    total = torch.zeros(AHEAD)
    starts = range(s.length // 3, s.length - AHEAD + 1, 10)
    for start in starts:
        pf = ParticleFilter(model, s.filter_particles)
        paths = pf.forecast(x[:start], horizon=AHEAD).paths  # (P, B, AHEAD)
        y = x[start - 1].expand(s.filter_particles, -1, -1)
        for t in range(AHEAD):
            y = dynamics.mean(y, paths[..., t])
            total[t] += (y.mean(0) - x[start + t]).square().mean() / len(starts)
    return total.sqrt()[[0, -1]].tolist()


def found(model: Callable[..., Any], regime: Tensor, x: Tensor, z: Tensor) -> float:
    """Share of steps whose regime is the most frequent of 20 draws, matched one to one."""
    sampler = ParticleGibbs(model, 10)
    sampler.run(x, num_samples=20, warmup_steps=5, disable_progbar=True)
    draws = regime[sampler.get_samples()["z"]]  # (20, B, T)
    guess = nn.functional.one_hot(draws, K).sum(0).argmax(-1).T
    orders = torch.tensor(list(itertools.permutations(range(K))))
    return max(float((order[guess] == z).double().mean()) for order in orders)


def scores(fitted: Fitted, regime: Tensor, x: Tensor, z: Tensor, s: Settings) -> dict[str, float]:
    """What is asked of each method, on other sequences than those it learned from."""
    transition, dynamics = fitted

    def model(x: Tensor) -> None:
        regimes(x, transition, dynamics)

    if isinstance(transition, MarkovTransition):  # exact
        parts = (transition.initial_logits, transition.transition_logits)
        log_p = MarkovEM(model).start_from(*(p.softmax(-1) for p in parts)).log_likelihood(x)
    else:
        log_p = ParticleFilter(model, s.filter_particles).log_likelihood(x)
    one, ahead = errors(model, dynamics, x, s)
    share = found(model, regime, x, z)
    return {"log p": float(log_p[1:].mean()), "regimes": share, "RMSE 1": one, "RMSE 20": ahead}


def run(seed: int, s: Settings) -> dict[str, Any]:
    """Simulate, fit and score, once."""
    pyro.set_rng_seed(seed)
    (x, _), (x_test, z_test), (dynamics, place, regime) = simulate(s), simulate(s), planted(s)
    one = regressions(x, torch.ones(*x.shape[:2], 1))
    start, hmm = markov(x, s.markov_steps)
    random = Dynamics(0.3 * torch.randn(K, D, D), torch.zeros(K, D), torch.ones(K, D))
    learned = partial(stochastic, x, num_steps=s.steps, num_particles=s.particles)
    one_state = torch.ones(1)
    fits: dict[str, Callable[[], Fitted]] = {
        "one regime": lambda: (
            MarkovTransition(1, initial=one_state, matrix=one_state[None]),
            one,
        ),
        "Markov chain, exact EM": lambda: (hmm.transition, start),
        "semi-Markov chain": lambda: learned(
            SemiMarkovTransition(K, s.longest), start, hmm, rate=s.hazard_rate
        ),
        "LSTM": lambda: learned(LSTMTransition(K, s.hidden), start, hmm, rate=s.rate),
        "LSTM, from random parameters": lambda: learned(
            LSTMTransition(K, s.hidden), random, None, rate=s.rate
        ),
        "truth": lambda: (place, Dynamics(*(part[regime] for part in dynamics))),
    }
    rows = {}
    for name, fit in fits.items():
        names = regime if name == "truth" else torch.arange(K)
        rows[name] = scores(fit(), names, x_test, z_test, s)
    return rows


def report(store: Results) -> None:
    """Print one table."""
    runs = list(store.runs.values())
    print(f"\nMean ± sd over {len(runs)} seeds; sequences that were kept aside")
    print("\n| regimes follow | log p per step | regimes found | RMSE 1 ahead | RMSE 20 ahead |")
    print("|---|---|---|---|---|")
    for name in runs[0]:
        cells = [
            mean_sd([run[name][what] for run in runs], 3)
            for what in ("log p", "regimes", "RMSE 1", "RMSE 20")
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    by_seed("regimes", __doc__, Settings(), run, lambda store, _: report(store))
