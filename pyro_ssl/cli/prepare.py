"""From files to a model and the data that it is fitted to."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..datasets import TextBatch, Vocabulary, batchify
from ..demo.scores import perplexity, unigram_probs
from ..infer.about import digest
from ..models import GaussianSSL, TopicalSSL
from .call import device_of
from .series import read_series
from .texts import Reading, read_passages

__all__ = ["Prepared", "held_out", "pad", "prepare", "reading_of"]

#: options that decide what comes out of a fit, by kind
_DECIDE = ("seed", "valid", "hidden", "particles", "learning_rate", "column", "delimiter")
_DECIDE_TEXT = ("topics", "vocabulary", "markov_steps", "batch_size", *Reading._fields)
_DECIDE_SERIES = ("dim", "paths")
#: passages in a step of EM, where nothing is said and there are more
_TOGETHER = 1000


@dataclass
class Prepared:
    """A model, and what its fit is called with.

    ``data`` is what the settings keep of the data, ``told`` tells of them, and ``options`` are
    those that decide what comes out. ``score`` names the held-out score, and ``levels`` what it is
    of others; ``begins`` tells what comes before the first epoch.
    """

    model: TopicalSSL | GaussianSSL
    arguments: dict[str, Any]
    options: dict[str, Any]
    data: dict[str, Any]
    told: str
    score: str
    vocabulary: Vocabulary | None = None
    begins: str = ""
    levels: dict[str, float] = field(default_factory=dict)


def prepare(options: argparse.Namespace) -> Prepared:
    """Read the files, and make the model.

    :raises OSError: if a file cannot be read.
    :raises ValueError: if there is nothing to learn from in them.
    """
    return _texts(options) if options.kind == "text" else _series(options)


def reading_of(options: argparse.Namespace, default: Reading | None = None) -> Reading:
    """Return how files are read: as the options tell, and else as by default."""
    given = {name: getattr(options, name, None) for name in Reading._fields}
    if given["column"] is not None:
        given["column"] = given["column"][0]
    default = default or Reading()
    return default._replace(**{n: v for n, v in given.items() if v is not None})


def held_out(count: int, share: float) -> list[int]:
    """Return the places of what is held out: evenly spread, and one at least of several.

    Example::

        >>> held_out(10, 0.2), held_out(3, 0.1), held_out(1, 0.1), held_out(5, 0.0)
        ([4, 9], [2], [], [])
    """
    if count < 2 or not share:
        return []
    # Not all: one is left to learn from.
    places = [i for i in range(count) if int((i + 1) * share) > int(i * share)][: count - 1]
    return places or [count - 1]


def pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Lay series side by side, ``(T, B, E)``, and return their lengths ``(B,)``."""
    lengths = torch.tensor([len(row) for row in rows], device="cpu")
    return torch.nn.utils.rnn.pad_sequence([*rows]), lengths


def _texts(options: argparse.Namespace) -> Prepared:
    how = reading_of(options)
    passages = [passage.words for passage in read_passages(options.files, how)]
    out = set(held_out(len(passages), options.valid))
    train = [words for i, words in enumerate(passages) if i not in out]
    valid = [words for i, words in enumerate(passages) if i in out]
    vocabulary = Vocabulary.build(train, options.vocabulary)
    batch, scored = batchify(train, vocabulary), batchify(valid, vocabulary)
    device = device_of(options.device)
    model = TopicalSSL(options.topics, vocabulary.words, hidden_size=options.hidden).to(device)
    arguments = _common(options) | {
        "words": batch.words.to(device),
        "lengths": batch.lengths.to(device),
        "batch_size": options.batch_size or (None if len(train) <= _TOGETHER else _TOGETHER),
        "markov_steps": options.markov_steps,
    }
    levels = {}
    if valid:
        arguments["valid"] = scored.words.to(device), scored.lengths.to(device)
        levels["unigram"] = _unigram(batch, scored, len(vocabulary))
    content = [digest(t) for one in (batch, scored) for t in (one.words, one.lengths)]
    counts = {"files": [*options.files], "passages": len(passages), "held out": len(valid)}
    counts |= {"words": batch.num_tokens + scored.num_tokens, "vocabulary": len(vocabulary)}
    told = (
        f"{counts['words']:,} words in {_many(len(passages), 'passage')}, {len(valid):,} of them "
        f"held out; {len(vocabulary):,} words known, {batch.unknown_rate:.1%} of the text unknown"
    )
    return Prepared(
        model,
        arguments,
        _deciding(options, _DECIDE_TEXT),
        counts | {"content": _seal([*content, *vocabulary.words])},
        told,
        "perplexity",
        vocabulary,
        f"first an HMM, of {_many(options.markov_steps, 'step')} at most from each of its starts"
        if options.markov_steps
        else "",
        levels,
    )


def _series(options: argparse.Namespace) -> Prepared:
    names, rows = read_series(options.files, options.column, options.delimiter)
    places = held_out(len(rows), options.valid)
    train = [row for i, row in enumerate(rows) if i not in places]
    device = device_of(options.device)
    model = GaussianSSL(options.dim or len(names), hidden_size=options.hidden).to(device)
    x, lengths = (value.to(device) for value in pad(train))
    arguments = _common(options) | {"x": x, "lengths": lengths, "num_paths": options.paths}
    if places:
        arguments["valid"] = tuple(v.to(device) for v in pad([rows[i] for i in places]))
    steps, missing = sum(map(len, rows)), sum(int(row.isnan().sum()) for row in rows)
    counts = {"files": [*options.files], "series": len(rows), "held out": len(places)}
    counts |= {"steps": steps, "columns": names}
    told = (
        f"{_many(steps, 'step')} of {', '.join(names)} in {_many(len(rows), 'series')}, "
        f"{len(places)} of them held out; {_many(missing, 'number')} missing"
    )
    return Prepared(
        model,
        arguments,
        _deciding(options, _DECIDE_SERIES),
        counts | {"content": _seal([digest(row) for row in rows])},
        told,
        "nll",
    )


def _common(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments that every fit has."""
    return {
        "num_epochs": options.epochs,
        "num_particles": options.particles,
        "learning_rate": options.learning_rate,
        "patience": options.patience,
    }


def _deciding(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in sorted({*_DECIDE, *names})}


def _unigram(train: TextBatch, valid: TextBatch, vocab_size: int) -> float:
    """The held-out perplexity of counts plus one."""
    probs = unigram_probs(train.words[train.mask], vocab_size)
    return perplexity(probs[valid.words[valid.mask]].log())


def _seal(parts: Sequence[object]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1 and not name.endswith('s'))}"
