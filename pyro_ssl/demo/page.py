"""A page that shows a fit: self-contained HTML, with its pictures as files beside it."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from ..pages import grouped_bars, line_chart, signed, topic_section
from ..storage import write_durably
from .marked import Palette, legend, marked
from .pictures import write_pictures
from .report import Report
from .template import MEMORY, PAGE

__all__ = ["write_page"]


def write_page(report: Report, folder: Path) -> Path:
    """Write ``index.html``, and pictures beside it.

    :returns: the path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    palette = Palette.of(report.topics, report.usage)
    write_pictures(report, palette, folder)
    first, *others = (marked(passage, palette) for passage in report.passages)
    topics = topic_section(
        report.phi,
        report.occupancy,
        report.corpus.vocabulary.words,
        palette.colors,
        report.coherence,
    )
    fill = _numbers(report) | {
        "legend": legend(palette, report.topics, report.usage),
        "passage": first,
        "more_passages": "\n".join(others),
        "memory": _memory(report, palette),
        "topics": topics,
        "comparison": _comparison(report),
        "charts": _charts(report),
        "epochs": _epochs(report),
    }
    write_durably(folder, {"index.html": PAGE.substitute(fill).encode()})
    return folder / "index.html"


def _memory(report: Report, palette: Palette) -> str:
    if (memory := report.memory) is None:
        return ""
    pair = memory.pair
    histories = "".join(
        f'<div class="history"><b class="mark{n}">{mark}</b>'
        f"{marked(passage, palette, number_all=True)}</div>"
        for n, (mark, passage) in enumerate(zip("AB", memory.passages, strict=True))
    )
    shares = [*memory.predicted.tolist(), memory.markov.tolist()]
    rows = [
        (f"{palette.chip(k)} {escape(palette.names[k])}", [share[k] for share in shares])
        for k in memory.likeliest()
    ]
    tops = [int(p.argmax()) for p in memory.predicted]
    first, second = (f"{palette.chip(k)} ({escape(palette.names[k])})" for k in tops)
    return MEMORY.substitute(
        first=first,
        second=second,
        first_share=f"{shares[0][tops[0]]:.0%}",
        second_share=f"{shares[1][tops[1]]:.0%}",
        chip=palette.chip(pair.topic),
        words=escape(palette.names[pair.topic]),
        histories=histories,
        bars=grouped_bars(["LSTM after A", "LSTM after B", "HMM after both"], rows),
        distance=f"{pair.distance:.2f}",
        typical=f"{pair.typical:.2f}",
        num_pairs=f"{pair.num_pairs:,}",
    )


def _charts(report: Report) -> str:
    history, kept = report.history, report.kept
    hmm, valid = report.baselines["exact HMM"], [record.score for record in history]
    each = [
        (
            "Test perplexity",
            "the fit never sees this text",
            line_chart(report.test_curve, name="test", levels={"HMM": hmm}, mark=kept),
        ),
        (
            "Validation perplexity",
            "the dot is the lowest: the epoch that is kept",
            line_chart(valid, name="validation", levels={"HMM": report.valid_hmm}, mark=kept),
        ),
        (
            "Latent topics moved",
            "share that the sampler gave a new value; stuck would be 0",
            line_chart([r.change_rate for r in history], name="moved", percent=True),
        ),
    ]
    return "".join(
        f"<figure><figcaption>{name}<small>{note}</small></figcaption>{svg}</figure>"
        for name, note, svg in each
    )


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
        "unknown": f"{corpus.test.unknown_rate:.1%}",
        "num_glue": str(len(report.topics.glue)),
        "glue_share": f"{sum(topic.occupancy for topic in report.topics.glue):.0%}",
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
    return signed(value, "+.1%") if abs(value) > 5e-4 else "="


def _epochs(report: Report) -> str:
    return "\n".join(
        f"<tr><td>{record.epoch}</td><td>{test:.1f}</td><td>{record.score:.1f}</td>"
        f"<td>{'' if math.isnan(record.change_rate) else f'{record.change_rate:.1%}'}</td>"
        f"<td>{record.seconds:.2f}</td></tr>"
        for record, test in zip(report.history, report.test_curve, strict=True)
    )
