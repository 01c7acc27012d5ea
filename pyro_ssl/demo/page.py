"""A page that shows a fit: self-contained HTML, with its pictures as files beside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..datasets import UNKNOWN, Corpus
from ..models import EpochRecord, Topic
from ..pages import shown_word, topic_cards
from ..plotting import OTHER, plot_perplexity, plot_topic_path, plot_topics, topic_colors
from ..storage import write_durably
from .scores import Difference, typical_words
from .template import PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Passage", "Report", "Row", "write_page"]


class Passage(NamedTuple):
    """A text, T words, and the posterior of their topics, ``(T, K)``."""

    words: list[str]
    probs: Tensor


class Row(NamedTuple):
    """A model in the comparison; shares are relative to the two baselines' perplexities."""

    model: str
    perplexity: float
    under_unigram: float
    against_hmm: float


@dataclass(frozen=True)
class Report:
    """All that the demonstration found out.

    ``baselines`` has the test perplexities of ``"unigram"`` and ``"exact HMM"``; ``test_curve`` has
    the SSL's, after every epoch. ``difference`` is how different the topics are, ``chance`` how
    different topics are that differ by chance alone.
    """

    corpus: Corpus
    settings: dict[str, int]
    baselines: dict[str, float]
    test_curve: list[float]
    history: list[EpochRecord]
    topics: list[Topic]
    phi: Tensor
    occupancy: Tensor
    difference: Difference
    chance: Difference
    passages: list[Passage]
    seconds: float

    @property
    def kept(self) -> int:
        """The epoch with the lowest validation perplexity."""
        return min(self.history, key=lambda record: record.score).epoch

    @property
    def perplexity(self) -> float:
        """The SSL's test perplexity at the epoch that is kept."""
        return self.test_curve[self.kept - 1]

    def comparison(self) -> list[Row]:
        """Compare the models, the SSL last."""
        unigram, hmm = self.baselines["unigram"], self.baselines["exact HMM"]
        K = self.settings["topics"]
        models = {"unigram": unigram, f"exact HMM, {K} states": hmm}
        models[f"SSL, {K} topics"] = self.perplexity
        return [Row(name, v, 1.0 - v / unigram, v / hmm - 1.0) for name, v in models.items()]


def write_page(report: Report, folder: Path) -> Path:
    """Write ``index.html``, ``perplexity.png``, ``topics.png`` and ``topic_path.png``.

    :returns: the path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = torch.cat([passage.probs for passage in report.passages])
    colors = topic_colors(shown)
    _save(_plot_perplexity(report), folder / "perplexity.png")
    _save(plot_topics(report.topics, colors=colors), folder / "topics.png")
    words, probs = report.passages[0]
    ax = plot_topic_path(words, probs, topics=report.topics, colors=colors)
    _save(ax, folder / "topic_path.png")

    fill = _numbers(report) | {
        "perplexity_png": base64.b64encode((folder / "perplexity.png").read_bytes()).decode(),
        "comparison": _comparison(report),
        "passages": "\n".join(_passage(passage, report, colors) for passage in report.passages),
        "legend": _legend(report, shown, colors),
        "topics": _topics(report, colors),
        "epochs": _epochs(report),
    }
    write_durably(folder, {"index.html": PAGE.substitute(fill).encode()})
    return folder / "index.html"


def _plot_perplexity(report: Report) -> Axes:
    """Draw it twice: from 0, and enlarged without the unigram."""
    import matplotlib.pyplot as plt

    _, (whole, close) = plt.subplots(1, 2, figsize=(10.5, 3.9), layout="constrained")
    test, kept = {"SSL": report.test_curve}, report.kept
    plot_perplexity(test, report.baselines, kept=kept, bottom=0.0, ax=whole)
    whole.set_title("Test text", loc="left", size=10)
    curves = {
        "SSL, test": report.test_curve,
        "SSL, validation": [record.score for record in report.history],
    }
    hmm = {"exact HMM, test": report.baselines["exact HMM"]}
    plot_perplexity(curves, hmm, kept=kept, ax=close)
    close.set_title("The same from near; the dot is the epoch kept", loc="left", size=10)
    return close


def _save(ax: Axes, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _numbers(report: Report) -> dict[str, str]:
    unigram, hmm, ssl = report.comparison()
    corpus, K = report.corpus, report.settings["topics"]
    below = "below" if ssl.against_hmm < 0 else "above"
    return {
        "name": escape(corpus.name),
        "num_topics": str(K),
        "vocabulary": f"{len(corpus.vocabulary):,}",
        "train_words": f"{corpus.train.num_tokens:,}",
        "test_words": f"{corpus.test.num_tokens:,}",
        "ssl": f"{ssl.perplexity:.0f}",
        "under_unigram": f"{ssl.under_unigram:.0%}",
        "against_hmm": f"{abs(ssl.against_hmm):.1%} {below}",
        "moved": f"{report.history[-1].change_rate:.0%}",
        "kept": str(report.kept),
        "num_epochs": str(len(report.history)),
        "seconds": f"{report.seconds:.0f}",
        "settings": ", ".join(f"{name} {value}" for name, value in report.settings.items()),
        "divergence": f"{report.difference.divergence:.2f}",
        "chance_divergence": f"{report.chance.divergence:.2f}",
        "unique": f"{report.difference.unique:.0%}",
        "chance_unique": f"{report.chance.unique:.0%}",
    }


def _comparison(report: Report) -> str:
    rows = report.comparison()
    longest = max(row.perplexity for row in rows)
    return "\n".join(
        f'<tr><td>{escape(row.model)}</td><td class="bar"><i style="width:'
        f'{100 * row.perplexity / longest:.1f}%"></i></td><td>{row.perplexity:.1f}</td>'
        f"<td>{_share(-row.under_unigram)}</td><td>{_share(row.against_hmm)}</td></tr>"
        for row in rows
    )


def _share(value: float) -> str:
    return f"{value:+.1%}".replace("-", "\N{MINUS SIGN}") if abs(value) > 5e-4 else "="


def _passage(passage: Passage, report: Report, colors: Sequence[str]) -> str:
    names = {topic.index: " ".join(topic.words[:4]) for topic in report.topics}
    spans = []
    for word, probs in zip(passage.words, passage.probs, strict=True):
        p, k = (value.item() for value in probs.max(-1))
        tip = f"topic {k}, {p:.0%} sure: {names[int(k)]} \N{HORIZONTAL ELLIPSIS}"
        shade = _blend(colors[int(k)], p)
        spans.append(
            f'<span style="background:{shade}" data-tip="{escape(tip)}">{shown_word(word)}'
            f"<sub>{k}</sub></span>"
        )
    return f'<p class="passage">{" ".join(spans)}</p>'


def _blend(color: str, share: float) -> str:
    """Mix a colour with white."""
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * share):02x}" for part in parts)


def _legend(report: Report, shown: Tensor, colors: Sequence[str]) -> str:
    usage = shown.sum(0)
    chips = []
    for topic in sorted(report.topics, key=lambda topic: -usage[topic.index]):
        if colors[topic.index] != OTHER:
            words = " ".join(escape(w) for w in topic.words[:5] if w != UNKNOWN)
            chips.append(
                f'<li><span class="chip" style="background:{colors[topic.index]}">'
                f"{topic.index}</span> {words}</li>"
            )
    rest = f'<li><span class="chip" style="background:{OTHER}">n</span> any other topic</li>'
    return "\n".join(chips) + rest


def _topics(report: Report, colors: Sequence[str]) -> str:
    decode = report.corpus.vocabulary.decode
    typical = [decode(words) for words in typical_words(report.phi, report.occupancy)]
    return topic_cards(report.topics, colors, typical)


def _epochs(report: Report) -> str:
    return "\n".join(
        f"<tr><td>{record.epoch}</td><td>{test:.1f}</td><td>{record.score:.1f}</td>"
        f"<td>{'' if math.isnan(record.change_rate) else f'{record.change_rate:.1%}'}</td>"
        f"<td>{record.seconds:.2f}</td></tr>"
        for record, test in zip(report.history, report.test_curve, strict=True)
    )
