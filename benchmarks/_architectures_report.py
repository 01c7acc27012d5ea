"""The table and the picture of ``benchmarks.architectures``, from its results alone."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from benchmarks._common import mean_sd
from benchmarks._results import Results
from pyro_ssl.belief import MemoryHorizon
from pyro_ssl.plotting import plot_memory_horizon

__all__ = ["ARCHITECTURES", "DATA", "plot", "report"]

#: title, and whether x_t reads x_{t-1}
ARCHITECTURES = {
    "hmm": ("HMM", False),
    "arhmm": ("autoregressive HMM", True),
    "iohmm": ("input-output HMM", False),
    "lstm": ("SSL, LSTM", False),
    "mlstm": ("SSL, mLSTM", False),
}
DATA = {"markov": "Markov", "memory": "long memory"}


def report(store: Results) -> None:
    """Print one table of both kinds of data."""
    seeds = sorted({key.split()[0] for key in store.runs}, key=int)
    last = store.content["settings"]["max_lag"]
    print(f"\nMean ± sd over {len(seeds)} seeds; horizons at least {last} are written as {last}")
    print("| | parameters |" + "".join(f" {t}: perplexity | % | horizon |" for t in DATA.values()))
    print("|---|---|" + "---|---|---|" * len(DATA))
    for name in ("true", *ARCHITECTURES):
        title = "true model" if name == "true" else ARCHITECTURES[name][0]
        cells, size = [], "–"
        for kind in DATA:
            keys = [seed for seed in seeds if f"{seed} {kind} {name}" in store]
            found = [store.runs[f"{seed} {kind} {name}"] for seed in keys]
            if not found:
                cells += ["", "", ""]
                continue
            size = str(found[0].get("parameters", size))
            true = [store.runs[f"{seed} {kind} true"]["perplexity"] for seed in keys]
            values = [r["perplexity"] for r in found]
            above = [100 * (v / t - 1) for v, t in zip(values, true, strict=True)]
            cells += [mean_sd(values, 3), mean_sd(above, 2)]
            cells.append(mean_sd([float(r["horizon"]) for r in found], 1))
        print(f"| {title} | {size} | {' | '.join(cells)} |")


def plot(store: Results, path: Path) -> None:
    """Draw memory by lag of the first seed, a panel for each kind of data."""
    figure = Figure(figsize=(13.0, 4.2), layout="constrained")
    for ax, (kind, title) in zip(figure.subplots(1, 2, sharey=True), DATA.items(), strict=True):
        curves = {}
        for name in ("true", *ARCHITECTURES):
            r = store.runs[f"0 {kind} {name}"]
            lags = torch.arange(1, len(r["tv"]) + 1)
            values = torch.tensor(r["tv"]), torch.tensor(r["error"])
            shown = "true model" if name == "true" else ARCHITECTURES[name][0]
            curves[shown] = MemoryHorizon(lags, *values, r["threshold"])
        plot_memory_horizon(curves, ax=ax)
        ax.set_title(f"{title.capitalize()} data", size=11, loc="left")
    figure.axes[1].set_ylabel("")
    figure.savefig(path, dpi=150)
