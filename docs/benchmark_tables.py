"""The benchmarks' tables, from their results alone: each with its command, machine and date.

A benchmark's own ``report`` makes them; this file knows where results are, and how measured.
"""

from __future__ import annotations

import io
import json
import shutil
import statistics
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import (
    _architectures_report,
    _planted_report,
    belief,
    characters,
    curves,
    imv_ahead,
    intervene,
)
from benchmarks._results import RESULTS, Results
from benchmarks.compare.methods import METHODS
from benchmarks.compare.report import row as comparison_row
from benchmarks.compare.report import table as comparison_table
from benchmarks.compare.store import Store
from benchmarks.imv.report import tables as imv_tables

__all__ = ["BENCHMARKS", "Benchmark", "as_markdown", "make", "text_of"]

CPU = "two AMD EPYC cores, one thread, torch 2.13.0"
COMPARE = "python -m benchmarks.compare run --corpus {corpus} --path FOLDER"


class Benchmark(NamedTuple):
    """One question, its answer, and how to ask it again."""

    title: str
    results: str  # file or folder, within benchmarks/results
    command: str
    date: str  # the day of the last run; results that know better say so themselves
    tables: Callable[[Path], str]
    figures: tuple[str, ...] = ()
    machine: str = CPU


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
    """Make the table of one corpus of ``benchmarks.compare``, without its heading."""
    return comparison_table(Store(path.stem, path.parent)).split("\n", 2)[2]


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
    names = dict.fromkeys(name for run in runs.values() for name in run)
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


def _learning(title: str, stem: str, command: str) -> Benchmark:
    return Benchmark(title, f"learning/{stem}.json", command, "2026-11-26", compared)


def _before(title: str, stem: str) -> Benchmark:
    command = COMPARE.format(corpus=stem)
    return Benchmark(
        title, f"comparison/{stem}.json", command, "2026-11-21", compared_before
    )


BENCHMARKS = (
    _learning(
        "Learned to the end: Python's reference",
        "python",
        "python -m benchmarks.compare run --corpus python",
    ),
    _learning(
        "Learned to the end: IMDB, 200 reviews",
        "imdb-200",
        COMPARE.format(corpus="imdb-200"),
    ),
    _learning(
        "Learned to the end: WikiText-2",
        "wikitext2",
        COMPARE.format(corpus="wikitext2"),
    ),
    _learning(
        "Learned to the end: WikiText-2, K = 100",
        "wikitext2-100",
        COMPARE.format(corpus="wikitext2") + " --states 100",
    ),
    _before("Equal epochs, before sweeps were twisted: IMDB, 200 reviews", "imdb-200"),
    _before(
        "Equal epochs, before sweeps were twisted: IMDB, 5,000 reviews", "imdb-5000"
    ),
    _before("Equal epochs, before sweeps were twisted: WikiText-2", "wikitext2"),
    _before("Equal epochs, before sweeps were twisted: MSNBC", "msnbc"),
    Benchmark(
        "Planted memory",
        "planted.json",
        "python -m benchmarks.planted",
        "2026-11-26",
        printed(_planted_report.report, whole=False),
        ("planted.png",),
    ),
    Benchmark(
        "Four curves",
        "curves.json",
        "python -m benchmarks.curves",
        "2026-11-26",
        printed(curves.report, whole=True),
        ("curves.png",),
    ),
    Benchmark(
        "Paths that are nearly deterministic",
        "degenerate.md",
        "python -m benchmarks.degenerate",
        "2026-11-26",
        committed,
    ),
    Benchmark(
        "Which variable, and when",
        "imv",
        "python -m benchmarks.imv run --data NAME --path PATH",
        "2026-11-21",
        imv_tables,
    ),
    Benchmark(
        "An LSTM read as an HMM",
        "belief.json",
        "python -m benchmarks.belief",
        "2026-11-21",
        printed(belief.report, whole=True),
        ("belief.png",),
    ),
    Benchmark(
        "How far back a transition remembers",
        "architectures.json",
        "python -m benchmarks.architectures",
        "2026-11-21",
        printed(_architectures_report.report, whole=True),
        ("architectures.png",),
    ),
    Benchmark(
        "Learning from 10⁸ words",
        "large.json",
        "python -m benchmarks.large",
        "2026-11-26",
        plain,
    ),
    Benchmark(
        "A belief that is set",
        "intervene.json",
        "python -m benchmarks.intervene",
        "2026-11-26",
        printed(intervene.report, whole=True),
        ("intervene.png",),
    ),
    Benchmark(
        "PM2.5, six hours ahead",
        "imv_ahead.json",
        "make bench-transformer PM25=FOLDER",
        "2026-11-26",
        errors_ahead,
        ("imv_ahead.png",),
    ),
    Benchmark(
        "Bytes of text: LSTM and multiplicative LSTM",
        "characters.json",
        "python -m benchmarks.characters --path FOLDER",
        "2026-11-26",
        printed(characters.report, whole=False),
        ("characters.png",),
    ),
)


def text_of(benchmark: Benchmark) -> str:
    """Return one section, Markdown."""
    path = RESULTS / benchmark.results
    known = measured(path) if path.suffix == ".json" else {}
    machine = known.get("machine", benchmark.machine)
    lines = [
        f"## {benchmark.title}",
        f"`{benchmark.command}`",
        f"*{machine}; {known.get('date', benchmark.date)}; from "
        f"`benchmarks/results/{benchmark.results}`.*",
        benchmark.tables(path).strip(),
        *(
            f"![{benchmark.title}](made/figures/{figure})"
            for figure in benchmark.figures
        ),
    ]
    return (
        "\n\n".join(lines)
        .replace(" ± ", "\u00a0±\u00a0")
        .replace(" / ", "\u00a0/\u00a0")
        + "\n"
    )


def measured(path: Path) -> dict[str, str]:
    """What results know of where and when they were measured."""
    content = json.loads(path.read_text(encoding="utf-8"))
    by_method = content["runs"].values() if "corpus" in content else ()
    runs = [run for seeds in by_method for run in seeds.values()]
    machines = sorted({run["machine"] for run in runs if "machine" in run})
    return {"machine": "; ".join(machines)} if machines else content.get("measured", {})


def make(folder: Path) -> None:
    """Write ``benchmarks.md`` and the figures beside it."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for benchmark in BENCHMARKS:
        for figure in benchmark.figures:
            shutil.copyfile(RESULTS / figure, figures / Path(figure).name)
    text = "\n".join(map(text_of, BENCHMARKS))
    (folder / "benchmarks.md").write_text(text, encoding="utf-8")
