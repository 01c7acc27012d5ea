"""Tables and a picture of ``benchmarks.planted``, from its results alone."""

import itertools
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from benchmarks._common import mean_sd
from benchmarks._planted_inference import METHODS
from pyro_ssl.plotting import LINE_COLORS, OTHER

__all__ = ["STARTS", "plot", "report"]

#: where the HMM's EM starts, from which all methods start
STARTS = {"near_truth": "from the true emission, blurred", "random": "from random starts"}


def report(results: dict[str, Any]) -> None:
    """Print the tables."""
    for start, title in STARTS.items():
        report_learning(results, start, title)
    runs = [run["inferred"] for run in results["runs"].values() if "inferred" in run]
    print("\nInference under the true model, log evidence", end=" ")
    print(mean_sd([run["log_evidence"] for run in runs], 2), "nats a sequence")
    print("| | total variation, cues | all steps | log evidence less estimate | alike |")
    print("|---|---|---|---|---|")
    for name, (title, *_) in METHODS.items():
        if name not in runs[0]:
            continue
        found = [run[name] for run in runs]
        cells = [mean_sd([r[c] for r in found], 3) for c in ("cue_tv", "tv")]
        gap = mean_sd([r["gap"] for r in found], 2) if "gap" in found[0] else "–"
        alike = mean_sd([r["one_identity"] for r in found], 3)
        print(f"| {title} | {' | '.join(cells)} | {gap} | {alike} |")
    floor = [mean_sd([r[c] for r in runs], 3) for c in ("cue_floor", "floor", "exact_one_identity")]
    print(f"| 100 exact draws | {floor[0]} | {floor[1]} | 0 | {floor[2]} |")


def excess(run: dict[str, Any], perplexity: float) -> float:
    """How far a perplexity lies above the true model's, in percent."""
    return 100 * (perplexity / run["exact"] - 1)


def report_learning(results: dict[str, Any], start: str, title: str) -> None:
    """Print what each method learned from one kind of start."""
    runs = [run for run in results["runs"].values() if run.get(start, {}).get("learned")]
    if not runs:
        return
    print(f"\nLearning {title}, mean ± sd over {len(runs)} seeds")
    columns = ("cue_accuracy", "draw_cue_accuracy", "accuracy", "one_identity")
    print("| | perplexity | % above exact | cues right | one draw | all right | alike | s |")
    print("|---|---|---|---|---|---|---|---|")
    rows = {"true model, exact": [run["exact"] for run in runs]}
    rows |= {"HMM, exact": [run[start]["hmm"] for run in runs]}
    for name, values in rows.items():
        above = [excess(run, value) for run, value in zip(runs, values, strict=True)]
        print(f"| {name} | {mean_sd(values, 4)} | {mean_sd(above, 2)} | | | | | |")
    for name, (name_shown, *_) in METHODS.items():
        if name not in runs[0][start]["learned"]:
            continue
        found = [run[start]["learned"][name] for run in runs]
        above = [excess(run, r["perplexity"]) for run, r in zip(runs, found, strict=True)]
        cells = [mean_sd([r["perplexity"] for r in found], 4), mean_sd(above, 2)]
        cells += [mean_sd([r[c] for r in found], 3) for c in columns]
        print(
            f"| {name_shown} | {' | '.join(cells)} | {mean_sd([r['seconds'] for r in found], 0)} |"
        )
        if "by_pg" in found[0]:
            cells = [mean_sd([r["by_pg"][c] for r in found], 3) for c in columns]
            print(f"| ... read by particle Gibbs | | | {' | '.join(cells)} | |")
    bounds = {"mf": "ELBO of the learned mean-field model"}
    bounds |= {"fivo": "particle ELBO of the model learned by it"}
    for name, what in bounds.items():
        gaps = [r["gap"] for r in (run[start]["learned"].get(name) for run in runs) if r]
        if gaps:
            print(f"log evidence - {what}, nats a sequence: {mean_sd(gaps, 2)}")


def strips(ax: Any, shown: dict[str, Any], M: int) -> None:
    """Draw one sequence: rows of symbols, of paths, and of posteriors as stacked bars."""
    names = ["".join("ABCDEFGH"[i] for i in pair) for pair in itertools.combinations(range(M), 2)]
    colors = [*LINE_COLORS[:M], OTHER]
    rows = ["symbol", "true path", "exact", "particle Gibbs", "mean-field q", "LLA, a draw"]
    keys = ["words", "z", "exact", "pg", "mf", "lla"]
    for row, key in enumerate(keys):
        for t, value in enumerate(shown[key]):
            if key == "words":
                text = names[value] if value < len(names) else "·"
                ax.text(t + 0.5, -row + 0.4, text, ha="center", va="center", size=7.5)
                continue
            shares = value if isinstance(value, list) else [float(k == value) for k in range(M + 1)]
            low = 0.0
            for k, share in enumerate(shares):
                box = (t + 0.03, -row + 0.8 * low), 0.94, 0.8 * share
                ax.add_patch(Rectangle(*box, facecolor=colors[min(k, M)], linewidth=0))
                low += share
    ax.set(xlim=(0, len(shown["z"])), ylim=(-len(rows) + 0.9, 0.95))
    ax.set_yticks([0.4 - row for row in range(len(rows))], rows, size=10)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw sequences under the true model, and perplexity by method beside them."""
    M, first = results["settings"]["num_identities"], results["runs"]["0"]["inferred"]
    figure = Figure(figsize=(14.0, 5.6), layout="constrained")
    shown = first["examples"]
    grid = figure.add_gridspec(len(shown), 2, width_ratios=(2.4, 1))
    panels = [figure.add_subplot(grid[i, 0]) for i in range(len(shown))]
    for ax, one in zip(panels, shown, strict=True):
        strips(ax, one, M)
        ax.set_xticks([])
    panels[0].set_title(
        "Inference, the true model given. A symbol AB is a cue of A or of B; dots are fillers.",
        size=11,
        loc="left",
    )
    steps = range(0, len(shown[-1]["z"]), 5)
    panels[-1].set_xticks([t + 0.5 for t in steps], [str(t + 1) for t in steps])
    panels[-1].set_xlabel("step t", loc="left")
    labels = [*(f"cue of {'ABCDEFGH'[i]}" for i in range(M)), "filler"]
    marks = [Patch(color=color) for color in [*LINE_COLORS[:M], OTHER]]
    panels[-1].legend(
        marks, labels, loc="upper right", bbox_to_anchor=(1, -0.07), ncols=M + 1, frameon=False
    )
    draw_scores(figure.add_subplot(grid[:, 1]), results)
    figure.savefig(path, dpi=130)


def draw_scores(ax: Any, results: dict[str, Any]) -> None:
    """Perplexity of each method, a dot per seed, of each kind of start.

    It is relative to the exact perplexity, since data differ between seeds by more than methods do.
    """
    colors = dict(zip(STARTS, (LINE_COLORS[1], LINE_COLORS[0]), strict=True))
    titles = {name: title for name, (title, *_) in METHODS.items()} | {"hmm": "HMM, exact"}
    for (start, title), shift in zip(STARTS.items(), (0.13, -0.13), strict=True):
        runs = [run for run in results["runs"].values() if run.get(start, {}).get("learned")]
        for i, name in enumerate(titles):
            one = runs[0][start] if runs else {"learned": {}}
            if name != "hmm" and name not in one["learned"]:
                continue
            values = [
                excess(run, run[start]["hmm"])
                if name == "hmm"
                else excess(run, run[start]["learned"][name]["perplexity"])
                for run in runs
            ]
            place, color = shift - i, colors[start]
            label = f"HMM {title}" if name == "hmm" else None
            places = [place] * len(values)
            ax.plot(values, places, "o", color=color, alpha=0.5, markersize=7, label=label)
            mean = statistics.fmean(values)
            ax.plot(mean, place, "|", color=color, markersize=17, markeredgewidth=2.5)
    ax.set_yticks([-i for i in range(len(titles))], titles.values(), size=11)
    ax.set_ylim(-len(titles) + 0.4, 0.9)
    ax.set_xlim(0, 1.12 * ax.get_xlim()[1])
    ax.set_xlabel("% above the true model's exact perplexity")
    ax.set_title("Learning: held-out perplexity by seed", size=11, loc="left")
    ax.legend(frameon=False, loc="upper right", fontsize=9)
    ax.grid(axis="y", color="#EEEEEE")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
