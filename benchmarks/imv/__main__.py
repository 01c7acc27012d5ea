"""Command line of the comparison; see the package's docstring."""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from .._results import RESULTS, Results
from .methods import METHODS
from .report import report
from .tasks import PLANTED, TASKS


def run(options: argparse.Namespace) -> None:
    """Run what is not done yet."""
    task, folder = TASKS[options.data], options.results / options.data
    results, todo = {}, []
    for name in options.methods:
        settings = changed(METHODS[name].settings(task), options.set)
        results[name] = Results(folder / f"{name}.json", settings)
        # A method without random numbers is run once, unless the seed draws the data.
        seeds = options.seeds if METHODS[name].seeded or options.data in PLANTED else 1
        todo += [(seed, name) for seed in range(seeds) if str(seed) not in results[name]]
    if not todo:
        print(f"{options.data}: all runs are done; see {folder}")
        return
    split, drawn = None, None
    for seed, name in tqdm(sorted(todo, key=lambda run: run[0]), desc=options.data, unit="run"):
        if split is None or (options.data in PLANTED and drawn != seed):
            split, drawn = task.load(options.path, seed).to(options.device), seed
            tqdm.write(split.describe())
        started = time.perf_counter()
        result = METHODS[name].run(split, results[name].content["settings"], seed)
        result |= about(options, split, seed) | {"seconds": time.perf_counter() - started}
        results[name].add(str(seed), result)
        tqdm.write(
            f"seed {seed} {METHODS[name].title:<20} MSE {result['mse']:10.5f}  in 90 % "
            f"{100 * result['coverage']:5.1f}  {result['seconds']:6.1f} s"
        )


def changed(settings: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """Settings with those of ``--set`` that the method has."""
    given = dict(change.split("=", 1) for change in changes)
    return settings | {k: json.loads(v) for k, v in given.items() if k in settings}


def about(options: argparse.Namespace, split: Any, seed: int) -> dict[str, Any]:
    """What the report needs to know of the data."""
    facts = {
        "data": options.data,
        "names": list(split.names),
        "unit": split.unit,
        "window": split.train.x.shape[1],
        "num_train": split.train.num_windows,
        "num_valid": split.valid.num_windows,
        "num_test": split.test.num_windows,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {options.device}, one thread",
    }
    if options.data in PLANTED:
        truth = PLANTED[options.data](seed)
        facts["planted"] = {
            "variables": truth.variables,
            "lags": truth.lags,
            "shares": truth.shares,
        }
    return facts


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imv")
    parser.add_argument(
        "--results", type=Path, default=RESULTS / "imv", help="folder of the results"
    )
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run what is not done yet")
    runner.add_argument("--data", choices=TASKS, required=True)
    runner.add_argument("--path", help="where the data are; none for the planted ones")
    runner.add_argument("--seeds", type=int, default=3)
    runner.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    runner.add_argument("--device", default="cpu")
    runner.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="change settings: units=32"
    )
    runner.set_defaults(go=run)
    reporter = commands.add_parser("report", help="tables and pictures from the results")
    reporter.set_defaults(go=lambda options: report(options.results))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.go(options)


if __name__ == "__main__":
    main()
