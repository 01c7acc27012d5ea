"""What does an epoch of stochastic EM cost, over one of the LSTM language model?

    python -m benchmarks.epoch_cost [--rounds 7] [--device cuda]

B=200 sequences, T=100 steps, V=5,000 symbols, H=64 units in both. An epoch of the topical SSL
(K=50 topics, P=10 particles) is a step of stochastic EM as ``TopicalSSL.fit`` makes it: emission
table, one conditional sweep, one gradient step and the counts. An epoch of the language model
(embedding of 64) is ``LanguageModel.fit`` over the same words, with all sequences in one batch and
with 20 at a time. All are run in turn, on one thread; the median of the rounds' ratios is the
result.
"""

import argparse
import statistics
from collections.abc import Callable

import pyro
import torch
from pyro.optim import AdamW

from benchmarks._common import timed
from pyro_ssl import StochasticEM, TopicalSSL
from pyro_ssl.models import LanguageModel

B, P, T, K, H, V = 200, 10, 100, 50, 64, 5000


def stochastic_em(words: torch.Tensor, cell: str, every: int) -> Callable[[], object]:
    """Return a step of stochastic EM, with the settings of ``TopicalSSL.fit``."""
    ssl = TopicalSSL(K, V, hidden_size=H, cell=cell).to(words.device)
    em = StochasticEM(
        ssl.model,
        AdamW({"lr": 0.01}),
        P,
        ancestor_sampling=every,
        dirichlet="mean",
        averaging=0.9,
        draw_dirichlet=True,
    )
    store = pyro.get_param_store()
    with store.scope() as own:  # all models name their parameters alike
        pass

    def step() -> None:
        with store.scope(own):
            em.step(words)

    return step


def language_model(words: torch.Tensor, batch_size: int) -> Callable[[], object]:
    """Return an epoch of the language model."""
    model = LanguageModel(V, embedding_size=H, hidden_size=H).to(words.device)
    return lambda: model.fit(words, num_epochs=1, batch_size=batch_size, disable_progbar=True)


def main() -> None:
    """Print the seconds and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    words = torch.randint(V, (T, B), device=device)
    floors = {f"batches of {size}": language_model(words, size) for size in (B, 20)}
    work = {
        f"{name}, {'ancestor sampling every 10' if every else 'no ancestor sampling'}": (
            stochastic_em(words, cell, every)
        )
        for cell, name in (("lstm", "LSTM"), ("mlstm", "mLSTM"))
        for every in (0, 10)
    }
    jobs = {**floors, **work}
    for job in jobs.values():  # warm up; the second step on, each starts from a path
        for _ in range(2):
            timed(job, device)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, job in jobs.items():
            seconds[name].append(timed(job, device))

    print("one epoch of the language model, 1 thread")
    for name in floors:
        low, middle, high = spread(seconds[name])
        print(f"  {name:<36} {middle:7.3f} s  ({low:.3f} to {high:.3f})")
    print("one epoch of stochastic EM, in seconds and in epochs of the language model")
    for name in work:
        low, middle, high = spread(seconds[name])
        print(f"  {name:<36} {middle:7.3f} s  ({low:.3f} to {high:.3f})")
        for floor in floors:
            ratios = [a / b for a, b in zip(seconds[name], seconds[floor], strict=True)]
            low, middle, high = spread(ratios)
            print(f"    {'over ' + floor:<34} {middle:7.2f} x  ({low:.2f} to {high:.2f})")


def spread(values: list[float]) -> tuple[float, float, float]:
    """Return the lowest, the median and the highest."""
    return min(values), statistics.median(values), max(values)


if __name__ == "__main__":
    main()
