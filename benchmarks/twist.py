"""What do twisted particles gain, and do they ever lose?

    python -m benchmarks.twist --data FOLDER [--sequences 1240] [--epochs 4] [--sweeps 20]

FOLDER holds WikiText-2 (``wiki.train.tokens`` and the others, packed or not). A topical SSL, K=50
states and H=64 units, is fitted to passages of T=100 tokens; then, at the parameters found, on 50
of its passages: the standard deviation of log Ẑ of a passage and the perplexity that is read off
Ẑ, by number of particles; what a conditional sweep renews, as a share of what two nearly
independent draws differ in, over all steps and over the first ten; and its time, in units of the
untwisted sweep with the same settings.

Then models whose surrogates are poor: LSTMs with random weights, sharper and sharper; a latent that
copies the first one, or one of some steps before; and a surrogate that is wrong on purpose. There,
moves per second of the library's choice are compared with those of no twist.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_ssl import LSTMTransition, ParticleGibbs, TopicalSSL, ssl_transition
from pyro_ssl.datasets import wikitext2_passages
from pyro_ssl.smc import (
    MarkovSurrogate,
    Surrogate,
    TableEmission,
    conditional_smc,
    fit_surrogate,
    surrogate_along,
)
from pyro_ssl.transitions import DiscreteTransition, PathDistribution

K, T, P, H, V, B = 10, 100, 10, 16, 20, 32


class Copied(NamedTuple):
    """The last latents, the oldest first; -1 where there is none yet."""

    last: Tensor


class Copying(DiscreteTransition):
    """z_t is z_{t-L} with probability .9, else uniform; L = 0: z_1."""

    def __init__(self, num_states: int, lag: int) -> None:
        super().__init__(num_states)
        self.lag = lag
        self.register_buffer("nothing", -torch.ones(()))

    def initial_state(self, batch_shape):
        """No latent yet."""
        return Copied(self.nothing.expand(*batch_shape, max(self.lag, 1)))

    def step_logits(self, z_prev, state, inputs=None):
        """Log-probabilities."""
        last, K = state.last, self.num_states
        if z_prev is not None:
            now = z_prev.unsqueeze(-1).to(last.dtype)
            if self.lag:
                last = torch.cat([last[..., 1:], now], -1)
            else:
                last = torch.where(last < 0, now, last)
        old = last[..., 0].long()
        copied = 0.1 / K + 0.9 * torch.nn.functional.one_hot(old.clamp(min=0), K)
        return torch.where((old < 0).unsqueeze(-1), 1.0 / K, copied).log(), Copied(last)


def differ(a: Tensor, b: Tensor) -> Tensor:
    """Share of latents that differ: over all steps, over the first ten."""
    changed = (a != b).double()
    return torch.stack([changed.mean(), changed[:10].mean()])


def repeated(emission: TableEmission, n: int) -> TableEmission:
    """N copies of every sequence."""
    return TableEmission(emission.table.repeat(1, n, 1))


class Renewal(NamedTuple):
    """What conditional sweeps change, and seconds a sweep."""

    moved: Tensor
    seconds: float


def renewal(
    transition: DiscreteTransition,
    emission: TableEmission,
    path: Tensor,
    num_sweeps: int,
    surrogates: dict[str, Surrogate | None],
    **settings: int,
) -> dict[str, Renewal]:
    """Sweep on with each surrogate in turn, so that a busy machine slows all of them alike."""
    paths = dict.fromkeys(surrogates, path)
    moved = {name: torch.zeros(2, dtype=torch.float64) for name in surrogates}
    seconds: dict[str, list[float]] = {name: [] for name in surrogates}
    for _ in range(num_sweeps):
        for name, surrogate in surrogates.items():
            began = time.process_time()
            twist = None if surrogate is None else surrogate.twist(emission)
            sweep = conditional_smc(transition, emission, P, paths[name], twist=twist, **settings)
            seconds[name].append(time.process_time() - began)
            moved[name] += differ(paths[name], sweep.path) / num_sweeps
            paths[name] = sweep.path
    return {
        name: Renewal(moved[name], sorted(values)[len(values) // 2])
        for name, values in seconds.items()
    }


def report_text(options: argparse.Namespace) -> None:
    """The fitted text model."""
    split = wikitext2_passages(options.data, max_test=100)
    words = split.train.words[:, : options.sequences]
    torch.manual_seed(0)
    ssl = TopicalSSL(50, split.vocabulary.words, hidden_size=64, concentration=0.03)
    how = {"batch_size": 250, "markov_steps": 40, "markov_starts": 1, "draw_transition": False}
    ssl.fit(words, num_epochs=options.epochs, **how)
    transition, phi = ssl.transition.eval(), ssl.phi
    assert phi is not None
    emission = TableEmission(phi.log().T[words[:, :50]])
    surrogate = fit_surrogate(transition, len(words))
    twist = surrogate.twist(emission)
    print(f"\nText: {words.shape[1]} passages, {options.epochs} epochs.\n")
    print(
        "| P | sd of log Ẑ, plain | twisted | perplexity, plain | twisted |\n|---|---|---|---|---|"
    )
    for num_particles, runs in ((1, 20), (10, 20), (100, 5)):
        cells = []
        for given in (None, repeated(TableEmission(twist.table), runs)):
            sweep = conditional_smc(
                transition, repeated(emission, runs), num_particles, twist=given
            )
            log_z = sweep.log_likelihood.sum(0).view(runs, -1)
            sd, score = log_z.var(0).mean().sqrt(), (-log_z.mean() / len(words)).exp()
            cells.append((float(sd), float(score)))
        (sd, score), (sd_twisted, score_twisted) = cells
        print(
            f"| {num_particles} | {sd:.2f} | {sd_twisted:.2f} | {score:.1f} | {score_twisted:.1f} |"
        )
    one, other = (conditional_smc(transition, emission, 100, twist=twist).path for _ in range(2))
    apart = differ(one, other)
    print("\n| ancestor sampling | twist | renewed, of independent draws | first ten | time |")
    print("|---|---|---|---|---|")
    along = MarkovSurrogate.from_sums(*surrogate_along(transition, other))
    surrogates = {"none": None, "prior paths": surrogate, "along paths": along}
    for every in (0, 10):
        found = renewal(
            *(transition, emission, one, options.sweeps, surrogates), ancestor_sampling=every
        )
        for name, row in found.items():
            share = row.moved / apart
            cost = row.seconds / found["none"].seconds
            print(f"| {every} | {name} | {share[0]:.3f} | {share[1]:.3f} | {cost:.2f} |")


def poor_models() -> dict[str, DiscreteTransition]:
    """Transitions that no chain is like."""
    models: dict[str, DiscreteTransition] = {}
    for sharpness in (1.0, 4.0, 8.0, 16.0):
        models[f"LSTM, weights x {sharpness:.0f}"] = LSTMTransition(K, H)
        with torch.no_grad():
            for parameter in models[f"LSTM, weights x {sharpness:.0f}"].parameters():
                parameter.mul_(sharpness)
    return models | {"copies z_1": Copying(K, 0), "copies z_{t-5}": Copying(K, 5)}


def report_poor(options: argparse.Namespace) -> None:
    """The library's choice against no twist, in moves per second."""
    print("\n| model | twisted? | renewed, none | chosen | moves per second, chosen over none |")
    print("|---|---|---|---|---|")
    for name, transition in poor_models().items():
        transition.requires_grad_(False)
        phi = dist.Dirichlet(torch.full((K, V), 0.3)).sample()
        z = PathDistribution(transition, T).sample((B,))
        words = dist.Categorical(phi[z]).sample().T.contiguous()

        def model(transition=transition, words=words, phi=phi):
            with pyro.plate("sequences", B):
                for t, z in ssl_transition("z", transition, T):
                    pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

        surrogate = fit_surrogate(transition, T)
        shuffled = MarkovSurrogate(surrogate.matrix[torch.randperm(K)])  # type: ignore[attr-defined]
        for how, given in (("markov", "markov"), ("wrong", shuffled)):
            pg = ParticleGibbs(model, P, twist=given)
            pg.run(num_samples=8, warmup_steps=8, disable_progbar=True)
            assert pg.kernel is not None
            taken = pg.diagnostics()["twisted"]
            emission = TableEmission(phi.log().T[words])
            found = renewal(
                *(transition, emission, z.T.contiguous(), options.sweeps),
                {"none": None, "chosen": pg.kernel.surrogate},
                ancestor_sampling=10,
            )
            none, chosen = found["none"], found["chosen"]
            rate = (chosen.moved[0] / chosen.seconds) / (none.moved[0] / none.seconds)
            print(
                f"| {name}, {how} | {'yes' if taken else 'no'} | {none.moved[0]:.3f} | "
                f"{chosen.moved[0]:.3f} | {rate:.2f} |",
                flush=True,
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of WikiText-2; without it, the text is left out")
    parser.add_argument("--sequences", type=int, default=1240)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sweeps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.data:
        report_text(options)
    report_poor(options)


if __name__ == "__main__":
    main()
