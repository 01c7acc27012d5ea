"""The page's pictures for other uses, as files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..plotting import plot_perplexity, plot_topic_path, plot_topics
from .marked import Palette
from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_pictures"]


def write_pictures(report: Report, palette: Palette, folder: Path) -> None:
    """Write ``perplexity.png``, ``topics.png`` and ``topic_path.png``."""
    curves = {
        "SSL, test": report.test_curve,
        "SSL, validation": [record.score for record in report.history],
    }
    hmm = {"exact HMM, test": report.baselines["exact HMM"]}
    ax = plot_perplexity(curves, hmm, kept=report.kept)
    ax.set_title("The dot is the epoch that is kept", loc="left", size=10)
    _save(ax, folder / "perplexity.png")
    topics = [*report.topics.content, *report.topics.glue]
    _save(plot_topics(topics, colors=palette.colors), folder / "topics.png")
    words, probs = report.passages[0]
    ax = plot_topic_path(words, probs, topics=topics, colors=palette.colors)
    _save(ax, folder / "topic_path.png")


def _save(ax: Axes, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=160)
    plt.close(figure)
