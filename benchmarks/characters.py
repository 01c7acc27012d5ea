"""Is a multiplicative LSTM the better model of characters, at equal parameters and equal steps?

    python -m benchmarks.characters --path wikitext-2 [--seeds 3] [--steps 1200]

Character language models of WikiText-2 (``wiki.train.tokens`` and its like, plain, ``.gz`` or
``.xz``), whose ``<unk>`` are read as five characters each: the bits below compare with one another,
not with figures on raw text. The mLSTM has H=128 units, the LSTM as many as give it the same number
of parameters within 1 %. Both start alike: orthogonal recurrent blocks, forget bias 1. Both read
50 streams of the training text in windows of 50, the state carried from window to window; Adam,
learning rate 0.003 falling to 0 in a straight line, gradients clipped at norm 1, float32, one
thread. A seed sets the first weights and the place in the text where both models begin.

Each run is stored in ``--results`` when it is done, and skipped the next time; a plot of the
validation curves is written beside it. A run takes one to two minutes; there are two per seed.
"""

import argparse
import math
import os
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from pyro_ssl.datasets.files import find_file, open_text
from pyro_ssl.models import LanguageModel
from pyro_ssl.plotting.curves import _CURVES, _label_right

from ._results import RESULTS, Results

NAMES = {"mlstm": "mLSTM", "lstm": "LSTM"}
STREAMS, WINDOW, EMBEDDING = 50, 50, 64


@dataclass(frozen=True)
class Settings:
    """What the figures depend on; runs of other settings never share a results file."""

    steps: int
    hidden: int
    every: int
    rare: int
    valid_characters: int
    test_characters: int
    learning_rate: float = 0.003
    clip: float = 1.0


# ------------------------------------------------------------------------------------ the text


def read_text(path: Path, split: str) -> str:
    """Read a split whole. ``path`` is the folder, or the training file in it."""
    folder = path.parent if path.is_file() else path
    expected = f"Expected wiki.{split}.tokens, plain or .gz or .xz: the word-level WikiText-2."
    name = "benchmarks.characters"
    with open_text(
        find_file(folder, [f"wiki.{split}.tokens"], name, expected), [".tokens"], name
    ) as file:
        return "".join(file)


def build_alphabet(text: str, rare: int) -> dict[str, int]:
    """Give each character of the training text a number from 1; 0 is all the rare ones."""
    counts = Counter(text)
    common = sorted(c for c, n in counts.items() if n >= rare)
    lost = sum(n for n in counts.values() if n < rare)
    print(
        f"{len(text):,} training characters, {len(counts)} distinct; {len(counts) - len(common)} "
        f"of them occur fewer than {rare} times ({lost:,} places) and are one unknown symbol: "
        f"V={len(common) + 1}"
    )
    return {character: i for i, character in enumerate(common, start=1)}


def encode(text: str, alphabet: dict[str, int]) -> Tensor:
    """Return the numbers of the characters, int64 ``(N,)``."""
    return torch.tensor([alphabet.get(character, 0) for character in text])


def streams(text: Tensor) -> Tensor:
    """Cut a text into ``STREAMS`` parts side by side, ``(N // STREAMS, STREAMS)``."""
    length = len(text) // STREAMS
    return text[: length * STREAMS].view(STREAMS, length).T.contiguous()


# ----------------------------------------------------------------------------------- the models


def build(layer: str, V: int, hidden: int) -> LanguageModel:
    """Return a model that starts as its rival does."""
    model = LanguageModel(V, embedding_size=EMBEDDING, hidden_size=hidden, cell=layer, dropout=0.0)
    if isinstance(model.recurrent, nn.LSTM):  # the mLSTM does this by itself
        with torch.no_grad():
            for block in model.recurrent.weight_hh_l0.split(hidden):
                nn.init.orthogonal_(block)
            model.recurrent.bias_ih_l0.zero_()
            model.recurrent.bias_hh_l0.zero_()
            model.recurrent.bias_ih_l0[hidden : 2 * hidden] = 1.0
    return model


def count_parameters(layer: str, V: int, hidden: int) -> int:
    """Return how many numbers a model learns."""
    with torch.device("meta"):
        model = LanguageModel(V, embedding_size=EMBEDDING, hidden_size=hidden, cell=layer)
    return model.num_parameters


def match_sizes(V: int, hidden: int) -> dict[str, int]:
    """Return H for each layer, at equal parameters."""
    wanted = count_parameters("mlstm", V, hidden)
    candidates = {H: count_parameters("lstm", V, H) for H in range(hidden, 2 * hidden)}
    H = min(candidates, key=lambda size: abs(candidates[size] - wanted))
    difference = candidates[H] / wanted - 1
    print(f"mLSTM H={hidden}: {wanted:,} parameters; LSTM H={H}: {candidates[H]:,} ", end="")
    print(f"({difference:+.2%})")
    if abs(difference) > 0.01:
        raise SystemExit(
            f"No LSTM is within 1 % of an mLSTM of H={hidden}; write a larger --hidden."
        )
    return {"mlstm": hidden, "lstm": H}


@torch.no_grad()
def bits_per_character(model: LanguageModel, text: Tensor) -> float:
    """Score ``(L, STREAMS)`` but for its first row, with the state carried throughout."""
    total, state = 0.0, None
    for start in range(0, len(text) - 1, 200):
        x, y = text[:-1][start : start + 200], text[1:][start : start + 200]
        logits, state = model(x, state)
        total += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum"))
    return total / (text[1:].numel() * math.log(2))


def train(
    model: LanguageModel,
    train_text: Tensor,
    valid: Tensor,
    settings: Settings,
    offset: int,
    name: str,
) -> dict[str, Any]:
    """Truncated back-propagation through time over the streams, from row ``offset`` on."""
    optim = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    decay = torch.optim.lr_scheduler.LambdaLR(optim, lambda step: 1.0 - step / settings.steps)
    state, row, seconds = None, offset, 0.0
    curve: list[tuple[int, float]] = []
    with trange(1, settings.steps + 1, desc=name, disable=bool(os.environ.get("CI"))) as bar:
        for step in bar:
            started = time.perf_counter()
            if row + WINDOW >= len(train_text):
                state, row = None, 0
            x, y = train_text[row : row + WINDOW], train_text[row + 1 : row + WINDOW + 1]
            row += WINDOW
            logits, state = model(x, state)
            state = tuple(part.detach() for part in state)
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
            optim.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optim.step()
            decay.step()
            seconds += time.perf_counter() - started
            if step % settings.every == 0 or step == settings.steps:
                curve.append((step, bits_per_character(model, valid)))
                bar.set_postfix(valid=f"{curve[-1][1]:.3f} bits")
    return {"curve": curve, "seconds_per_step": seconds / settings.steps}


# ----------------------------------------------------------------------------------- the results


def by_layer(results: dict[str, Any], key: str) -> dict[str, list[Any]]:
    """Gather one entry of every run."""
    out: dict[str, list[Any]] = {layer: [] for layer in NAMES}
    for run in results["runs"].values():
        out[run["layer"]].append(run[key])
    return {layer: values for layer, values in out.items() if values}


def report(results: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'':<8}{'H':>5}{'parameters':>12}{'bits per character, test':>27}{'ms a step':>11}")
    for layer, bits in by_layer(results, "test_bits").items():
        spread = f"± {statistics.stdev(bits):.4f}" if len(bits) > 1 else "(1 seed)"
        H, size = (by_layer(results, key)[layer][0] for key in ("hidden", "parameters"))
        pace = statistics.median(by_layer(results, "seconds_per_step")[layer]) * 1e3
        score = f"{statistics.mean(bits):.4f} {spread}"
        print(f"{NAMES[layer]:<8}{H:>5}{size:>12,}{score:>27}{pace:>11.1f}")


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the validation curves: seeds as thin lines, their mean as a thick one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    ax = figure.add_subplot()
    labels = []
    for (layer, curves), color in zip(by_layer(results, "curve").items(), _CURVES, strict=False):
        steps = [step for step, _ in curves[0]]
        bits = [[value for _, value in curve] for curve in curves]
        mean = [statistics.mean(values) for values in zip(*bits, strict=True)]
        for values in bits:
            ax.plot(steps, values, color=color, linewidth=0.7, alpha=0.6)
        ax.plot(steps, mean, color=color, linewidth=2.0)
        labels.append((mean[-1], f"{NAMES[layer]}  {mean[-1]:.3f}", color))
    ax.margins(x=0.02, y=0.08)
    ax.set(xlabel="training step", ylabel="bits per character, validation")
    ax.spines[["top", "right"]].set_visible(False)
    _label_right(ax, labels)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run what is not done yet; print the table, and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, help="the folder of WikiText-2")
    parser.add_argument("--results", type=Path, default=RESULTS / "characters.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--hidden", type=int, default=128, help="H of the mLSTM")
    parser.add_argument("--every", type=int, default=100, help="steps between validations")
    parser.add_argument("--rare", type=int, default=100, help="fewer occurrences: unknown")
    parser.add_argument("--valid-characters", type=int, default=100_000)
    parser.add_argument("--test-characters", type=int, default=500_000)
    o = parser.parse_args()
    if o.path is None:
        print("nothing to read: write --path with the folder of WikiText-2")
        return
    torch.set_num_threads(1)
    settings = Settings(o.steps, o.hidden, o.every, o.rare, o.valid_characters, o.test_characters)
    store = Results(o.results, asdict(settings))

    text = read_text(o.path, "train")
    alphabet = build_alphabet(text, o.rare)
    V = len(alphabet) + 1
    sizes = match_sizes(V, o.hidden)
    train_text = streams(encode(text, alphabet))
    valid = streams(encode(read_text(o.path, "valid")[: o.valid_characters], alphabet))
    test = streams(encode(read_text(o.path, "test")[: o.test_characters], alphabet))
    seen = o.steps * WINDOW * STREAMS
    print(f"{seen:,} characters to learn from, {test[1:].numel():,} to be scored on, per run")
    for seed in range(o.seeds):
        for layer in NAMES:
            if f"{layer}-{seed}" in store:
                continue
            torch.manual_seed(seed)
            offset = int(torch.randint(len(train_text) // 2, ()))
            model = build(layer, V, sizes[layer])
            run = train(model, train_text, valid, settings, offset, f"{NAMES[layer]} {seed}")
            run |= {"layer": layer, "seed": seed, "hidden": sizes[layer], "V": V}
            run |= {"parameters": model.num_parameters, "characters": seen}
            run["test_bits"] = bits_per_character(model, test)
            store.add(f"{layer}-{seed}", run)
    report(store.content)
    plot(store.content, o.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
