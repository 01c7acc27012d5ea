"""Tables (Markdown) and a picture, from the results alone."""

from __future__ import annotations

import statistics
from typing import Any

from .._common import mean_sd
from .corpora import TASKS
from .methods import METHODS
from .store import RESULTS, Store

__all__ = ["report"]


def report() -> None:
    """Write ``tables.md`` and two pictures beside the results, and print the tables."""
    names = [name for task in TASKS for name in (task, *more_states(task))]
    stores = {name: Store(name) for name in names}
    stores = {name: store for name, store in stores.items() if store.content["runs"]}
    text = "\n".join(table(store) for store in stores.values())
    print(text)
    (RESULTS / "tables.md").write_text(text, encoding="utf-8")
    draw(list(stores.values()))
    draw_curves(list(stores.values()))


def more_states(corpus: str) -> list[str]:
    """Names of the results of a corpus with other numbers of states, by that number."""
    found = (path.stem for path in RESULTS.glob(f"{corpus}-*.json"))
    counts = [name.removeprefix(f"{corpus}-") for name in found if name not in TASKS]
    return [f"{corpus}-{K}" for K in sorted(int(K) for K in counts if K.isdigit())]


def digits_of(mean: float) -> int:
    """How many decimals are significant."""
    return 1 if mean > 20 else 2


def table(store: Store) -> str:
    """One corpus as a Markdown table."""
    settings = store.content["settings"]
    lines = [
        f"### {settings['title']}",
        "",
        f"{settings['num_train_tokens']:,} training tokens, {settings['num_test_tokens']:,} test "
        f"tokens, V = {settings['vocab_size']:,}, K = {settings['num_states']}, "
        f"H = {settings['hidden_size']}, at most {settings['num_epochs']} epochs. The prior of "
        "each row is the best on validation of "
        f"{', '.join(str(c) for c in settings['concentrations'])}, chosen at seed 0.",
        "",
        "| method | perplexity | P = 10 / 30 / 100 | prior | parameters | s/epoch | kept epoch | "
        "runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        runs = list(store.runs(name).values())
        if runs:
            lines.append(row(method.title, runs, rate(store, name)))
    return "\n".join(lines) + "\n"


def rate(store: Store, method: str) -> float | None:
    """Seconds of an epoch: of short runs that had a machine alone, or of all runs."""
    for measured in store.content["settings"].get("rates", {}).values():
        if method in measured:
            return measured[method]
    seconds = [run["seconds_per_epoch"] for run in store.runs(method).values() if "seconds" in run]
    return statistics.fmean(seconds) if seconds else None


def row(title: str, runs: list[dict[str, Any]], seconds: float | None) -> str:
    """One method."""
    spread = "–"
    if "perplexity_by_particles" in runs[0]:
        by_P = [run["perplexity_by_particles"] for run in runs]
        means = [statistics.fmean(r[P] for r in by_P) for P in sorted(by_P[0], key=int)]
        spread = " / ".join(f"{mean:,.{digits_of(mean)}f}" for mean in means)
    kept = [str(run["kept_epoch"]) for run in runs if "kept_epoch" in run]
    perplexities = [run["perplexity"] for run in runs]
    cells = [
        title,
        mean_sd(perplexities, digits_of(statistics.fmean(perplexities))),
        spread,
        str(runs[0].get("concentration", "–")),
        f"{runs[0]['parameters']:,}",
        "–" if seconds is None else f"{seconds:.1f}",
        ", ".join(kept) or "–",
        str(len(runs)),
    ]
    return "| " + " | ".join(cells) + " |"


def draw(stores: list[Store]) -> None:
    """A panel per corpus: perplexity of each method, a point per seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        1, len(stores), figsize=(2.2 + 2.9 * len(stores), 3.4), layout="constrained", squeeze=False
    )
    shown = [name for name in METHODS if name != "unigram"]
    for ax, store in zip(axes[0], stores, strict=True):
        for i, name in enumerate(reversed(shown)):
            values = [run["perplexity"] for run in store.runs(name).values()]
            if not values:
                continue
            color = "#EE7733" if name.startswith("pg") else "#555555"
            ax.plot(values, [i] * len(values), "o", color=color, alpha=0.45, markersize=5)
            ax.plot(statistics.fmean(values), i, "|", color=color, markersize=16, markeredgewidth=2)
        first = ax is axes[0][0]
        ax.set_yticks(
            range(len(shown)), [METHODS[n].title for n in reversed(shown)] if first else []
        )
        ax.set_ylim(-0.6, len(shown) - 0.4)
        ax.set_title(store.content["settings"]["title"], size=10)
        ax.set_xlabel("test perplexity")
        ax.grid(axis="y", color="#EEEEEE")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(RESULTS / "perplexity.png", dpi=110)
    plt.close(fig)


def draw_curves(stores: list[Store]) -> None:
    """A panel per corpus: validation perplexity by epoch, a line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(stores))
    rows = -(-len(stores) // columns)
    size = (1.5 + 3.2 * columns, 0.4 + 2.9 * rows)
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    shown = [name for name in METHODS if any(learned(store, name) for store in stores)]
    colors = plt.get_cmap("tab10")
    for ax in axes.flat[len(stores) :]:
        ax.set_axis_off()
    for ax, store in zip(axes.flat, stores, strict=False):
        for i, name in enumerate(shown):
            for valid in learned(store, name):
                style = {"color": colors(i), "linewidth": 1.2, "label": METHODS[name].title}
                line = "--" if name == "lm" else "-"
                ax.plot(range(1, len(valid) + 1), valid, line, **style)
        ax.set_xscale("log")
        ax.set_title(store.content["settings"]["title"], size=9)
        ax.set_xlabel("epoch, after the HMM")
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("validation perplexity")
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    titles = [METHODS[name].title for name in shown]
    fig.legend([handles[t] for t in titles], titles, loc="outside right center", frameon=False)
    fig.savefig(RESULTS / "learning_curves.png", dpi=100)
    plt.close(fig)


def learned(store: Store, method: str) -> list[list[float]]:
    """Validation perplexities of each run of a method that learned by epochs."""
    curves = [run.get("valid_perplexity", []) for run in store.runs(method).values()]
    return [curve for curve in curves if len(curve) > 1]
