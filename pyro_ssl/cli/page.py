"""The page of a run: its state, its curves, what it has learned so far, how it was asked."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from torch import Tensor

from ..datasets import UNKNOWN
from ..models import EpochRecord
from ..pages import document, figures, forecast_chart, line_chart, table, topic_section
from ..plotting import topic_colors
from .call import shortened
from .folder import describe

__all__ = ["Ahead", "View", "page_of"]

_REFRESH = 5
_HEADS = {"text": "Topics of", "series": "A path behind"}
_STATES = {
    "running": "Running. This page is read again every few seconds.",
    "done": "Done.",
    "stopped": "Stopped. What was reached is saved; go on with",
    "failed": "Failed. The last checkpoint is kept; go on with",
}
_STYLE = """
.state { font-weight: 600; margin-top: 1.2rem; }
.failed { color: var(--second); }
.options td:last-child { text-align: left; }
"""


class Ahead(NamedTuple):
    """The last steps of a series, and a forecast of the next.

    ``seen`` ``(T, E)``, ``later`` ``(S, E, 3)``: mean and interval; ``first`` is the number of the
    first step, and ``level`` the probability of the interval.
    """

    names: Sequence[str]
    seen: Tensor
    later: Tensor
    first: int
    level: float


@dataclass
class View:
    """What a page shows. ``levels`` are held-out scores of other models."""

    title: str
    told: str
    kind: str
    state: str
    message: str
    history: Sequence[EpochRecord]
    num_epochs: int
    kept: int
    score: str
    levels: dict[str, float]
    options: dict[str, Any]
    line: str
    resume_line: str
    seconds: float
    phi: Tensor | None = None
    occupancy: Tensor | None = None
    vocabulary: Sequence[str] = ()
    ahead: Ahead | None = None


def page_of(view: View) -> str:
    """Return the page as HTML, with nothing from outside."""
    head = f"{_HEADS[view.kind]} {view.title}"
    parts = [f"<h1>{_HEADS[view.kind]} <em>{escape(view.title)}</em></h1>", _intro(view)]
    parts += [_state(view), _figures(view), _charts(view), _topics(view), _ahead(view)]
    parts.append(_made(view))
    refresh = _REFRESH if view.state == "running" else None
    return document(head, "\n".join(filter(None, parts)), style=_STYLE, refresh=refresh)


def _intro(view: View) -> str:
    told = escape(view.told)
    if view.kind == "series":
        return (
            f"<p>A state space LSTM follows {told}. Each row of numbers is a point of a hidden "
            "path, with noise; an LSTM over the <em>path</em> predicts its next step.</p>"
        )
    return (
        f"<p>A state space LSTM sorts text, word by word, into {view.options['topics']} topics: "
        f"{told}. Each word is drawn from its topic alone; an LSTM over the <em>topics</em> "
        "predicts the next one from all before it.</p>"
    )


def _state(view: View) -> str:
    parts = [f'<p class="state {view.state}">{_STATES[view.state]}</p>']
    if view.message:
        parts.insert(0, f'<p class="failed">{view.message}</p>')
    if view.state in ("stopped", "failed"):
        parts.append(f"<pre>{escape(shortened(view.resume_line))}</pre>")
    return "\n".join(parts)


def _figures(view: View) -> str:
    shown = {f"of {view.num_epochs} epochs": str(len(view.history))}
    if view.kept and not math.isnan(best := view.history[view.kept - 1].score):
        shown[f"held-out {view.score}, at epoch {view.kept}"] = _number(best)
        for name in ("unigram", "HMM"):
            if name in view.levels:
                change = best / view.levels[name] - 1.0
                whose = (
                    "a unigram\N{RIGHT SINGLE QUOTATION MARK}s"
                    if name == "unigram"
                    else ("that of the HMM it began with")
                )
                side = "under" if change < 0 else "above"
                shown[f"{side} {whose}"] = f"{abs(change):.1%}"
    return figures(shown)


def _number(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def _charts(view: View) -> str:
    history = view.history
    if not history:
        return '<p class="note">No epoch is over yet.</p>'
    hmm = {n: v for n, v in view.levels.items() if n == "HMM"}
    score = line_chart(
        [record.score for record in history], name=view.score, levels=hmm, mark=view.kept
    )
    loss = line_chart([record.loss for record in history], name="loss")
    moved = line_chart([r.change_rate for r in history], name="moved", percent=True)
    each = [
        (f"Held-out {view.score}", "lower is better; the dot is the epoch that is kept", score),
        ("Loss", _LOSS[view.kind], loss),
        ("Latents moved", "share that the sampler gave a new value; stuck would be 0", moved),
    ]
    drawn = [
        f"<figure><figcaption>{escape(name)}<small>{escape(note)}</small></figcaption>{svg}</figure>"
        for name, note, svg in each
        if svg
    ]
    rows = [
        [
            str(record.epoch),
            *("" if math.isnan(v) else f"{v:.4g}" for v in (record.score, record.loss)),
            "" if math.isnan(record.change_rate) else f"{record.change_rate:.1%}",
            f"{record.seconds:.2f}",
        ]
        for record in history
    ]
    every = table(["epoch", f"held-out {view.score}", "loss", "moved", "seconds"], rows)
    return (
        f'<h2>How it learns</h2>\n<div class="charts">{"".join(drawn)}</div>\n'
        f"<details><summary>Every epoch</summary>{every}</details>"
    )


_LOSS = {
    "text": "\N{MINUS SIGN}log p(topics, words) per word, of the topics drawn, while it learns",
    "series": "\N{MINUS SIGN}log p(path, numbers) per step, of the paths drawn, while it learns",
}


def _topics(view: View) -> str:
    if view.phi is None or view.occupancy is None:
        return ""
    shown = topic_section(view.phi, view.occupancy, view.vocabulary, topic_colors(view.occupancy))
    unknown = UNKNOWN in view.vocabulary
    note = " Words outside the vocabulary are left out." if unknown else ""
    return (
        "<h2>The topics</h2>\n<p>By falling share of the words. Listed are content words, with "
        "their probabilities in the topic in per cent; below a list, function words that are as "
        f"likely.{note}</p>\n{shown}"
    )


def _ahead(view: View) -> str:
    if view.ahead is None:
        return ""
    names, seen, later, first, level = view.ahead
    drawn = [
        f"<figure><figcaption>{escape(name)}</figcaption>"
        + forecast_chart(seen[:, e].tolist(), later[:, e].tolist(), name=name, first=first)
        + "</figure>"
        for e, name in enumerate(names)
    ]
    return (
        f"<h2>What comes next</h2>\n<p>The last {len(seen)} steps of the first series, as they "
        f"were observed, and a forecast of the next {len(later)}: the mean, and where a number "
        f'lies with a probability of {level:.0%}.</p>\n<div class="charts">{"".join(drawn)}</div>'
    )


def _made(view: View) -> str:
    rows = table([], describe(view.options))
    written = time.strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"<h2>How it was asked</h2>\n<pre>{escape(shortened(view.line))}</pre>\n"
        f'<div class="options">{rows}</div>\n'
        f'<p class="note">Written {written}, {view.seconds:,.0f} s after the start of this '
        "process.</p>"
    )
