"""Does an LSTM predict from a belief? Set the belief to another one, and see what it predicts.

    python -m benchmarks.intervene [--seeds 3]

Text and LSTM are those of ``benchmarks.belief``: an HMM of 4 states and 6 symbols, a
``LanguageModel`` of 32 units. A linear read-out of the true filter's belief is fitted to the whole
state (h, c) on half of the held-out sequences. In the others, at one step each, (h, c) is moved to
the nearest state whose read-out is the belief of another sequence (``belief_readout``). Then the
network reads on: the symbols that the HMM draws from the new belief. Its predictions are compared
with those of the HMM's filter, which begins at the belief that was set: KL(filter ‖ LSTM), in nats.

Controls, compared with the same filter: no intervention; a change as long, of a random direction;
the other sequence's whole state in place of one's own, which bounds what an intervention can reach.
And one that should change nothing: a change as long that keeps the read-out, compared with the
filter that began at the sequence's own belief, beside no change at all.

Each seed is stored in ``--results`` when it is done, and skipped the next time; a picture is
written beside it.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._common import mean_sd
from benchmarks._results import Results, by_seed
from benchmarks.belief import Settings as LSTMSettings
from benchmarks.belief import T, V, train_lstm, true_hmm
from pyro_ssl import LanguageModel
from pyro_ssl.belief import ExtractedHMM, belief_readout
from pyro_ssl.plotting import LINE_COLORS

#: what is done to the state, and the belief that the prediction is compared with
WAYS = {
    "moved to the belief": "new",
    "random, as long": "new",
    "none": "new",
    "the other's whole state": "new",
    "as long, belief kept": "own",
    "none, own belief": "own",
}


@dataclass(frozen=True)
class Settings:
    """What the figures depend on."""

    symbols: int = 50_000
    hidden: int = 32
    epochs: int = 40
    ahead: int = 10
    step: int = 50


@torch.no_grad()
def all_states(model: LanguageModel, words: Tensor, num_steps: int) -> Tensor:
    """(h, c) after each of the first symbols, ``(T, B, 2H)``."""
    start = torch.full_like(words[:1], V)
    state, out = None, []
    for x in torch.cat([start, words[:num_steps]]).split(1):
        _, state = model.hidden(x, state)
        out.append(torch.cat([part[0] for part in state], -1))
    return torch.stack(out[1:])


@torch.no_grad()
def predictions(model: LanguageModel, state: Tensor, words: Tensor) -> Tensor:
    """Log-probabilities of the symbols after ``state`` ``(B, 2H)``, as they are read: (T, B, V)."""
    h, c = state.to(model.head.weight).chunk(2, -1)
    first = model.head(h).unsqueeze(0)
    later, _ = model.hidden(words[:-1], (h.unsqueeze(0).contiguous(), c.unsqueeze(0).contiguous()))
    return torch.cat([first, model.head(later)]).log_softmax(-1)


def ahead_of(hmm: ExtractedHMM, belief: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Symbols ``(T, B)`` drawn from the HMM after beliefs ``(B, K)``, and its own predictions."""
    words, log_p = [], []
    for _ in range(num_steps):
        prior = belief @ hmm.matrix
        p = prior @ hmm.emission
        log_p.append(p.log())
        words.append(p.multinomial(1).squeeze(-1))
        belief = prior * hmm.emission.T[words[-1]]
        belief = belief / belief.sum(-1, keepdim=True)
    return torch.stack(words), torch.stack(log_p)


def run(seed: int, s: Settings) -> dict[str, Any]:
    """Train, read out, intervene, once."""
    torch.manual_seed(seed)
    truth, B = true_hmm(), s.symbols // T
    words = truth.distribution(T).sample((2 * B + B // 10,)).T.contiguous()
    train, valid, test = words.split([B, B // 10, B], 1)
    model = train_lstm(train, valid, LSTMSettings(hidden=s.hidden, epochs=s.epochs)).double()
    truth = ExtractedHMM(*(part.double() for part in (truth.initial, truth.matrix, truth.emission)))
    states = all_states(model, test, s.step)  # (step, B, 2H)
    beliefs = truth.filter(test).filtered[: s.step]
    readout = belief_readout(states[5:, ::2], beliefs[5:, ::2])
    state, own = states[-1, 1::2], beliefs[-1, 1::2]
    other = torch.randperm(len(state))
    moved = readout.move(state, own[other])
    random, kept = readout.beside(moved - state, seed)
    changed = {
        "moved to the belief": moved,
        "random, as long": state + random,
        "none": state,
        "the other's whole state": state[other],
        "as long, belief kept": state + kept,
        "none, own belief": state,
    }
    goals = {"new": ahead_of(truth, own[other], s.ahead), "own": ahead_of(truth, own, s.ahead)}
    kl = {}
    for name, after in changed.items():
        symbols, log_p = goals[WAYS[name]]
        log_q = predictions(model, after, symbols)
        by_step = (log_p.exp() * (log_p - log_q)).sum(-1)  # (ahead, B)
        kl[name] = {
            "kl": by_step.mean(1).tolist(),
            "error": (by_step.std(1) / by_step.shape[1] ** 0.5).tolist(),
        }
    away = (own.log() - own[other].log()).mul(own).sum(-1).mean()
    error = (readout.belief(state) - own).abs().sum(-1).mean() / 2
    outside = (moved.chunk(2, -1)[0].abs() > 1).any(-1).double().mean()
    return {
        **{"ways": kl, "sequences": len(state), "beliefs_apart": float(away)},
        **{"readout_error": float(error), "h_outside": float(outside)},
    }


def report(store: Results) -> None:
    """Print one table."""
    runs = list(store.runs.values())
    apart = mean_sd([r["beliefs_apart"] for r in runs], 3)
    print(
        f"\nMean ± sd over {len(runs)} seeds; KL(own belief ‖ the one set) is {apart} nats; ",
        end="",
    )
    print(
        f"the read-out errs by {mean_sd([r['readout_error'] for r in runs], 3)} (total variation);"
    )
    print(
        f"some unit leaves (-1, 1) in {mean_sd([100 * r['h_outside'] for r in runs], 0)} % of moves"
    )
    ahead = len(runs[0]["ways"]["none"]["kl"])
    steps = [0, 1, 2, 4, ahead - 1]
    print("\n| state | filter began at | " + " | ".join(f"{t + 1} ahead" for t in steps) + " |")
    print("|---|---|" + "---|" * len(steps))
    for name, goal in WAYS.items():
        cells = [mean_sd([r["ways"][name]["kl"][t] for r in runs], 4) for t in steps]
        print(f"| {name} | {goal} belief | {' | '.join(cells)} |")


def plot(store: Results, path: Path) -> None:
    """Draw the divergences by step, the mean over seeds and each of them."""
    from matplotlib.figure import Figure

    runs = list(store.runs.values())
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    ax = figure.subplots()
    colors = dict(zip(WAYS, [*LINE_COLORS[:4], *LINE_COLORS[:1], *LINE_COLORS[2:3]], strict=True))
    for name, goal in WAYS.items():
        curves = [run["ways"][name]["kl"] for run in runs]
        steps = range(1, len(curves[0]) + 1)
        style = "-" if goal == "new" else ":"
        for curve in curves:
            ax.plot(steps, curve, style, color=colors[name], linewidth=0.6, alpha=0.5)
        mean = [statistics.mean(values) for values in zip(*curves, strict=True)]
        label = f"{name} (filter at {goal} belief)"
        ax.plot(steps, mean, style, color=colors[name], linewidth=2.0, label=label)
    ax.set(
        xlabel="symbols ahead of the intervention", ylabel="KL(filter ‖ LSTM), nats", yscale="log"
    )
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def show(store: Results, picture: Path) -> None:
    """Print the table, and plot."""
    report(store)
    plot(store, picture)


if __name__ == "__main__":
    by_seed("intervene", __doc__, Settings(), run, show)
