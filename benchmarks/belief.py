"""What does an LSTM trained on an HMM know, and how well do extracted HMMs stand for it?

    python -m benchmarks.belief [--seeds 3]

A hidden Markov model of 4 states and 6 symbols makes the text, 100 symbols to a sequence. A tenth
as much again chooses the LSTM's epoch; all figures are of a held-out text as long as the first. The
LSTM is a ``LanguageModel`` of 32 units. Measured are how far its predictions are from the true
filter's (KL), and how much of the filter's belief its state holds. HMMs are extracted from it by
counting, in groups of h beside the last symbol or of h alone; those of the first kind are also
refined by 10 epochs of EM. For each number of states: how far their predictions are from the
LSTM's, and their perplexity beside the true HMM's.

Each seed is stored in ``--results`` when it is done, and skipped the next time; the picture, of the
first seed, is written beside it.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks._common import mean_sd
from benchmarks._results import Results, by_seed
from pyro_ssl import LanguageModel
from pyro_ssl.belief import (
    ExtractedHMM,
    Fidelity,
    fidelity,
    mutual_information,
    to_hmm,
    visited_states,
)
from pyro_ssl.plotting import plot_fidelity

T, V = 100, 6


@dataclass(frozen=True)
class Settings:
    """What the figures depend on."""

    symbols: int = 50_000
    states: list[int] = field(default_factory=lambda: [2, 4, 8, 16, 32, 64])
    hidden: int = 32
    epochs: int = 40


def true_hmm() -> ExtractedHMM:
    """Four states in a ring, each of two symbols of its own or its neighbour's."""
    turn = torch.eye(4).roll(1, 1)
    matrix = 0.88 * torch.eye(4) + 0.1 * turn + 0.01 * (turn @ turn + turn @ turn @ turn)
    emission = torch.full((4, V), 0.05)
    for state, (first, second) in enumerate([(0, 1), (1, 2), (3, 4), (5, 4)]):
        emission[state, first], emission[state, second] = 0.5, 0.3
    return ExtractedHMM(torch.full((4,), 0.25), matrix, emission)


def train_lstm(train: Tensor, valid: Tensor, s: Settings) -> LanguageModel:
    """Fit the network, with early stopping by the validation text."""
    model = LanguageModel(V, embedding_size=8, hidden_size=s.hidden, dropout=0.0)
    model.fit(
        train,
        valid=(valid, None),
        num_epochs=s.epochs,
        batch_size=20,
        learning_rate=0.005,
        patience=5,
        disable_progbar=True,
    )
    return model


def stored(found: Fidelity) -> dict[str, Any]:
    """The part of a comparison that goes into JSON."""
    return {name: value for name, value in found._asdict().items() if name != "kl_by_step"}


def run(seed: int, s: Settings) -> dict[str, Any]:
    """Train, extract, compare, once."""
    torch.manual_seed(seed)
    started, truth, B = time.perf_counter(), true_hmm(), s.symbols // T
    words = truth.distribution(T).sample((2 * B + B // 10,)).T.contiguous()
    train, valid, test = words.split([B, B // 10, B], 1)
    model = train_lstm(train, valid, s)
    information = mutual_information(visited_states(model, test), truth.filter(test).filtered)
    surrogates: dict[str, list[dict[str, Any]]] = {}
    for n in s.states:
        counted = to_hmm(model, train, num_states=n, num_symbols=V)
        alone = to_hmm(model, train, num_states=n, num_symbols=V, symbol_weight=0.0)
        hmms = {"counted": counted, "counted, h alone": alone, "after EM": counted.refine(train)}
        for name, hmm in hmms.items():
            surrogates.setdefault(name, []).append(stored(fidelity(model, hmm, test)))
    return {
        "epochs": len(model.history),
        "exact": truth.perplexity(test),
        "frequencies": to_hmm(model, train, num_states=1, num_symbols=V).perplexity(test),
        "network": stored(fidelity(truth, model, test)),
        "information": {k: v for k, v in information._asdict().items() if k != "decoded"},
        "surrogates": surrogates,
        "truth": stored(fidelity(model, truth, test)),
        "seconds": time.perf_counter() - started,
    }


def report(store: Results) -> None:
    """Print what the LSTM knows, and one table of all surrogates."""
    runs = list(store.runs.values())
    nets, told = ([r[key] for r in runs] for key in ("network", "information"))

    print(f"\nMean ± sd over {len(runs)} seeds")
    print(f"perplexity: true HMM {mean_sd([r['exact'] for r in runs], 3)}, ", end="")
    print(f"LSTM {mean_sd([n['surrogate_perplexity'] for n in nets], 3)}, ", end="")
    print(f"frequencies alone {mean_sd([r['frequencies'] for r in runs], 3)}")
    print(f"KL(true filter ‖ LSTM) {mean_sd([n['kl'] for n in nets], 4)} nats a symbol; ", end="")
    print(f"same symbol likeliest at {mean_sd([100 * n['agreement'] for n in nets], 1)} % of steps")
    print(f"h holds at least {mean_sd([i['held'] for i in told], 3)} of the ", end="")
    print(
        f"{mean_sd([i['available'] for i in told], 3)} nats that the past tells of the state ",
        end="",
    )
    print(f"({mean_sd([100 * i['share'] for i in told], 1)} %); ", end="")
    print(f"R² of the belief {mean_sd([i['r_squared'] for i in told], 3)}")
    print("\n| surrogate | states | KL(LSTM ‖ it) | same symbol likeliest, % ", end="")
    print("| perplexity | % above the true HMM's |\n|---|---|---|---|---|---|")
    rows = [
        (name, [r["surrogates"][name][i] for r in runs])
        for name in runs[0]["surrogates"]
        for i in range(len(runs[0]["surrogates"][name]))
    ]
    for name, found in [*rows, ("true HMM", [r["truth"] for r in runs])]:
        perplexities = [f["surrogate_perplexity"] for f in found]
        above = [100 * (p / r["exact"] - 1) for p, r in zip(perplexities, runs, strict=True)]
        cells = [
            mean_sd([f["kl"] for f in found], 4),
            mean_sd([100 * f["agreement"] for f in found], 1),
            mean_sd(perplexities, 3),
            mean_sd(above, 1),
        ]
        print(f"| {name} | {found[0]['num_states']} | {' | '.join(cells)} |")


def plot(store: Results, path: Path) -> None:
    """Draw the first seed's KL against the number of states."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    first = store.runs["0"]
    nothing = torch.empty(0)
    curves = {
        name: [Fidelity(kl_by_step=nothing, **each) for each in found]
        for name, found in first["surrogates"].items()
    }
    plot_fidelity(curves, {"true HMM": first["truth"]["kl"]}, ax=figure.subplots())
    figure.savefig(path, dpi=150)


def show(store: Results, picture: Path) -> None:
    """Print the table, and plot."""
    report(store)
    plot(store, picture)


if __name__ == "__main__":
    by_seed("belief", __doc__, Settings(), run, show)
