"""What do global latents cost in particle Gibbs, and what do they bring?

    python -m benchmarks.globals [--draws 500] [--warmup 300]

Sequences of T=100 steps, B=50, from K=2 states with a normal emission each, whose means and scales
(4 numbers) are latent: the means have a closed form given the rest, the scales go by NUTS. First,
the parts of one iteration under an LSTM transition: the sweep of all paths, and the update of the
globals given them. Then, under a Markov transition that is known, effective draws a second of the 4
numbers beside NUTS on the model whose paths are summed out (``DiscreteHMM`` of Pyro): the rival
that has no LSTM. Both from the same start; one chain each.
"""

from __future__ import annotations

import argparse
import time

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from pyro_ssl import LSTMTransition, MarkovTransition, ParticleGibbs, ssl_transition
from pyro_ssl.bench import machine

T, B, K = 100, 50, 2
MATRIX = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
START = torch.tensor([0.5, 0.5])


def parameters() -> tuple[Tensor, Tensor]:
    """Mean and scale of each state, from their priors."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5).expand([K]).to_event(1))
    return mean, scale


def with_paths(transition):
    """The model as this library takes it."""

    def model(x: Tensor) -> None:
        mean, scale = parameters()
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(mean[z], scale[z]), obs=x[t])

    return model


def summed_out(x: Tensor) -> None:
    """The same under the Markov transition, its paths summed out by Pyro."""
    mean, scale = parameters()
    emission = dist.Normal(mean, scale)
    # Pyro's chain starts one step before the first observation.
    chain = dist.DiscreteHMM(START.log(), MATRIX.log(), emission, duration=T)
    with pyro.plate("sequences", B):
        pyro.sample("x", chain, obs=x.T)


def simulate() -> Tensor:
    """Data from the Markov chain: ``(T, B)``."""
    z, rows = torch.zeros(B, dtype=torch.long), []
    for _ in range(T):
        z = dist.Categorical(MATRIX[z]).sample()
        rows.append(dist.Normal(torch.tensor([-1.0, 1.5])[z], 0.7).sample())
    return torch.stack(rows)


def effective(draws: dict[str, Tensor]) -> Tensor:
    """Print the means of the 4 numbers, of one chain; return their effective sample sizes."""
    both = torch.cat([draws["mean"], draws["scale"]], -1).double()
    print("  means", [f"{v:.3f}" for v in both.mean(0)])
    return effective_sample_size(both.unsqueeze(0), chain_dim=0, sample_dim=1)


def of_particle_gibbs(model, x: Tensor, options: argparse.Namespace) -> tuple[Tensor, float]:
    """Effective sample sizes, and seconds after warm-up."""
    marks: list[float] = []
    pg = ParticleGibbs(model, options.particles)
    how = {"num_samples": options.draws, "warmup_steps": options.warmup}
    pg.run(x, **how, disable_progbar=True, hook_fn=lambda *_: marks.append(time.perf_counter()))
    return effective(pg.get_samples()), marks[-1] - marks[options.warmup - 1]


def of_nuts(x: Tensor, options: argparse.Namespace) -> tuple[Tensor, float]:
    """The same for Pyro's NUTS on the model without paths."""
    marks: list[float] = []
    mcmc = MCMC(
        NUTS(summed_out),
        num_samples=options.draws,
        warmup_steps=options.warmup,
        disable_progbar=True,
        hook_fn=lambda *_: marks.append(time.perf_counter()),
    )
    mcmc.run(x)
    return effective(mcmc.get_samples()), marks[-1] - marks[options.warmup - 1]


def parts_of_an_iteration(x: Tensor, options: argparse.Namespace) -> None:
    """Milliseconds of the sweep, and of the globals given its paths."""
    model = with_paths(LSTMTransition(K, 32))
    pg = ParticleGibbs(model, options.particles)
    pg.run(x, num_samples=5, warmup_steps=options.warmup, disable_progbar=True)
    assert pg.kernel is not None
    draws = pg.get_samples()
    given = {name: draws[name][-1] for name in ("mean", "scale")}
    known = ParticleGibbs(pyro.condition(model, given), options.particles)
    known.run(x, num_samples=5, disable_progbar=True)
    assert known.kernel is not None
    times: dict[str, list[float]] = {"all": [], "paths alone": []}
    params = {"all": pg.kernel.initial_params, "paths alone": known.kernel.initial_params}
    for _ in range(30):
        for name, kernel in (("all", pg.kernel), ("paths alone", known.kernel)):
            start = time.perf_counter()
            params[name] = kernel.update(params[name])
            times[name].append(time.perf_counter() - start)
    whole, paths = (sorted(times[name])[15] * 1e3 for name in times)
    print(
        f"LSTM transition: {whole:.1f} ms an iteration, {paths:.1f} of them without globals: "
        f"they take {whole - paths:.1f} ms, {(whole - paths) / paths:.1f} x the rest"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in {"draws": 500, "warmup": 300, "particles": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    print(machine(torch.device("cpu")))
    x = simulate()
    parts_of_an_iteration(x, options)
    chain = MarkovTransition(K, initial=START @ MATRIX, matrix=MATRIX)
    rows = {
        "particle Gibbs": of_particle_gibbs(with_paths(chain), x, options),
        "NUTS, paths summed out": of_nuts(x, options),
    }
    for name, (sizes, seconds) in rows.items():
        print(
            f"{name:>24}: {seconds:6.1f} s for {options.draws} draws, effective "
            f"{float(sizes.min()):.0f} to {float(sizes.max()):.0f}, "
            f"{float(sizes.min()) / seconds:.1f} a second at the least"
        )


if __name__ == "__main__":
    main()
