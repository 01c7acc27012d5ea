"""Bytes of WikiText-2 by ``LanguageModel``: LSTM against mLSTM, and both adapting to the test text.

    python -m benchmarks.characters --path wikitext-2 [--seeds 1] [--bytes 2500000]

The text is ``wiki.train.tokens`` and its like (plain, ``.gz`` or ``.xz``) as UTF-8 bytes, V=256.
The mLSTM has H units, the LSTM as many as give it the same number of parameters within 1 %; both
start with orthogonal recurrent blocks and forget bias 1. ``fit(window=100)`` reads the first three
quarters of so many bytes as 64 streams, once, then the last quarter at a tenth of the learning
rate; float32, one thread. Scored are the first bytes of the test text as one stream, by the model
as it was fitted, and by dynamic evaluation (Krause et al. 2018), whose learning rate and pull are
the best of a few on validation bytes.

Krause et al. 2016 publish 1.26 bits per byte on WikiText-2 for an mLSTM of 46 million parameters,
two hundred times as many as here, and far longer training. The files here have ``<unk>`` in place
of rare words, five bytes that are easy to foresee; raw text is harder. Figures compare with one
another first of all.

Each run is stored in ``--results`` when it is done, and skipped the next time; a plot is written
beside it. At the defaults a run takes some minutes of one core; there are two per seed.
"""

import argparse
import gzip
import itertools
import lzma
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pyro_ssl.models import DynamicEvaluation, LanguageModel
from pyro_ssl.plotting import LINE_COLORS

from ._results import RESULTS, Results

NAMES = {"mlstm": "mLSTM", "lstm": "LSTM"}
V, STREAMS, WINDOW, EMBEDDING = 256, 64, 100, 64
LEARNING_RATES, PULLS = (1e-4, 3e-4, 1e-3), (0.001, 0.01)


@dataclass(frozen=True)
class Settings:
    """What the figures depend on; runs of other settings never share a results file."""

    bytes: int
    hidden: int
    test_bytes: int
    valid_bytes: int
    adapting_window: int = 20
    learning_rate: float = 0.004
    clip: float = 1.0


# ------------------------------------------------------------------------------------ the text


def read_bytes(path: Path, split: str, limit: int) -> Tensor:
    """Return the first bytes of a split, int64 ``(N,)``. ``path`` is the folder."""
    for suffix, reader in (("", open), (".gz", gzip.open), (".xz", lzma.open)):
        found = path / f"wiki.{split}.tokens{suffix}"
        if found.exists():
            with cast(Callable[..., Any], reader)(found, "rb") as file:
                return torch.tensor(list(file.read(limit)))
    raise FileNotFoundError(f"{path}: no wiki.{split}.tokens, plain or .gz or .xz: WikiText-2.")


def streams(text: Tensor, number: int = STREAMS) -> Tensor:
    """Cut a text into parts side by side, ``(N // number, number)``."""
    return text[: len(text) // number * number].view(number, -1).T.contiguous()


# ----------------------------------------------------------------------------------- the models


def build(layer: str, hidden: int) -> LanguageModel:
    """Return a model that starts as its rival does."""
    options: dict[str, Any] = {"embedding_size": EMBEDDING, "hidden_size": hidden, "cell": layer}
    model = LanguageModel(V, dropout=0.0, forget_bias=1.0, **options)
    if isinstance(model.recurrent, nn.LSTM):  # the mLSTM does this by itself
        for block in model.recurrent.get_parameter("weight_hh_l0").chunk(4):
            nn.init.orthogonal_(block.detach())
    return model


def match_sizes(hidden: int) -> dict[str, int]:
    """Return H for each layer, at equal parameters."""

    def count(layer: str, H: int) -> int:
        with torch.device("meta"):
            model = LanguageModel(V, embedding_size=EMBEDDING, hidden_size=H, cell=layer)
        return model.num_parameters

    wanted = count("mlstm", hidden)
    H = min(range(hidden, 2 * hidden), key=lambda size: abs(count("lstm", size) - wanted))
    if abs(count("lstm", H) / wanted - 1) > 0.01:
        raise SystemExit(f"No LSTM is within 1 % of an mLSTM of H={hidden}; write more.")
    return {"mlstm": hidden, "lstm": H}


def bits(model: LanguageModel, text: Tensor, dynamic: DynamicEvaluation | None = None) -> float:
    """Bits per byte of ``(T, B)``."""
    return math.log2(model.perplexity(text, dynamic=dynamic))


def run_one(layer: str, seed: int, hidden: int, text: dict[str, Tensor], s: Settings) -> Any:
    """Fit one model, and score it in all ways."""
    torch.manual_seed(seed)
    model, curve, seen = build(layer, hidden), [], 0
    cut = len(text["train"]) * 3 // 4
    valid = streams(text["valid"], 8)
    started = time.perf_counter()
    # A few pieces one after another, so that there is a curve.
    pieces = [(part, 1.0) for part in text["train"][:cut].chunk(6)] + [(text["train"][cut:], 0.1)]
    how: dict[str, Any] = {"batch_size": STREAMS, "window": WINDOW, "clip": s.clip}
    for part, rate in pieces:
        model.fit(streams(part), num_epochs=1, learning_rate=rate * s.learning_rate, **how)
        seen += len(part)
        curve.append((seen, bits(model, valid)))
        print(f"{NAMES[layer]} {seed}: {seen:,} bytes, {curve[-1][1]:.3f} bits", flush=True)
    seconds = time.perf_counter() - started
    rms = model.gradient_rms(text["train"][:40_000, None], window=s.adapting_window)
    ways = [
        DynamicEvaluation(s.adapting_window, rate, pull, rms)
        for rate, pull in itertools.product(LEARNING_RATES, PULLS)
    ]
    tried = [bits(model, text["valid"][:20_000, None], way) for way in ways]
    best = ways[min(range(len(ways)), key=tried.__getitem__)]
    test = text["test"][:, None]
    return {
        **{"layer": layer, "seed": seed, "hidden": hidden, "parameters": model.num_parameters},
        **{"curve": curve, "seconds": seconds, "test_bits": bits(model, test)},
        "dynamic_bits": bits(model, test, best),
        "dynamic": {"learning_rate": best.learning_rate, "pull": best.pull},
        "tried": [
            {"learning_rate": way.learning_rate, "pull": way.pull, "valid_bits": found}
            for way, found in zip(ways, tried, strict=True)
        ],
    }


# ----------------------------------------------------------------------------------- the results


def of_layer(results: dict[str, Any], layer: str) -> list[Any]:
    """The runs of one layer."""
    return [run for run in results["runs"].values() if run["layer"] == layer]


def report(results: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'':<8}{'H':>5}{'parameters':>12}{'bits per byte, test':>22}{'adapting':>20}")
    for layer, name in NAMES.items():
        if not (runs := of_layer(results, layer)):
            continue
        print(f"{name:<8}{runs[0]['hidden']:>5}{runs[0]['parameters']:>12,}", end="")
        for key, width in (("test_bits", 22), ("dynamic_bits", 20)):
            found = [run[key] for run in runs]
            spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else " (1 seed)"
            print(f"{statistics.mean(found):.3f}{spread}".rjust(width), end="")
        print()


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the validation curves, a line per run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    ax = figure.add_subplot()
    for (layer, name), color in zip(NAMES.items(), LINE_COLORS, strict=False):
        for run in of_layer(results, layer):
            label = name if run["seed"] == 0 else None
            ax.plot(*zip(*run["curve"], strict=True), "o-", color=color, label=label)
    ax.set(xlabel="training bytes read", ylabel="bits per byte, validation")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run what is not done yet; print the table, and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, help="the folder of WikiText-2")
    parser.add_argument("--results", type=Path, default=RESULTS / "characters.json")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=2_500_000)
    parser.add_argument("--hidden", type=int, default=160, help="H of the mLSTM")
    parser.add_argument("--test-bytes", type=int, default=100_000)
    parser.add_argument("--valid-bytes", type=int, default=100_000)
    o = parser.parse_args()
    if o.path is None:
        print("nothing to read: write --path with the folder of WikiText-2")
        return
    torch.set_num_threads(1)
    settings = Settings(o.bytes, o.hidden, o.test_bytes, o.valid_bytes)
    store = Results(o.results, asdict(settings))
    limits = {"train": o.bytes, "valid": o.valid_bytes, "test": o.test_bytes}
    text = {split: read_bytes(o.path, split, limit) for split, limit in limits.items()}
    sizes = match_sizes(o.hidden)
    for seed, layer in itertools.product(range(o.seeds), NAMES):
        if f"{layer}-{seed}" not in store:
            store.add(f"{layer}-{seed}", run_one(layer, seed, sizes[layer], text, settings))
    report(store.content)
    plot(store.content, o.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
