"""A second corpus that is always there: the docstrings of Python's standard library.

Its modules are about different things: sockets, dates, windows and widgets, decimal arithmetic,
XML. No network, and nothing is run: the sources are parsed, not imported.
"""

import ast
import platform
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from .corpora import Corpus, corpus_of

__all__ = ["load_library_docs"]

#: programs, and a tool's own copy: not what a library says of itself
_LEFT_OUT = {"ensurepip", "idlelib", "lib2to3", "this", "turtledemo"}


def load_library_docs(
    vocab_size: int = 4000,
    passage_length: int = 100,
    *,
    min_length: int = 20,
    seed: int = 0,
) -> Corpus:
    """Load the docstrings of the standard library: some 230,000 words of 160 modules.

    They are cut into passages and split as those of :func:`load_python_docs`, which has the
    arguments' meanings; paragraphs that stand in more than one docstring are kept once. Reading
    takes a few seconds. The text differs with the version of Python and with what is installed of
    it: :attr:`Corpus.name` tells the version.

    :raises FileNotFoundError: if this Python came without its sources.
    :raises ValueError: if there are fewer than 10 passages, or an argument is out of range.

    **Example**::

        >>> from pyro_ssl.datasets import load_library_docs
        >>> corpus = load_library_docs(vocab_size=1000)
        >>> corpus.train.words.shape[0], len(corpus.vocabulary)
        (100, 1000)
        >>> "socket" in corpus.vocabulary
        True
    """
    folder = Path(sysconfig.get_path("stdlib"))
    texts = {}
    for module in sorted(sys.stdlib_module_names - _LEFT_OUT):
        docs = [text for file in _sources(folder, module) for text in _docstrings(file)]
        if docs:
            texts[module] = "\n\n".join(docs)
    if not texts:
        raise FileNotFoundError(
            f"load_library_docs: found no source of the standard library in {folder}. Install "
            "Python with its sources, or bring your own texts: "
            "batchify([tokenize(text) for text in texts], vocabulary)."
        )
    name = f"Docstrings of Python {platform.python_version()}'s standard library"
    sizes = (vocab_size, passage_length, min_length, seed)
    return corpus_of(texts, name, "load_library_docs", *sizes)


def _sources(folder: Path, module: str) -> list[Path]:
    """A module's file, or all files of a package but for its tests."""
    files = [folder / f"{module}.py", *sorted((folder / module).rglob("*.py"))]
    inside = len(folder.parts)
    return [
        file
        for file in files
        if file.is_file() and not {"test", "tests"} & {*file.parts[inside:-1]}
    ]


def _docstrings(file: Path) -> Iterator[str]:
    """Docstrings of a module, its classes and functions, in their order; of a broken file none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings that are no docstrings
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    for node in sorted(found, key=lambda node: getattr(node, "lineno", 0)):
        if text := ast.get_docstring(node):
            yield text
