"""What the tests ask of Markdown: its Python blocks, its links, its headings."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from pyro_ssl import datasets

FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=ticks)$", re.M | re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.M)


class Block(NamedTuple):
    """A fenced block of Python, and the package that it is for, if that is another one."""

    code: str
    line: int
    peer: str | None


def python_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of ``python``; ``python hmmlearn`` is for another package."""
    for found in FENCE.finditer(text):
        language, *peer = found["info"].split() or [""]
        if language == "python":
            line = text.count("\n", 0, found.start("body"))
            yield Block(found["body"], line, peer[0] if peer else None)


def run_blocks(path: Path) -> dict:
    """Run a page's blocks from top to bottom, in float32, and return the names that they made.

    A block for another package is run where that is installed.
    """
    torch.set_default_dtype(torch.float32)
    namespace = {"__name__": "__page__"}
    for block in python_blocks(path.read_text(encoding="utf-8")):
        if block.peer is None or importlib.util.find_spec(block.peer):
            code = "\n" * block.line + block.code  # errors name the page's line
            exec(compile(code, str(path), "exec"), namespace)
    return namespace


def read_less(monkeypatch) -> None:
    """Let blocks read half of the built-in text's passages, for their code is what is tested."""
    whole = datasets.load_python_docs

    def half(*args, **kwargs):
        corpus = whole(*args, **kwargs)
        parts = (getattr(corpus, part) for part in ("train", "valid", "test"))
        few = (part.select(range(0, len(part.lengths), 2)) for part in parts)
        return datasets.Corpus(corpus.name, corpus.vocabulary, *few)

    monkeypatch.setattr(datasets, "load_python_docs", half)


def without_code(text: str) -> str:
    """Leave out fenced blocks and code within lines: neither has links or headings."""
    return re.sub(r"`[^`\n]+`", "`code`", FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Return the targets of all links and pictures."""
    return LINK.findall(without_code(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    titles = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


if __name__ == "__main__":  # run by ``make release-check`` where the package is a wheel
    run_blocks(Path(sys.argv[1]))
