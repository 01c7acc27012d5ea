"""``pyro-ssl topics``, ``score`` and ``forecast``: what the model of a run tells."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence

import pyro
import torch
from torch import Tensor

from ..datasets import STOP_WORDS, UNKNOWN, Vocabulary, batchify
from ..errors import CheckpointError
from ..models import GaussianSSL, TopicalSSL
from ..pages import write_topic_page
from .call import Call, device_of
from .folder import RunFolder, Settings
from .prepare import pad, reading_of
from .series import read_series
from .tables import json_line, table_lines, topic_lines
from .texts import Passage, Reading, read_passages

__all__ = ["forecast", "score", "topics"]

#: documents that are forecast together
_TOGETHER = 64


def topics(options: argparse.Namespace, call: Call) -> int:
    """Print the topics of a run."""
    ssl = _text_model(options, "topics")[0]
    found = ssl.topics(options.words, relevance=options.relevance)
    if options.page is not None:
        how = {"num_words": max(options.words, 20), "leave_out": {UNKNOWN, *STOP_WORDS}}
        write_topic_page(options.page, ssl, title=f"Topics of {options.folder}", **how)
    if not options.json:
        print(*topic_lines(found), sep="\n")
        return 0
    for topic in found:
        row = {"topic": topic.index, "share": topic.occupancy, "words": topic.words}
        print(json_line({**row, "probs": topic.probs}))
    return 0


def score(options: argparse.Namespace, call: Call) -> int:
    """Print how well files are predicted."""
    pyro.set_rng_seed(options.seed)
    settings = RunFolder(options.folder).read()
    return _score_series(options) if settings.kind == "series" else _score_texts(options)


def forecast(options: argparse.Namespace, call: Call) -> int:
    """Print what comes after the end of files."""
    pyro.set_rng_seed(options.seed)
    settings = RunFolder(options.folder).read()
    return _forecast_series(options) if settings.kind == "series" else _forecast_texts(options)


# ------------------------------------------------------------------------------ texts


def _score_texts(options: argparse.Namespace) -> int:
    ssl, how, vocabulary = _text_model(options, "score")
    passages = read_passages(options.files, how)
    batch = batchify([passage.words for passage in passages], vocabulary)
    device = device_of(options.device)
    ssl.to(device)
    particles = options.particles or 100
    words, lengths = batch.words.to(device), batch.lengths.to(device)
    log_p = ssl.log_likelihood(words, lengths, num_particles=particles).sum(0).tolist()
    unknown = ((batch.words == 0) & batch.mask).sum(0).tolist()
    rows = []
    for passage, outside, total in zip(passages, unknown, log_p, strict=True):
        count = len(passage.words)
        row = {"file": passage.file, "document": passage.document, "passage": passage.passage}
        row |= {"words": count, "unknown": outside, "log_likelihood": total}
        rows.append(row | {"perplexity": math.exp(-total / count)})
    if options.json:
        print(*map(json_line, rows), sep="\n")
        return 0
    total, count = sum(log_p), batch.num_tokens
    last = {"file": "all", "document": "", "passage": "", "words": count}
    last |= {"unknown": batch.num_unknown, "log_likelihood": total}
    rows.append(last | {"perplexity": math.exp(-total / count)})
    print(*table_lines([*_named(rows[0])], [_shown(row) for row in rows]), sep="\n")
    return 0


def _forecast_texts(options: argparse.Namespace) -> int:
    ssl, how, vocabulary = _text_model(options, "forecast")
    passages = read_passages(options.files, how, last=True)
    ssl.to(device_of(options.device))
    listed = ssl.topics(3, leave_out=(UNKNOWN,))
    names = {topic.index: " ".join(topic.words) for topic in listed}
    for passage, topics_ahead, words_ahead in _ahead(ssl, passages, vocabulary, options):
        if not options.json:
            end = " ".join(passage.words[-6:])
            print(f"{passage.file}, document {passage.document}, after ... {end}")
        for step, (states, words) in enumerate(
            zip(topics_ahead, words_ahead, strict=True), start=1
        ):
            next_topics = [(int(k), p) for k, p in _top(states, options.top)]
            next_words = [(vocabulary[v], p) for v, p in _top(words, options.top)]
            if options.json:
                row = {"file": passage.file, "document": passage.document, "step": step}
                row |= {"topics": [{"topic": k, "prob": p} for k, p in next_topics]}
                print(json_line(row | {"words": [{"word": w, "prob": p} for w, p in next_words]}))
                continue
            by_topic = ", ".join(f"{p:.1%} {k} ({names[k]})" for k, p in next_topics)
            print(f"  +{step}  topic  {by_topic}")
            print(
                f"  {' ' * len(str(step))}   word   "
                + ", ".join(f"{p:.1%} {w}" for w, p in next_words)
            )
    return 0


def _ahead(
    ssl: TopicalSSL,
    passages: Sequence[Passage],
    vocabulary: Vocabulary,
    options: argparse.Namespace,
) -> Iterator[tuple[Passage, Tensor, Tensor]]:
    """Each document, with the topics ``(S, K)`` and words ``(S, V)`` that come next."""
    for first in range(0, len(passages), _TOGETHER):
        some = passages[first : first + _TOGETHER]
        batch = batchify([passage.words for passage in some], vocabulary)
        how = {"horizon": options.horizon, "num_particles": options.particles or 100}
        found = ssl.forecast(batch.words, batch.lengths, **how)
        for column, passage in enumerate(some):
            yield passage, found.topics[:, column], found.words[:, column]


def _top(probs: Tensor, count: int) -> list[tuple[int, float]]:
    values, places = probs.topk(min(count, len(probs)))
    return [*zip(places.tolist(), values.tolist(), strict=True)]


# ------------------------------------------------------------------------------ series


def _score_series(options: argparse.Namespace) -> int:
    ssl, _, rows, _ = _series_model(options)
    x, lengths = pad(rows)
    device = device_of(options.device)
    ssl.to(device)
    log_p = ssl.log_likelihood(
        x.to(device), lengths.to(device), num_particles=options.particles or 1000
    )
    found = []
    for file, row, total in zip(options.files, rows, log_p.sum(0).tolist(), strict=True):
        count = int(row.isfinite().all(-1).sum())
        found.append({"file": file, "steps": count, "log_likelihood": total})
        found[-1]["per_step"] = total / count if count else math.nan
    if options.json:
        print(*map(json_line, found), sep="\n")
        return 0
    print(*table_lines([*_named(found[0])], [_shown(row) for row in found]), sep="\n")
    return 0


def _forecast_series(options: argparse.Namespace) -> int:
    ssl, names, rows, _ = _series_model(options)
    device = device_of(options.device)
    ssl.to(device)
    head = ["step"] + [f"{name}{part}" for name in names for part in ("", " from", " to")]
    for file, row in zip(options.files, rows, strict=True):
        ahead = ssl.forecast(
            row[:, None].to(device), options.horizon, num_particles=options.particles or 1000
        )
        low, high = ahead.interval(options.level)
        each = torch.stack([ahead.mean, low, high], -1)[:, 0].tolist()  # (S, E, 3)
        if options.json:
            for step, values in enumerate(each, start=1):
                columns = zip(names, values, strict=True)
                by_name = {n: {"mean": m, "low": a, "high": b} for n, (m, a, b) in columns}
                print(json_line({"file": file, "step": step, "values": by_name}))
            continue
        print(f"{file}, after {len(row):,} steps; {options.level:.0%} lie within the interval")
        lines = [
            [f"+{step}", *(f"{v:.4g}" for three in values for v in three)]
            for step, values in enumerate(each, start=1)
        ]
        print(*table_lines(head, lines), sep="\n")
    return 0


# ------------------------------------------------------------------------------ shared


def _text_model(
    options: argparse.Namespace, command: str
) -> tuple[TopicalSSL, Reading, Vocabulary]:
    """The model, how its files were read, and the words it knows."""
    folder = RunFolder(options.folder)
    settings = folder.read()
    if settings.kind != "text":
        raise ValueError(
            f"{folder.path}: holds a model of series, expected one of texts, which has topics; "
            f"write pyro-ssl score or pyro-ssl forecast."
        )
    _check_there(folder, settings)
    ssl = TopicalSSL.load(folder.model)
    then = argparse.Namespace(**{n: settings.options.get(n) for n in Reading._fields})
    how = reading_of(options, reading_of(then))
    return ssl, how, Vocabulary(ssl.vocabulary)


def _series_model(
    options: argparse.Namespace,
) -> tuple[GaussianSSL, list[str], list[Tensor], Settings]:
    """The model, its columns, and the series that are given."""
    folder = RunFolder(options.folder)
    settings = folder.read()
    _check_there(folder, settings)
    ssl = GaussianSSL.load(folder.model)
    names = options.column or settings.data["columns"]
    delimiter = options.delimiter or settings.options["delimiter"]
    return ssl, *read_series(options.files, names, delimiter), settings


def _check_there(folder: RunFolder, settings: Settings) -> None:
    if not folder.model.exists():
        raise CheckpointError(
            f"{folder.path}: no model here yet, expected a run that is past its first epoch; wait "
            f"for it, or go on with it: {settings.command} --resume"
        )


def _named(row: dict[str, object]) -> Iterator[str]:
    return (name.replace("_", " ") for name in row)


def _shown(row: dict[str, object]) -> list[str]:
    return [f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row.values()]
