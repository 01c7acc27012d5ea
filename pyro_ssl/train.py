"""Topics of text files, from a command line: ``python -m pyro_ssl.train book.txt --topics 20``.

Under ``torchrun --nproc-per-node 2 -m pyro_ssl.train book.txt`` the passages are sharded over its
processes, on one machine or on several; see :mod:`pyro_ssl.distributed`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from .datasets import TextBatch, Vocabulary, batchify, split_passages, tokenize
from .distributed import current, ranks
from .models import TopicalSSL

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Fit a :class:`TopicalSSL` to text files, and print its perplexity and topics.

    :param argv: by default those of the command line.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    with ranks():
        torch.manual_seed(options.seed)
        vocabulary, train, valid = _read(parser, options)
        on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        train, valid = train.to(on), valid.to(on)
        _say(f"{train} to learn from, {valid} held out, {len(vocabulary):,} words known")
        ssl = TopicalSSL(options.topics, vocabulary.words, hidden_size=options.hidden).to(on)
        ssl.fit(
            train.words,
            train.lengths,
            valid=(valid.words, valid.lengths),
            num_epochs=options.epochs,
            batch_size=options.batch_size,
            markov_steps=options.markov_steps,
            disable_progbar=True if current().rank else None,
        )
        perplexity = ssl.perplexity(valid.words, valid.lengths)
        _say(f"held-out perplexity {perplexity:.1f} after {len(ssl.history)} epochs")
        for topic in ssl.topics(options.words):
            _say(f"{topic.occupancy:6.1%}  {' '.join(topic.words)}")
        if options.save and current().rank == 0:
            ssl.save(options.save)
            print(f"saved in {options.save}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pyro_ssl.train", description=__doc__)
    add = parser.add_argument
    add("files", nargs="+", type=Path, help="text files, UTF-8; each is cut into passages")
    add("--topics", type=int, default=20, help="K")
    add("--hidden", type=int, default=64, help="units of the LSTM")
    add("--vocabulary", type=int, default=2000, help="the most frequent words that are known")
    add("--passage", type=int, default=100, help="words of a passage")
    add("--epochs", type=int, default=50)
    add("--markov-steps", type=int, default=150, help="iterations of the HMM at the start")
    add("--batch-size", type=int, help="passages in a step, over all processes; by default all")
    add("--words", type=int, default=10, help="words to print of each topic")
    add("--seed", type=int, default=0)
    add("--save", type=Path, help="a folder for TopicalSSL.load")
    return parser


def _read(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[Vocabulary, TextBatch, TextBatch]:
    """The vocabulary, passages to learn from, and every tenth passage, which is held out."""
    passages = []
    for path in options.files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"{path}: {error}; expected a text file in UTF-8.")
        passages += split_passages(tokenize(text), options.passage)
    train, valid = [p for i, p in enumerate(passages) if i % 10], passages[::10]
    if len(train) < 1:
        parser.error(
            f"found {len(passages)} passages of {options.passage} words, expected 2 at least; "
            "give more text, or a smaller --passage."
        )
    vocabulary = Vocabulary.build(train, options.vocabulary)
    return vocabulary, batchify(train, vocabulary), batchify(valid, vocabulary)


def _say(text: str) -> None:
    """Print once, not on every rank."""
    if current().rank == 0:
        print(text)


if __name__ == "__main__":
    main()
