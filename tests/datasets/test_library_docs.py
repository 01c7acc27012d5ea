"""Docstrings as a corpus: of a small library by hand, and of this Python's."""

import sys
import sysconfig

import pytest
import torch

from pyro_ssl.datasets import load_library_docs
from pyro_ssl.datasets.library_docs import _docstrings, _sources

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Two modules, a package with tests, and what must not be read."""

    def docs(seed):
        torch.manual_seed(seed)
        index = torch.randint(10, (120,)).tolist()
        return f"{WORDS[seed]} " + " ".join(WORDS[i] for i in index)

    not_read = f'"""{"omega " * 120}"""'
    files = {
        "one.py": f'"""{docs(0)}"""\ndef f():\n    "{docs(1)}"\n',
        "two.py": f'class A:\n    """{docs(2)}\n\n    {docs(0)}"""\n',
        "pack/__init__.py": f'async def g():\n    """{docs(3)}"""\n',
        "pack/sub/deep.py": f'"""{docs(4)}"""\nraise RuntimeError("it was run")\n',
        "pack/tests/test_it.py": not_read,
        "idlelib/__init__.py": not_read,
        "other.py": not_read,
        "broken.py": f"{not_read} (",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    names = frozenset({"one", "two", "pack", "idlelib", "broken", "absent"})
    monkeypatch.setattr(sys, "stdlib_module_names", names)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_what_is_read(library):
    found = [str(file.relative_to(library)) for file in _sources(library, "pack")]
    assert found == ["pack/__init__.py", "pack/sub/deep.py"]
    source = (
        '"""One."""\nclass A:\n    "Two."\n    def f(self):\n        "Three."\ndef g():\n    "4"\n'
    )
    (library / "order.py").write_text(source)
    assert [*_docstrings(library / "order.py")] == ["One.", "Two.", "Three.", "4"]
    assert [*_docstrings(library / "broken.py")] == []


def test_a_library_by_hand(library):
    corpus = load_library_docs(50, 10, min_length=10)
    parts = (corpus.train, corpus.valid, corpus.test)
    # Five texts of 121 words; the one that stands in two places is read once.
    assert sum(part.num_tokens for part in parts) == 5 * 120
    assert {*corpus.vocabulary.words} == {"<unk>", *WORDS}
    assert corpus.name.startswith("Docstrings of Python 3.")
    again = load_library_docs(50, 10, min_length=10)
    assert again.train.words.equal(corpus.train.words)
    with pytest.raises(ValueError, match="load_library_docs: found 0 passages of 1000 to 1000"):
        load_library_docs(50, 1000, min_length=1000)


def test_a_python_without_its_sources(library, tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no source of the standard library in .*nowhere"):
        load_library_docs()


@pytest.mark.stage("statistical")  # a few seconds of reading
def test_this_python():
    corpus = load_library_docs()
    parts = (corpus.train, corpus.valid, corpus.test)
    assert sum(part.num_tokens for part in parts) > 150_000
    assert {"socket", "widget", "decimal", "logger"} <= {*corpus.vocabulary.words}
    assert corpus.train.unknown_rate < corpus.test.unknown_rate < 0.1
