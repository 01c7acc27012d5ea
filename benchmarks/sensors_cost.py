"""What does a fit of a Gaussian SSL to many sensors cost?

    python -m benchmarks.sensors_cost [--rounds 9]

50 sensors of 16 series of 300 steps, D=8, H=32, P=10, R diagonal, in single precision, in which
sweeps are compiled: a sweep of particle Gibbs over all series, the reading of the emission off the
model included, and with a twist that is fitted once, in units of the forward of ``nn.LSTM(8, 32)``
over the same 160 particles; and the sweep alone. Before that, seconds of an epoch of stochastic EM,
of one path and of the default, eight: the median of three. One thread; jobs in turn, the median of
the rounds is the result.
"""

import argparse
import statistics

import torch

from pyro_ssl import GaussianSSL, ParticleGibbs
from pyro_ssl.reading import Program, read_emission
from pyro_ssl.smc import conditional_smc

from ._common import print_ratios

B, P, T, D, H, E = 16, 10, 300, 8, 32, 50


def main() -> None:
    """Print ratios, and seconds of an epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    o = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = torch.randn(T, B, D).cumsum(0) / T**0.5
    x = path @ torch.randn(D, E) + 0.3 * torch.randn(T, B, E)
    fits = {}
    for linear in (False, True):
        name = "around a linear chain" if linear else "by steps from z"
        ssl = GaussianSSL(D, hidden_size=H, linear=linear, noise="diagonal")
        for num_paths in (1, 8):
            how = {"num_particles": P, "num_paths": num_paths, "linear_steps": 20}
            history = ssl.fit(x, num_epochs=4, disable_progbar=True, **how)
            seconds = statistics.median(record.seconds for record in history[1:])
            print(f"an epoch, {name}, {num_paths} paths: {seconds:.2f} s", flush=True)
        fits[name] = ssl

    lstm, inputs = torch.nn.LSTM(D, H), torch.randn(T, B * P, D)

    @torch.no_grad()
    def forward() -> None:
        lstm(inputs)

    work = {}
    for name, ssl in fits.items():
        for what, twist in (("", None), (", twisted", "markov")):
            sampler = ParticleGibbs(ssl.model, P, twist=twist)
            reference = sampler.sweep(None, x)

            def sweep(sampler=sampler, reference=reference) -> None:
                sampler.sweep(reference, x)

            work[f"a sweep, {name}{what}"] = sweep
        with torch.no_grad():
            run = Program(ssl.model, (x,), {}).run()
            emission, path = read_emission(run), reference.transpose(0, 1)

        @torch.no_grad()
        def alone(run=run, emission=emission, path=path) -> None:
            conditional_smc(run.transition, emission, P, path)

        work[f"the sweep alone, {name}"] = alone
    title = f"nn.LSTM forward, {B * P} sequences, 1 thread"
    print_ratios(title, forward, work, o.rounds, torch.device("cpu"))


if __name__ == "__main__":
    main()
