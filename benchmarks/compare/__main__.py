"""Command line of the comparison; see the package's docstring."""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from .corpora import TASKS
from .methods import METHODS, Context, Method
from .report import report
from .store import RESULTS, Store


def run(options: argparse.Namespace) -> None:
    """Run what is not done yet."""
    task, name_of_store = TASKS[options.corpus], options.corpus
    if options.states is not None:
        title = f"{task.title}, K = {options.states}"
        task = task._replace(num_states=options.states, title=title)
        name_of_store += f"-{options.states}"
    if options.priors:
        task = task._replace(concentrations=tuple(options.priors))
    if options.set:
        name_of_store += "".join(f"+{setting}" for setting in sorted(options.set))
        task = task._replace(fit=dict(map(setting_of, options.set)))
    if options.epochs:
        task = task._replace(num_epochs=options.epochs)
    store = Store(name_of_store, options.results)
    todo = [
        (seed, name)
        for seed in options.seeds
        for name in options.methods
        if not store.has(name, seed)
    ]
    if not todo:
        print(f"{options.corpus}: all runs are done; see {store.path}")
        return
    split = task.load(options.path).to(options.device)
    print(split.describe())
    store.settings(
        concentrations=task.concentrations,
        num_states=task.num_states,
        hidden_size=task.hidden_size,
        num_epochs=task.num_epochs,
        vocab_size=len(split.vocabulary),
        num_train_tokens=split.train.num_tokens,
        num_test_tokens=int(split.test.mask[split.start :].sum()),
        title=task.title,
        torch=torch.__version__,
        machine=machine(options.device),
    )
    contexts: dict[float, Context] = {}
    for seed, name in tqdm(todo, desc=options.corpus, unit="run"):
        chosen, method = store.chosen(name), METHODS[name]
        priors = task.concentrations if chosen is None and method.has_prior else (chosen,)
        found = []
        for prior in priors:
            prior = task.concentrations[0] if prior is None else prior
            if prior not in contexts or contexts[prior].seed != seed:
                contexts[prior] = Context(task, split, prior, seed)
            found.append(timed_run(method, contexts[prior]))
            tqdm.write(f"{options.corpus} seed {seed} {method.title:<36} {told(found[-1])}")
        best = min(found, key=lambda result: min(result.get("valid_perplexity", [0.0])))
        if len(found) > 1:
            best["tried"] = {str(r["concentration"]): min(r["valid_perplexity"]) for r in found}
        store.add(name, seed, best)


def setting_of(text: str) -> tuple[str, Any]:
    """``weight_decay=0.3`` as a name and a value."""
    name, _, value = text.partition("=")
    return name, json.loads(value)


def machine(device: str) -> str:
    """What the seconds were measured on."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, one thread"


def merge(folders: list[Path], into: Path, shared: bool) -> None:
    """Take over the runs that other folders hold; of a shared machine without their seconds."""
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        found, store = Store(path.stem, path.parent), Store(path.stem, into)
        settings = {**found.content["settings"]}
        where = settings.pop("machine")
        store.settings(**settings)
        for method, runs in found.content["runs"].items():
            for seed, result in runs.items():
                if shared:
                    result = {k: v for k, v in result.items() if not k.startswith("seconds")}
                store.add(method, int(seed), {"machine": where, **result})
        print(f"{path}: {sum(map(len, found.content['runs'].values()))} runs")


def rates(folders: list[Path], into: Path) -> None:
    """Take over what an epoch took in other folders, of short runs that had the machine alone."""
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        found, store = Store(path.stem, path.parent), Store(path.stem, into)
        machine = found.content["settings"]["machine"]
        seconds = {
            method: statistics.fmean(run["seconds_per_epoch"] for run in runs.values())
            for method, runs in found.content["runs"].items()
        }
        store.settings(rates=store.content["settings"].get("rates", {}) | {machine: seconds})
        print(f"{path}: {seconds}, {machine}")


def timed_run(method: Method, context: Context) -> dict[str, Any]:
    """One run, with the seconds that it took in all."""
    started = time.perf_counter()
    result = method.run(context)
    result["seconds_in_all"] = time.perf_counter() - started
    if method.has_prior:
        result["concentration"] = context.concentration
    return result


def told(result: dict[str, Any]) -> str:
    """A run in one line."""
    prior = result.get("concentration", "-")
    valid = min(result.get("valid_perplexity", [float("nan")]))
    seconds = result.get("seconds_per_epoch", 0.0)
    return (
        f"prior {prior:<5} valid {valid:8.2f}  test {result['perplexity']:8.2f}"
        f"  {seconds:6.2f} s an epoch"
    )


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run what is not done yet")
    runner.add_argument("--corpus", choices=TASKS, required=True)
    runner.add_argument("--path", help="where the corpus is; none for the built-in one")
    runner.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    runner.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    runner.add_argument("--states", type=int, help="K; by default the corpus's own")
    runner.add_argument("--priors", type=float, nargs="+", help="concentrations to choose from")
    runner.add_argument(
        "--set", nargs="+", default=[], help="of the SSLs' fit, as weight_decay=0.3; stored apart"
    )
    runner.add_argument("--device", default="cpu")
    runner.add_argument("--epochs", type=int, help="at most; by default the corpus's own")
    runner.add_argument("--results", type=Path, default=RESULTS, help="the folder to store them in")
    runner.set_defaults(go=run)
    reporter = commands.add_parser("report", help="tables and picture from the results")
    reporter.set_defaults(go=lambda options: report())
    merger = commands.add_parser("merge", help="take over what other folders of results hold")
    merger.add_argument("--shared", action="store_true", help="their machine had other work")
    merger.set_defaults(go=lambda options: merge(options.folders, options.results, options.shared))
    rater = commands.add_parser("rates", help="take over the seconds of an epoch from short runs")
    rater.set_defaults(go=lambda options: rates(options.folders, options.results))
    for parts in (merger, rater):
        parts.add_argument("folders", type=Path, nargs="+")
        parts.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.go(options)


if __name__ == "__main__":
    main()
