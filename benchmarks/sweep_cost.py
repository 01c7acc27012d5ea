"""What does a sweep cost, in units of ``torch.nn.LSTM``'s forward over the same particles?

    python -m benchmarks.sweep_cost [--batch 200 20 1] [--steps 100] [--rounds 9] [--device cuda]

B sequences, P=10 particles, T=100 steps, K=50 states, H=64 units, V=5,000 symbols: the emission
table and one conditional sweep, against ``nn.LSTM(64, 64)`` without gradient on 10 B sequences.
The multiplicative LSTM has 5/4 of the LSTM's products. All are run in turn, on one thread; the
median of the rounds' ratios is the result. At B=1 small operations are most of a sweep.
"""

import argparse

import pyro
import pyro.distributions as dist
import torch

from pyro_ssl import LSTMTransition, ssl_transition
from pyro_ssl.reading import Program
from pyro_ssl.smc import MarkovSurrogate, TableEmission, conditional_smc
from pyro_ssl.transitions import DiscreteTransition, MultiplicativeLSTMTransition

from ._common import print_ratios

P, K, H, V = 10, 50, 64, 5000


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[200, 20, 1])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for batch in options.batch:
        torch.manual_seed(0)
        compare(batch, options.steps, options.rounds, torch.device(options.device))


def compare(B: int, T: int, rounds: int, device: torch.device) -> None:
    """Print the ratios for B sequences of T steps."""
    lstm_transition = LSTMTransition(K, H).to(device)
    mlstm_transition = MultiplicativeLSTMTransition(K, H).to(device)
    phi = dist.Dirichlet(torch.full((K, V), 0.1, device=device)).sample()
    words = torch.randint(V, (T, B), device=device)
    reference = torch.randint(K, (T, B), device=device)
    lstm = torch.nn.LSTM(H, H).to(device)
    inputs = torch.randn(T, B * P, H, device=device)

    def model(transition: DiscreteTransition) -> None:
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    def table(transition: DiscreteTransition = lstm_transition) -> TableEmission:
        return TableEmission(Program(model, (transition,)).run().grid.table())

    matrix = dist.Dirichlet(torch.full((K, K), 0.5, device=device)).sample()
    twist = MarkovSurrogate(matrix).twist(table(), None)

    @torch.no_grad()
    def forward() -> None:
        lstm(inputs)

    @torch.no_grad()
    def sweep(
        every: int,
        transition: DiscreteTransition = lstm_transition,
        twist: TableEmission | None = None,
    ) -> None:
        emission = table(transition)
        conditional_smc(transition, emission, P, reference, ancestor_sampling=every, twist=twist)

    work = {
        "sweep, no ancestor sampling": lambda: sweep(0),
        "sweep, ancestor sampling every 10 steps": lambda: sweep(10),
        "sweep, ancestor sampling every 5 steps": lambda: sweep(5),
        "sweep, every 10 steps, twisted": lambda: sweep(10, twist=twist),
        "mLSTM sweep, no ancestor sampling": lambda: sweep(0, mlstm_transition),
        "mLSTM sweep, every 10 steps": lambda: sweep(10, mlstm_transition),
    }
    title = f"nn.LSTM forward, {B * P} sequences of {T} steps, 1 thread"
    print_ratios(title, forward, work, rounds, device)


if __name__ == "__main__":
    main()
