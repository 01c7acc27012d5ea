"""The command line of ``python -m pyro_ssl.demo``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pyro
import torch

from ..datasets import load_library_docs
from .builtin import run as run_builtin
from .imdb import run as run_imdb

__all__ = ["main"]

_DATA = (
    "Python's language reference; the docstrings of its standard library, five times as much and "
    "on many subjects; or IMDB reviews"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demonstration that the arguments ask for.

    :param argv: by default those of the command line.
    """
    args = _parser().parse_args(argv)
    if args.data == "imdb" and args.path is None:
        raise SystemExit(
            "--data imdb needs --path PATH: the folder aclImdb, once unpacked (it is published at "
            "http://ai.stanford.edu/~amaas/data/sentiment/), or a file of JSON lines."
        )
    if args.epochs is None:
        args.epochs = 5 if args.data == "imdb" else 60
    torch.set_num_threads(args.threads)
    with pyro.get_param_store().scope():
        if args.data == "imdb":
            run_imdb(args)
        else:
            run_builtin(args, load_library_docs() if args.data == "library" else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyro_ssl.demo",
        description="Fit a topical SSL to text and show what it has learned.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", choices=("builtin", "library", "imdb"), default="builtin", help=_DATA)
    add("--path", type=Path, help="where the IMDB reviews are: aclImdb, or JSON lines")
    add("--topics", type=int, default=30, help="K")
    add("--hidden", type=int, default=64, help="H, units of the LSTM")
    add("--particles", type=int, default=10, help="P")
    add("--epochs", type=int, help="at most so many; by default 60, and 5 for IMDB")
    add("--seed", type=int, default=0, help="of the fit")
    add("--seeds", type=int, default=1, help="IMDB: fit with so many seeds, from --seed on")
    add("--reviews", type=int, default=200, help="IMDB: how many")
    add("--out", type=Path, default=Path("demo_output"), help="folder for the page; not for IMDB")
    # The tensors are small: more threads wait for each other longer than they work.
    add("--threads", type=int, default=1, help="of torch")
    return parser
