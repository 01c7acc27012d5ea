"""How a benchmark's results become a table: by its own ``report``, or as they stand.

Next file to read: ``benchmark_tables.py``, which knows where results are.
"""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import imv_ahead
from benchmarks._results import Results
from benchmarks.compare.methods import METHODS
from benchmarks.compare.report import row as comparison_row
from benchmarks.compare.report import table as comparison_table
from benchmarks.compare.store import Store

__all__ = [
    "as_markdown",
    "committed",
    "compared",
    "compared_before",
    "errors_ahead",
    "plain",
    "printed",
]


#: rows that settings which were tried are seen beside
LEARNED = ("smc_plain", "pg_mean", "pg")


def printed(report: Callable[[Any], None], whole: bool) -> Callable[[Path], str]:
    """Make tables of what a benchmark's report prints.

    :param bool whole: it takes the :class:`Results`, and not what they hold.
    """

    def tables(path: Path) -> str:
        store = Results(path, json.loads(path.read_text(encoding="utf-8"))["settings"])
        with redirect_stdout(io.StringIO()) as out:
            report(store if whole else store.content)
        return as_markdown(out.getvalue())

    return tables


def compared(path: Path) -> str:
    """Make the table of one corpus of ``benchmarks.compare``, without its heading.

    Of settings that were tried, ``corpus+name=value``, with the same methods by default after them,
    and whatever else of :data:`LEARNED` there is.
    """
    store, (corpus, *settings) = Store(path.stem, path.parent), path.stem.split("+")
    text = comparison_table(store).split("\n", 2)[2]
    usual = Store(corpus, path.parent)
    names = {*store.content["runs"], *LEARNED} & usual.content["runs"].keys()
    for name in filter(names.__contains__, METHODS if settings else ()):
        runs = list(usual.runs(name).values())
        text += comparison_row(f"{METHODS[name].title}, by default", runs, None) + "\n"
    return text


def compared_before(path: Path) -> str:
    """Make the table of runs of ``benchmarks.compare`` from before sweeps were twisted."""
    store = Store(path.stem, path.parent)
    settings = store.content["settings"]
    lines = [
        f"{settings['num_train_tokens']:,} training tokens, {settings['num_test_tokens']:,} test "
        f"tokens, V = {settings['vocab_size']:,}, K = {settings['num_states']}, H = "
        f"{settings['hidden_size']}, {settings['num_epochs']} epochs, Dirichlet prior "
        f"{settings['concentration']}; scored by plain filters.",
        "",
        "| method | perplexity | P = 30 / 100 / 300 | prior | parameters | s/epoch | kept epoch | "
        "runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    titles = {
        "smc": "SSL, unconditional SMC",
        "pg_sweeps": "SSL, particle Gibbs, 4 sweeps",
    }
    titles = {name: method.title for name, method in METHODS.items()} | titles
    for name in sorted(store.content["runs"], key=list(titles).index):
        runs = list(store.runs(name).values())
        seconds = [
            run["seconds_per_epoch"] for run in runs if "seconds_per_epoch" in run
        ]
        mean = statistics.fmean(seconds) if seconds else None
        lines.append(comparison_row(titles[name], runs, mean))
    return "\n".join(lines)


def errors_ahead(path: Path) -> str:
    """Make the table of errors of ``benchmarks.imv_ahead``; its variables' names are the data's."""
    nameless = partial(imv_ahead.report, names=tuple(map(str, range(100))))
    lines = printed(nameless, whole=False)(path).splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def plain(path: Path) -> str:
    """Make a table of figures that have names alone: a column for each run."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    names = dict.fromkeys(
        name
        for run in runs.values()
        for name, value in run.items()
        if not isinstance(value, list)
    )
    lines = [f"| | {' | '.join(runs)} |", "|---" * (1 + len(runs)) + "|"]
    for name in names:
        lines.append(
            f"| {name} | {' | '.join(str(run.get(name, '–')) for run in runs.values())} |"
        )
    return "\n".join(lines)


def committed(path: Path) -> str:
    """Take a table as the benchmark wrote it."""
    return path.read_text(encoding="utf-8")


def as_markdown(text: str) -> str:
    """Set tables apart from the lines around them; lines in columns stay as they are."""
    blocks = []
    for kind, lines in groupby(text.strip("\n").splitlines(), key=_kind):
        block = "\n".join(lines)
        blocks.append(f"```text\n{block}\n```" if kind == "columns" else block)
    return "\n\n".join(block for block in blocks if block.strip())


def _kind(line: str) -> str:
    if line.startswith("|"):
        return "table"
    return "columns" if "  " in line.strip() else "text"
