"""What does a sweep cost, in units of ``torch.nn.LSTM``'s forward over the same particles?

    python -m benchmarks.sweep_cost [--rounds 9] [--device cuda]

B=200 sequences, P=10 particles, T=100 steps, K=50 states, H=64 units, V=5,000 symbols: the emission
table and one conditional sweep, against ``nn.LSTM(64, 64)`` without gradient on 2,000 sequences.
The multiplicative LSTM has 5/4 of the LSTM's products. All are run in turn, on one thread; the
median of the rounds' ratios is the result.
"""

import argparse

import pyro
import pyro.distributions as dist
import torch

from pyro_ssl import LSTMTransition, ssl_transition
from pyro_ssl.reading import Program
from pyro_ssl.smc import TableEmission, conditional_smc
from pyro_ssl.transitions import DiscreteTransition, MultiplicativeLSTMTransition

from ._common import print_ratios

B, P, T, K, H, V = 200, 10, 100, 50, 64, 5000


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)

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

    @torch.no_grad()
    def forward() -> None:
        lstm(inputs)

    @torch.no_grad()
    def sweep(every: int, transition: DiscreteTransition = lstm_transition) -> None:
        table = Program(model, (transition,)).run().grid.table()
        conditional_smc(transition, TableEmission(table), P, reference, ancestor_sampling=every)

    work = {
        "sweep, no ancestor sampling": lambda: sweep(0),
        "sweep, ancestor sampling every 10 steps": lambda: sweep(10),
        "sweep, ancestor sampling every 5 steps": lambda: sweep(5),
        "mLSTM sweep, no ancestor sampling": lambda: sweep(0, mlstm_transition),
        "mLSTM sweep, every 10 steps": lambda: sweep(10, mlstm_transition),
    }
    title = f"nn.LSTM forward, {B * P} sequences, 1 thread"
    print_ratios(title, forward, work, options.rounds, device)


if __name__ == "__main__":
    main()
