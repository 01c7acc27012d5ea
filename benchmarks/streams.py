"""Are topics that come from a stream, part by part, as good as those of one fit?

    python -m benchmarks.streams --path wikitext-2
    python -m benchmarks.streams --path wikitext-2 --tokens 100000 --states 20 --memory 1000 400 0

WikiText-2 in order, cut into parts; ``TopicalSSL.partial_fit`` on each, with so many documents in
memory (5,000 are nearly all), down to none; beside ``TopicalSSL.fit`` on all at once, by the same
E-step. For each: the perplexity of the validation and the test passages, by 100 particles; of the
parts what each one's record says. The vocabulary is that of all, so that
perplexities compare. Finished runs are in a JSON file, and are not run again.
"""

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_ssl import TopicalSSL
from pyro_ssl.datasets import SequenceSplit, TextBatch, wikitext2_passages

from ._common import mean_sd
from ._results import RESULTS, Results

#: of all E-steps
LEARNING = {"inference": "smc", "draw_topics": True, "batch_size": 250, "num_gradient_steps": 2}
START = {"markov_steps": 40, "markov_starts": 1, "transition_steps": 60}
SCORING_PARTICLES = 100


def main() -> None:
    """Run what has not been run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="WikiText-2's folder; by default it is looked for")
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--memory", type=int, nargs="+", default=[5000, 2000, 0])
    parser.add_argument("--epochs", type=int, default=8, help="of the fit on all")
    parser.add_argument("--part-epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS / "streams.json")
    o = parser.parse_args()
    not_one = ("path", "seeds", "results", "memory")
    settings = {k: v for k, v in vars(o).items() if k not in not_one}
    split = wikitext2_passages(
        o.path, num_train_tokens=o.tokens, vocab_size=o.vocabulary, max_valid=200, max_test=1000
    )
    results = Results(o.results, settings | {"learning": LEARNING, "start": START})
    for seed in range(o.seeds):
        for name, memory in {"fit": None, **{f"parts, memory {n}": n for n in o.memory}}.items():
            if f"{name} {seed}" not in results:
                results.add(f"{name} {seed}", run(split, o, seed, memory))
                print(f"{name} {seed}: {results.runs[f'{name} {seed}']['test']:.1f}", flush=True)
    report(results)


def run(split: SequenceSplit, o: argparse.Namespace, seed: int, memory: int | None) -> Any:
    """Learn from all at once, without a ``memory``, or from parts; return scores."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    ssl = TopicalSSL(o.states, split.vocabulary.words, concentration=0.03)
    quiet = {"disable_progbar": True}
    found: dict[str, Any] = {}
    if memory is None:
        valid = (*data(split.valid), 0)
        how: dict[str, Any] = {**LEARNING, **START, **quiet, "num_epochs": o.epochs}
        ssl.fit(*data(split.train), valid=valid, **how)
    else:
        how = {**LEARNING, **START, **quiet, "num_epochs": o.part_epochs, "memory": memory}
        order = torch.arange(split.train.words.shape[1]).chunk(o.parts)
        records = [ssl.partial_fit(*data(split.train.select(i.tolist())), **how) for i in order]
        found["perplexity of each part before"] = [r.perplexity for r in records[1:]]
        found["mean movement"] = [statistics.fmean(r.movement) for r in records[1:]]
    for name, part in {"valid": split.valid, "test": split.test}.items():
        found[name] = ssl.perplexity(*data(part), num_particles=SCORING_PARTICLES)
    return found


def data(batch: TextBatch) -> tuple[Tensor, Tensor | None]:
    """Words and lengths; no lengths where all are full, which is faster."""
    full = bool((batch.lengths == len(batch.words)).all())
    return batch.words, None if full else batch.lengths


def report(results: Results) -> None:
    """Print perplexities, and how far those of the parts are from that of the fit."""
    asked, runs = results.content["settings"], results.runs
    seeds: dict[str, list[str]] = {}
    for key in runs:
        name, _, seed = key.rpartition(" ")
        seeds.setdefault(name, []).append(seed)
    print(
        f"\nWikiText-2, {asked['tokens']:,} tokens, V={asked['vocabulary']:,}, "
        f"K={asked['states']}, {asked['parts']} parts"
    )
    for name, of_name in seeds.items():
        found = [runs[f"{name} {seed}"] for seed in of_name]
        ratios = [
            math.log(runs[f"{name} {seed}"]["test"] / runs[f"fit {seed}"]["test"])
            for seed in of_name
        ]
        print(
            f"{name:<20} valid {mean_sd([f['valid'] for f in found], 1):<12} "
            f"test {mean_sd([f['test'] for f in found], 1):<12} "
            f"{100.0 * math.expm1(statistics.fmean(ratios)):+.1f} % of the fit's"
        )


if __name__ == "__main__":
    main()
