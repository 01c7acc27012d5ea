"""Tables (Markdown) and pictures, from the results alone."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from .._common import mean_sd
from .methods import METHODS
from .tasks import PLANTED, TASKS

__all__ = ["rank_correlation", "report", "tables"]

Runs = list[dict[str, Any]]


def report(folder: Path) -> None:
    """Write ``tables.md`` and the pictures beside the results, and print the tables."""
    for data in TASKS:
        learned = learned_of(all_runs(folder, data))
        if learned and data not in PLANTED:
            draw(folder, data, learned)
    text = tables(folder)
    print(text)
    (folder / "tables.md").write_text(text, encoding="utf-8")


def tables(folder: Path) -> str:
    """All data sets that have results, as Markdown."""
    blocks = []
    for data in TASKS:
        by_method = all_runs(folder, data)
        if not any(by_method.values()):
            continue
        blocks.append(table(data, by_method))
        if learned := learned_of(by_method):
            blocks.append(truth(learned) if data in PLANTED else importances(learned))
    return "\n".join(blocks)


def all_runs(folder: Path, data: str) -> dict[str, Runs]:
    """The runs on one data set, by method."""
    return {name: runs_of(folder / data / f"{name}.json") for name in METHODS}


def learned_of(by_method: dict[str, Runs]) -> dict[str, Runs]:
    """Those methods whose importances were measured."""
    return {n: runs for n, runs in by_method.items() if runs and "permutation" in runs[0]}


def runs_of(path: Path) -> Runs:
    """The runs of one method, seed by seed."""
    if not path.exists():
        return []
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return [runs[seed] for seed in sorted(runs, key=int)]


def table(data: str, by_method: dict[str, Runs]) -> str:
    """One data set's forecasts."""
    first = next(run for runs in by_method.values() for run in runs)
    lines = [
        f"### {TASKS[data].title}",
        "",
        f"{first['num_train']:,} / {first['num_valid']:,} / {first['num_test']:,} windows of "
        f"{first['window']} steps, {len(first['names'])} variables; errors in "
        f"{first['unit'] or 'the unit of y'}, 90 % intervals; mean ± sd over seeds.",
        "",
        "| method | test MSE | RMSE | MAE | in 90 % | width | log-score | parameters | s/epoch "
        "| kept epoch | runs |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in by_method.items():
        if runs:
            lines.append(row(METHODS[name].title, runs))
    return "\n".join(lines) + "\n"


def row(title: str, runs: Runs) -> str:
    """One method."""

    def of(key: str) -> str:
        values = [run[key] for run in runs]
        return mean_sd(values, digits_of(statistics.fmean(values)))

    coverage = mean_sd([100.0 * run["coverage"] for run in runs], 1)
    learning = ["–", "–"]
    if "kept_epoch" in runs[0]:
        learning = [
            f"{statistics.fmean(run['seconds_per_epoch'] for run in runs):.1f}",
            ", ".join(str(run["kept_epoch"]) for run in runs),
        ]
    cells = [title, of("mse"), of("rmse"), of("mae"), coverage, of("width")]
    cells += [mean_sd([run["log_score"] for run in runs], 3), f"{runs[0]['parameters']:,}"]
    return "| " + " | ".join([*cells, *learning, str(len(runs))]) + " |"


def digits_of(mean: float) -> int:
    """How many decimals are significant."""
    return next(digits for digits, least in ((1, 20), (2, 2), (3, 0.2), (5, 0)) if mean >= least)


def columns_of(by_method: dict[str, Runs]) -> list[tuple[str, str, Runs]]:
    """Each measure of importance: its title, the key of its figures, and the runs."""
    columns = []
    for name, runs in by_method.items():
        for key, title in (("importance", "I"), ("permutation", "permutation")):
            if key in runs[0]:
                columns.append((f"{METHODS[name].title}: {title}", key, runs))
    return columns


def importances(by_method: dict[str, Runs]) -> str:
    """Each variable's importance by each method, and how far the seeds agree."""
    columns = columns_of(by_method)
    names = columns[0][2][0]["names"]
    order = torch.tensor([run[columns[-1][1]] for run in columns[-1][2]]).mean(0)
    lines = [
        "I sums to 1; a permutation's figure is the growth of the scaled squared error in "
        "validation.",
        "",
        "| variable | " + " | ".join(title for title, _, _ in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for n in order.argsort(descending=True).tolist():
        cells = [mean_sd([run[key][n] for run in runs], 3) for _, key, runs in columns]
        lines.append(f"| {names[n]} | " + " | ".join(cells) + " |")
    agree = [rank_correlation([run[key] for run in runs]) for _, key, runs in columns]
    lines.append("| *rank correlation of the seeds, mean (least)* | " + " | ".join(agree) + " |")
    return "\n".join(lines) + "\n"


def rank_correlation(runs: list[list[float]]) -> str:
    """Spearman's, over all pairs of runs: the mean, and the least."""
    if len(runs) < 2:
        return "–"
    ranks = torch.tensor(runs, dtype=torch.float64).argsort(-1).argsort(-1)
    pairs = itertools.combinations(range(len(runs)), 2)
    found = [float(torch.corrcoef(ranks[list(pair)].double())[0, 1]) for pair in pairs]
    return f"{statistics.fmean(found):.2f} ({min(found):.2f})"


def truth(by_method: dict[str, Runs]) -> str:
    """In how many seeds the planted variables rank first, and their lags peak."""
    planted = next(iter(by_method.values()))[0]["planted"]
    lags, shares = planted["lags"], planted["shares"]
    lines = [
        f"The lags are {' and '.join(map(str, lags))}"
        + (f", the shares {' and '.join(map(str, shares))}" if shares else "")
        + ". By I the lag of a variable is where T^n peaks, by permutation the step whose exchange "
        "costs most.",
        "",
        "| importance | planted variables rank first | both lags found | lags found, seed by seed "
        "| importance of each |",
        "|---|---|---|---|---|",
    ]
    for title, key, runs in columns_of(by_method):
        found = [recovered(run, key) for run in runs]
        right = sum(where == lags for _, where, _ in found)
        seen = "; ".join(", ".join(map(str, where)) for _, where, _ in found)
        first = f"{sum(top for top, _, _ in found)} of {len(runs)}"
        each = zip(*(importance for _, _, importance in found), strict=True)
        cells = [title, first, f"{right} of {len(runs)}", seen]
        cells.append(", ".join(mean_sd(list(values), 3) for values in each))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def recovered(run: dict[str, Any], key: str) -> tuple[bool, list[int], list[float]]:
    """Whether the true variables rank first, their lags, and their importances."""
    importance = torch.tensor(run[key]).clamp(min=0.0)
    true = run["planted"]["variables"]
    top = set(importance.argsort(descending=True)[: len(true)].tolist()) == set(true)
    by_step = torch.tensor(run[{"importance": "temporal_importance"}.get(key, "step_permutation")])
    lags = [run["window"] - int(by_step[n].argmax()) for n in true]
    return top, lags, importance[true].tolist()


def draw(folder: Path, data: str, by_method: dict[str, Runs]) -> None:
    """I and T^n of each IMV-LSTM, over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from pyro_ssl.plotting import plot_importance, plot_temporal_importance

    for method, runs in by_method.items():
        if "temporal_importance" not in runs[0]:
            continue
        names = runs[0]["names"]
        figure = plt.figure(figsize=(11.5, 1.4 + 0.3 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2)
        importance = torch.tensor([run["importance"] for run in runs])
        temporal = torch.tensor([run["temporal_importance"] for run in runs]).mean(0)
        plot_importance(importance, names, ax=left)
        order = importance.mean(0).argsort(descending=True, stable=True)  # in the order of the bars
        plot_temporal_importance(temporal[order], [""] * len(names), ax=right)
        left.set_ylim(-0.5, len(names) - 0.5)
        figure.suptitle(f"{TASKS[data].title}: {METHODS[method].title}", size=11)
        figure.savefig(folder / f"{data}-{method}.png", dpi=110)
        plt.close(figure)
