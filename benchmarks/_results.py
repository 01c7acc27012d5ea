"""Finished runs, in one JSON file, so that a benchmark can be stopped and resumed."""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from pyro_ssl.arguments import hides_progbar
from pyro_ssl.bench import machine

__all__ = ["RESULTS", "Results", "by_seed", "parser_of", "shown"]

J = TypeVar("J")

RESULTS = Path(__file__).parent / "results"


class Results:
    """The runs of one file by their key. Every change is on disk before the next run begins.

    :param settings: what all runs of the file share.
    :raises SystemExit: if the file holds runs of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))  # as they will be read
        self.content: dict[str, Any] = {"settings": settings, "runs": {}}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))
        if self.content["settings"] != settings:
            raise SystemExit(
                f"{path} holds runs of {self.content['settings']}, not of {settings}; write "
                "--results with another file."
            )

    @property
    def runs(self) -> dict[str, Any]:
        """The results of each run."""
        return self.content["runs"]

    def __contains__(self, key: str) -> bool:
        """Whether this run is done."""
        return key in self.runs

    def add(self, key: str, result: Any) -> None:
        """Store a run, and where and when it was made."""
        self.runs[key] = result
        today, here = datetime.date.today().isoformat(), machine(torch.device("cpu"))
        self.content["measured"] = {"date": today, "machine": here}
        self.write()

    def write(self) -> None:
        """Write the whole file, or nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)


def parser_of(name: str, about: str, seeds: int) -> argparse.ArgumentParser:
    """Return the command line of a benchmark: where its results are, and how many seeds it has.

    :param about: its docstring, whose first line ``--help`` prints.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--seeds", type=int, default=seeds)
    return parser


def shown(jobs: Collection[J], unit: str = "fit") -> Iterable[J]:
    """Go through jobs under a progress bar."""
    return tqdm(jobs, unit=unit, disable=hides_progbar(None))


def by_seed(
    name: str,
    about: str,
    settings: Any,
    run: Callable[[int, Any], Any],
    show: Callable[[Results, Path], None],
) -> None:
    """Command line of a benchmark of one run a seed: run what is not done yet, and show all.

    :param str name: of the results' file.
    :param about: the docstring of its module.
    :param settings: a dataclass.
    :param run: of a seed and the settings.
    :param show: of the results, and where a picture may go.
    """
    options = parser_of(name, about, seeds=3).parse_args()
    torch.set_num_threads(1)
    store = Results(options.results, asdict(settings))
    for seed in shown(range(options.seeds), "seed"):
        if str(seed) not in store:
            store.add(str(seed), run(seed, settings))
    show(store, options.results.with_suffix(".png"))
