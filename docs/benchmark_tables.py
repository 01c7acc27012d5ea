"""The benchmarks' tables, from their results alone: each with its command, machine and date.

A benchmark's own ``report`` makes them; this file knows where results are, and how measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import (
    _architectures_report,
    _planted_report,
    belief,
    characters,
    coherence,
    curves,
    intervene,
    jsb,
    regimes,
    sensors,
    streams,
)
from benchmarks._results import RESULTS
from benchmarks.compare.corpora import TASKS
from benchmarks.imv.report import tables as imv_tables

from .benchmark_reports import (
    as_markdown,
    committed,
    compared,
    compared_before,
    errors_ahead,
    plain,
    printed,
)

__all__ = ["BENCHMARKS", "Benchmark", "as_markdown", "make", "text_of"]

CPU = "two AMD EPYC cores, one thread, torch 2.13.0"
COMPARE = "python -m benchmarks.compare run --corpus "


class Benchmark(NamedTuple):
    """One question, its answer, and how to ask it again."""

    title: str
    results: str  # file or folder, within benchmarks/results
    command: str
    date: str  # the day of the last run; results that know better say so themselves
    tables: Callable[[Path], str]
    figures: tuple[str, ...] = ()
    machine: str = CPU


def _compare(corpus: str) -> str:
    return COMPARE + corpus + (" --path FOLDER" if corpus != "python" else "")


def _learning(
    title: str,
    stem: str,
    command: str,
    figures: tuple[str, ...] = (),
    date: str = "2026-11-28",
) -> Benchmark:
    path = f"learning/{stem}.json"
    return Benchmark(title, path, command, date, compared, figures)


def _before(title: str, stem: str) -> Benchmark:
    path = f"comparison/{stem}.json"
    return Benchmark(title, path, _compare(stem), "2026-11-21", compared_before)


BENCHMARKS = (
    _learning(
        "Learned to the end: Python's reference",
        "python",
        _compare("python"),
        ("learning/learning_curves.png",),
    ),
    *(
        _learning(f"Learned to the end: {title}", stem, _compare(stem) + how)
        for title, stem, how in (
            ("IMDB, 200 reviews", "imdb-200", ""),
            ("IMDB, 5,000 reviews", "imdb-5000", " --priors 0.03"),
            ("WikiText-2", "wikitext2", " --priors 0.03"),
        )
    ),
    *(
        _learning(
            f"Learned to the end: WikiText-2, K = {K}",
            f"wikitext2-{K}",
            _compare("wikitext2") + f" --states {how}",
            date="2026-11-26",
        )
        for K, how in (
            (100, "100"),
            (200, "200 --device cuda"),
            (500, "500 --device cuda"),
        )
    ),
    *(
        _learning(
            f"Learned to the end, with {' '.join(settings)}: {TASKS[stem].title}",
            path.stem,
            _compare(stem) + f" --priors 0.03 --set {' '.join(settings)}",
        )
        for path in sorted(RESULTS.glob("learning/*+*.json"))
        for stem, *settings in [path.stem.split("+")]
    ),
    _learning(
        "Learned for 20 epochs: MSNBC",
        "msnbc",
        _compare("msnbc") + " --priors 0.1 --epochs 20",
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
        "2026-11-27",
        printed(_planted_report.report, whole=False),
        ("planted.png",),
    ),
    Benchmark(
        "Four curves",
        "curves.json",
        "python -m benchmarks.curves",
        "2026-11-27",
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
        "Regimes of linear dynamics",
        "regimes.json",
        "python -m benchmarks.regimes",
        "2026-11-27",
        printed(regimes.report, whole=True),
    ),
    Benchmark(
        "Many sensors",
        "sensors.json",
        "python -m benchmarks.sensors --sml2010 FOLDER --pm25 FILE",
        "2026-11-28",
        printed(sensors.report, whole=True),
    ),
    Benchmark(
        "Keys of a piano",
        "jsb.json",
        "python -m benchmarks.jsb --path FILE",
        "2026-11-28",
        printed(jsb.report, whole=True),
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
        "Runs of an hour",
        "soak.json",
        "taskset -c 0 python -m benchmarks.soak --at-once 6",
        "2026-11-27",
        plain,
    ),
    Benchmark(
        "Topics of reviews, beside LDA",
        "coherence.json",
        "python -m benchmarks.coherence --path FILE",
        "2026-11-28",
        printed(coherence.report, whole=True),
    ),
    Benchmark(
        "Topics from a stream",
        "streams.json",
        "python -m benchmarks.streams --path FOLDER --memory 5000",
        "2026-11-26",
        printed(streams.report, whole=True),
    ),
    Benchmark(
        "Topics from a stream, half as long",
        "streams_250k.json",
        "python -m benchmarks.streams --path FOLDER --tokens 250000 --memory 5000 2000",
        "2026-11-26",
        printed(streams.report, whole=True),
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
        "make bench-forecasters PM25=FOLDER",
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
            f"![{benchmark.title}](made/figures/{Path(figure).name})"
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
