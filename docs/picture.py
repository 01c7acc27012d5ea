"""The first page's picture: ``python -m docs.picture`` draws it anew, in docs/_static/home.png.

What ``python -m pyro_ssl.demo`` finds the memory of a fitted model to be: two histories that end in
the same topic, and which topic is expected next. It fits the model as the demo does.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure

from pyro_ssl.demo.builtin import run
from pyro_ssl.demo.report import Report
from pyro_ssl.plotting import LINE_COLORS

DEFAULTS = {"topics": 30, "hidden": 64, "particles": 10, "epochs": 60, "seed": 0}
NUM_BARS, NUM_WORDS = 4, 7
LEFT = -0.18  # of the figure, in units of the bars' width


def draw(report: Report) -> Figure:
    """Draw the histories above, and the expected topics below, large enough for a phone."""
    memory, names = report.memory, report.topics.names(3)
    assert memory is not None
    blue, orange = LINE_COLORS[:2]
    kinds = (("A", blue), ("B", orange))
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    top, ax = figure.subplots(2, 1, height_ratios=[1, 2.3])
    top.set_axis_off()
    last = f"Two histories with one last topic (“{names[memory.pair.topic]}”)"
    top.text(LEFT, 1.0, last, size=15, va="top")
    for row, ((mark, color), passage) in enumerate(
        zip(kinds, memory.passages, strict=True)
    ):
        words = [
            "□" if word == "<unk>" else word
            for word in passage.words[-1 - NUM_WORDS : -1]
        ]
        y = 0.58 - 0.34 * row
        top.text(LEFT, y, mark, size=16, weight="bold", color=color, va="center")
        top.text(LEFT + 0.05, y, "… " + " ".join(words), size=15, va="center")
    shown = memory.likeliest(NUM_BARS)
    laws = [
        ("state space LSTM, after A", blue, memory.predicted[0]),
        ("state space LSTM, after B", orange, memory.predicted[1]),
        ("hidden Markov model, after both", "0.75", memory.markov),
    ]
    for i, (name, color, law) in enumerate(laws):
        at = [row + 0.27 * (i - 1) for row in range(len(shown))]
        ax.barh(at, law[shown].tolist(), 0.25, color=color, label=name)
    ax.set_yticks(range(len(shown)), [names[k] for k in shown], size=14)
    ax.invert_yaxis()
    ax.set_xticks([0, 0.5, 1.0], ["0", "50%", "100%"], size=13)
    ax.set_xlim(0, 1)
    ax.set_title("and the topic that is expected next", x=LEFT, loc="left", size=15)
    ax.legend(frameon=False, fontsize=13, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Fit as the demo does, and draw."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = run(argparse.Namespace(**DEFAULTS, out=Path(folder)))
    draw(report).savefig(Path(__file__).parent / "_static" / "home.png", dpi=110)


if __name__ == "__main__":
    main()
