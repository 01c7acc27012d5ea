"""What does a sweep over vectors cost, in units of ``torch.nn.LSTM``'s forward?

    python -m benchmarks.gaussian_cost [--rounds 9] [--device cuda]

B=100 sequences, P=10 particles, T=100 steps, D=2, H=32: one conditional sweep over Gaussian latents
against ``nn.LSTM(2, 32)`` without gradient on the same 1,000 particles. The floor's input is D
numbers a step, as the transition's is. Below the sweeps are the parts of one: the transition's
steps alone, and what comes on top of them by kind of emission. One thread; all in turn, the median
of the rounds' ratios is the result.
"""

import argparse
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_ssl import ssl_transition
from pyro_ssl.reading import Program, read_emission
from pyro_ssl.smc import conditional_smc
from pyro_ssl.transitions import GaussianLSTMTransition

from ._common import print_ratios

B, P, T, D, H = 100, 10, 100, 2, 32


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    transitions = {
        reads: GaussianLSTMTransition(D, H, residual=True, min_scale=0.1, reads=reads).to(device)
        for reads in ("positions", "increments")
    }
    lstm = torch.nn.LSTM(D, H).to(device)
    inputs = torch.randn(T, B * P, D, device=device)
    reference = torch.randn(T, B, D, device=device).cumsum(0) * 0.1
    x = reference + 0.3 * torch.randn_like(reference)
    counts = torch.poisson(x.exp())

    @torch.no_grad()
    def forward() -> None:
        lstm(inputs)

    def linear(z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(z, 0.3).to_event(1)

    def poisson(z: Tensor) -> dist.TorchDistribution:
        return dist.Poisson(z.exp()).to_event(1)

    def signs(z: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=z).to_event(1)

    def outliers(z: Tensor) -> dist.TorchDistribution:
        return dist.StudentT(4.0, z, 0.3).to_event(1)

    def sweep(
        emission: Callable[[Tensor], dist.TorchDistribution],
        data: Tensor,
        every: int,
        reads: str = "positions",
    ) -> Callable[[], object]:
        def model() -> None:
            with pyro.plate("sequences", B):
                for t, z in ssl_transition("z", transitions[reads], T):
                    pyro.sample("x", emission(z), obs=data[t])

        def job() -> None:
            run = Program(model).run()
            conditional_smc(
                run.transition, read_emission(run), P, reference, ancestor_sampling=every
            )

        return job

    @torch.no_grad()
    def steps() -> None:
        transition = transitions["positions"]
        step, state, z = transition.stepper(), transition.initial_state((B * P,)), None
        for t in range(T):
            moments, state = step(z, state, t)
            z = moments.mean

    work = {
        "the transition's steps alone": steps,
        "sweep, no ancestor sampling": sweep(linear, x, 0),
        "sweep, ancestor sampling every 10 steps": sweep(linear, x, 10),
        "... that reads increments": sweep(linear, x, 10, "increments"),
        "Poisson counts, no ancestor sampling": sweep(poisson, counts, 0),
        "... ancestor sampling every 10 steps": sweep(poisson, counts, 10),
        "Bernoulli, no ancestor sampling": sweep(signs, (x > 0).to(x.dtype), 0),
        "Student-t, no ancestor sampling": sweep(outliers, x, 0),
    }
    title = f"nn.LSTM forward, {B * P} sequences, 1 thread"
    print_ratios(title, forward, work, options.rounds, device)


if __name__ == "__main__":
    main()
