"""Command line of the comparison; see the package's docstring."""

import argparse
import platform
import time

import torch
from tqdm.auto import tqdm

from .corpora import TASKS
from .methods import METHODS, Context, choose_concentration
from .report import report
from .store import Store


def run(options: argparse.Namespace) -> None:
    """Run what is not done yet."""
    task, store = TASKS[options.corpus], Store(options.corpus)
    todo = [
        (seed, name)
        for seed in range(options.seeds)
        for name in options.methods
        if not store.has(name, seed)
    ]
    if not todo:
        print(f"{options.corpus}: all runs are done; see {store.path}")
        return
    split = task.load(options.path).to(options.device)
    print(split.describe())
    if "concentration" not in store.content["settings"]:
        found = choose_concentration(task, split)
        store.settings(
            concentration=float(min(found, key=found.__getitem__)),
            valid_perplexity_by_concentration=found,
            num_states=task.num_states,
            hidden_size=task.hidden_size,
            num_epochs=task.num_epochs,
            vocab_size=len(split.vocabulary),
            num_train_tokens=split.train.num_tokens,
            num_test_tokens=int(split.test.mask[split.start :].sum()),
            title=task.title,
            torch=torch.__version__,
            machine=f"{platform.machine()}, {options.device}, one thread",
        )
    context = None
    for seed, name in tqdm(todo, desc=options.corpus, unit="run"):
        if context is None or context.seed != seed:
            context = Context(task, split, store.content["settings"]["concentration"], seed)
        started = time.perf_counter()
        result = METHODS[name].run(context)
        result["seconds_in_all"] = time.perf_counter() - started
        store.add(name, seed, result)
        tqdm.write(
            f"{options.corpus} seed {seed} {METHODS[name].title:<28} {result['perplexity']:8.2f}"
            f"   {result.get('seconds_per_epoch', 0.0):6.2f} s an epoch"
        )


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run what is not done yet")
    runner.add_argument("--corpus", choices=TASKS, required=True)
    runner.add_argument("--path", help="where the corpus is; none for the built-in one")
    runner.add_argument("--seeds", type=int, default=3)
    runner.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    runner.add_argument("--device", default="cpu")
    runner.set_defaults(go=run)
    reporter = commands.add_parser("report", help="tables and picture from the results")
    reporter.set_defaults(go=lambda options: report())
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.go(options)


if __name__ == "__main__":
    main()
