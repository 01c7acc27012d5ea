"""What does an LSTM trained on an HMM know, and how well do extracted HMMs stand for it?

    python -m benchmarks.belief [--symbols 50000] [--states 2 4 8 16 32 64] [--seed 0]
        [--pictures FOLDER]

A hidden Markov model of 4 states and 6 symbols makes a text, 100 symbols to a sequence; a tenth as
much chooses the LSTM's epoch, and as much again is held out, of which all figures are. The LSTM is
a ``LanguageModel`` of 32 units. Asked are: how far its predictions are from the true filter's (KL),
how much of the filter's belief its state holds, and for HMMs extracted from it, by number of
states, how far their predictions are from its own, and their perplexity beside the true HMM's: as
counted, in groups of the state h with the symbol it has just read, or of h alone, and after 10
epochs of EM from the former.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from pyro_ssl import LanguageModel
from pyro_ssl.belief import (
    BeliefInformation,
    ExtractedHMM,
    Fidelity,
    fidelity,
    linear_gap,
    mutual_information,
    to_hmm,
    visited_states,
)

T, V = 100, 6


def true_hmm() -> ExtractedHMM:
    """Four states in a ring, each of two symbols of its own or its neighbour's."""
    turn = torch.eye(4).roll(1, 1)
    matrix = 0.88 * torch.eye(4) + 0.1 * turn + 0.01 * (turn @ turn + turn @ turn @ turn)
    emission = torch.full((4, V), 0.05)
    for state, (first, second) in enumerate([(0, 1), (1, 2), (3, 4), (5, 4)]):
        emission[state, first], emission[state, second] = 0.5, 0.3
    return ExtractedHMM(torch.full((4,), 0.25), matrix, emission)


def train_lstm(train: Tensor, valid: Tensor) -> LanguageModel:
    """Fit the network; the validation text says when to stop."""
    model = LanguageModel(V, embedding_size=8, hidden_size=32, dropout=0.0)
    model.fit(
        train,
        valid=(valid, None),
        num_epochs=40,
        batch_size=20,
        learning_rate=0.005,
        patience=5,
        disable_progbar=True,
    )
    return model


def row(found: Fidelity, name: str, truth: float) -> str:
    """One line of the table."""
    excess = found.surrogate_perplexity / truth - 1
    return (
        f"  {name:<22} {found.num_states or '':>6} {found.kl:8.4f} ± {found.kl_error:.5f} "
        f"{found.agreement:10.1%} {found.surrogate_perplexity:11.3f} {excess:+8.1%}"
    )


def draw(
    folder: Path,
    curves: dict[str, list[Fidelity]],
    floor: float,
    truth: ExtractedHMM,
    test: Tensor,
    information: BeliefInformation,
) -> None:
    """Write three pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from pyro_ssl.plotting import plot_beliefs, plot_fidelity, plot_linear_gap

    folder.mkdir(parents=True, exist_ok=True)
    belief = truth.filter(test).filtered[:, 1]  # the first sequence that was held out twice
    chain = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    emission = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    words = ExtractedHMM(torch.full((2,), 0.5), chain, emission).distribution(T).sample((100,)).T
    pictures = {
        "fidelity": plot_fidelity(curves, {"true HMM": floor}),
        "beliefs": plot_beliefs(belief, information.decoded[:, 0]),
        "gap": plot_linear_gap(linear_gap(chain, emission, y=words)),
    }
    for name, ax in pictures.items():
        ax.figure.savefig(folder / f"{name}.png", dpi=110)


def main() -> None:
    """Train, extract, compare; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=50_000)
    parser.add_argument("--states", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    started = time.perf_counter()

    truth, B = true_hmm(), options.symbols // T
    words = truth.distribution(T).sample((2 * B + B // 10,)).T.contiguous()
    train, valid, test = words.split([B, B // 10, B], 1)
    model = train_lstm(train, valid)
    exact = truth.perplexity(test)
    network = fidelity(truth, model, test)
    unigram = to_hmm(model, train, num_states=1, num_symbols=V).perplexity(test)
    print(f"{B * T:,} symbols to learn from, {B * T:,} held out; {len(model.history)} epochs")
    print(f"  perplexity: true HMM {exact:.3f}, LSTM {network.surrogate_perplexity:.3f}, ", end="")
    print(f"frequencies alone {unigram:.3f}")
    print(
        f"  KL(true filter ‖ LSTM) {network.kl:.4f} ± {network.kl_error:.5f} nats a symbol; ",
        end="",
    )
    print(f"the same symbol likeliest at {network.agreement:.1%} of the steps")
    information = mutual_information(visited_states(model, test), truth.filter(test).filtered)
    print(
        f"  h holds at least {information.held:.3f} of the {information.available:.3f} nats that "
        f"the past tells of the state ({information.share:.1%}); R² of the belief "
        f"{information.r_squared:.3f}"
    )
    print(f"  {'surrogate':<22} {'states':>6} {'KL(LSTM ‖ it)':>18} {'agreement':>10} "
          f"{'perplexity':>11} {'to truth':>8}")  # fmt: skip
    curves: dict[str, list[Fidelity]] = {}
    for n in options.states:
        counted = to_hmm(model, train, num_states=n, num_symbols=V)
        alone = to_hmm(model, train, num_states=n, num_symbols=V, symbol_weight=0.0)
        hmms = {"counted": counted, "counted, h alone": alone, "after EM": counted.refine(train)}
        for name, hmm in hmms.items():
            curves.setdefault(name, []).append(fidelity(model, hmm, test))
    for name, found in curves.items():
        for each in found:
            print(row(each, name, exact))
    floor = fidelity(model, truth, test)
    print(row(floor, "true HMM", exact))
    print(f"{time.perf_counter() - started:.0f} s")
    if options.pictures:
        draw(options.pictures, curves, floor.kl, truth, test, information)


if __name__ == "__main__":
    main()
