"""How much does ancestor sampling move the paths, per sweep and per second?

    python -m benchmarks.mixing

K=10 states, T=200 steps, P=10 particles, data simulated from LSTM models with a mild and with a
sharp prior. A move is a latent that one sweep changes; its rate is given as a share of the rate at
which two independent posterior draws differ (from unconditional SMC at P=2,000), over all steps and
over the first ten, which plain conditional SMC reaches last.
"""

import argparse
import time

import torch
from torch import Tensor

from pyro_ssl import LSTMTransition
from pyro_ssl.smc import TableEmission, conditional_smc
from pyro_ssl.transitions import PathDistribution

K, T, P, H, V, B = 10, 200, 10, 16, 20, 32


def simulate(sharpness: float) -> tuple[LSTMTransition, TableEmission]:
    """Return a random LSTM prior, weights times ``sharpness``, and the emission of its data."""
    transition = LSTMTransition(K, H)
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter.mul_(sharpness)
    phi = torch.distributions.Dirichlet(torch.full((K, V), 0.3)).sample().clamp(min=1e-6)
    z = PathDistribution(transition, T).sample((B,))
    x = torch.distributions.Categorical(phi[z]).sample().T
    return transition, TableEmission(phi.log().T[x])


def differ(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Share of latents that differ, over all steps and over the first ten."""
    changed = (a != b).double()
    return float(changed.mean()), float(changed[:10].mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, sharpness in (("mild", 1.0), ("sharp", 4.0)):
        torch.manual_seed(0)
        transition, emission = simulate(sharpness)
        start, other = (conditional_smc(transition, emission, 2000).path for _ in range(2))
        apart = differ(start, other)
        print(
            f"\n{name} prior; independent draws differ in {apart[0]:.3f}, first ten {apart[1]:.3f}"
        )
        print(f"{'ancestor sampling':<20}{'resampling':<13}{'all':>7}{'first ten':>11}", end="")
        print(f"{'ms a sweep':>12}{'first ten, per s':>18}")
        for every in (0, 20, 10, 5, 1):
            for resampling in ("systematic", "multinomial"):
                path, moved, began = start, torch.zeros(2), time.perf_counter()
                for _ in range(options.sweeps):
                    new = conditional_smc(
                        transition,
                        emission,
                        P,
                        path,
                        resampling=resampling,
                        ancestor_sampling=every,
                    ).path
                    moved += torch.tensor(differ(path, new)) / options.sweeps
                    path = new
                seconds = (time.perf_counter() - began) / options.sweeps
                share = [float(moved[i]) / apart[i] for i in range(2)]
                label = f"every {every} steps" if every else "never"
                print(f"{label:<20}{resampling:<13}{share[0]:>7.3f}{share[1]:>11.3f}", end="")
                print(f"{seconds * 1e3:>12.0f}{share[1] / seconds:>18.2f}")


if __name__ == "__main__":
    main()
