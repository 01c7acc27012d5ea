"""What cannot be done is told in a paragraph, with what to write instead, and changes nothing."""

import shutil

import pytest
import torch

from pyro_ssl.cli import main
from pyro_ssl.cli.program import _told
from tests.cli.program import SMALL, SMALL_SERIES, book, circle, fails, run
from tests.faults.disk import full_disk

#: name and content of a file, options, what is told
FILES = {
    "empty": ("a.txt", b"", [], "a.txt: found no word, expected text"),
    "no word": ("a.txt", b"12 34 ... \n", [], "a.txt: found no word, expected text"),
    "encoding": ("a.txt", b"caf\xe9 noir", [], "a.txt, line 1, expected a whole file of UTF-8"),
    "binary": ("a.pdf", b"%PDF\0\0", [], "expected a whole file of UTF-8 text"),
    "cut archive": ("a.txt.gz", b"\x1f\x8b\x08\x00", [], "expected a whole file of UTF-8 text"),
    "no JSON": ("a.jsonl", b'{"text": "so"}\n{"text"\n', [], "a.jsonl, line 2: found Expecting"),
    "JSON list": ("a.jsonl", b"[1]", [], "a.jsonl, line 1: found a list, expected a JSON object"),
    "no field": ("a.jsonl", b'{"body": "so"}', [], "no field 'text' among 'body', expected"),
    "no text": ("a.jsonl", b'{"text": 3}', [], "found a int in the field 'text', expected text"),
    "no lines": ("a.jsonl", b"\n\n", [], "a.jsonl: found no word"),
    "no column": ("a.csv", b"id,body\n1,so\n", [], "no column 'text' among 'id', 'body'"),
    "another column": ("a.csv", b"id,text\n1,so\n", ["--column", "x"], "no column 'x' among"),
    "two columns": ("a.csv", b"text,text\n1,so\n", [], "found 2 columns 'text' among"),
    "no rows": ("a.csv", b"", [], "no column 'text' among none"),
    "ragged": ("a.csv", b"id,text\n1,so,so\n", [], "line 2: found 3 cells, expected 2"),
    "quotes": ("a.csv", b'id,text\n1,"so" it is\n', [], "line 2: found ',' expected after '\"'"),
    "not there": ("", b"", [], "nothing.txt: No such file or directory"),
}

_SERIES = ["--kind", "series"]
NUMBERS = {
    "no number": (b"day,name\nMon,Ada\n", [], "no column of numbers among 'day', 'name'"),
    "a word": (b"x\n1\nmany\n", ["--column", "x"], "line 3: found 'many' in the column 'x'"),
    "too large": (b"x\n1\n1e99\n", ["--column", "x"], "line 3: found '1e99' in the column 'x'"),
    "missing": (b"x,y\n1,2\n", ["--column", "z"], "no column 'z' among 'x', 'y'"),
    "empty": (b"", [], "a.csv: found no row"),
    "names alone": (b"x,y\n", [], "found the names of columns alone"),
    "never seen": (b"x\n1\n\n", ["--column", "y"], "no column 'y'"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name, capsys, tmp_path):
    file, content, options, told = FILES[name]
    path = tmp_path / (file or "nothing.txt")
    if file:
        path.write_bytes(content)
    out = tmp_path / "run"
    said = fails(capsys, "fit", path, "--out", out, *SMALL, *options)
    assert told in said and said.startswith("pyro-ssl fit: ") and said.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name, capsys, tmp_path):
    content, options, told = NUMBERS[name]
    (tmp_path / "a.csv").write_bytes(content)
    out = tmp_path / "run"
    said = fails(capsys, "fit", tmp_path / "a.csv", "--out", out, *_SERIES, *options)
    assert told in said and not out.exists()


def test_a_folder_of_files(capsys, tmp_path):
    said = fails(capsys, "fit", tmp_path, "--out", tmp_path / "run", *SMALL)
    assert f"found a folder, expected files; write {tmp_path}/*.txt" in said


def test_a_folder_that_cannot_be_written(capsys, tmp_path):
    path = book(tmp_path)
    said = fails(capsys, "fit", path, "--out", path / "run", *SMALL)
    assert "Not a directory" in said and str(path) in said
    said = fails(capsys, "fit", path, "--out", path, *SMALL)
    assert "found a file, expected a folder for --out" in said
    with full_disk():
        said = fails(capsys, "fit", path, "--out", tmp_path / "run", *SMALL)
    assert "No space left on device" in said
    assert path.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    torch.set_default_dtype(torch.float32)
    assert main(["fit", str(book(folder)), "--out", str(folder / "run"), *SMALL]) == 0
    return folder / "run"


def cut(file):
    file.write_bytes(file.read_bytes()[:-9])


def settings(text):
    return lambda run: (run / "settings.json").write_text(text)


_OTHER = "found other settings, expected what fit wrote there"
DAMAGE = {
    "no settings": (lambda run: (run / "settings.json").unlink(), "found no settings.json"),
    "cut settings": (lambda run: cut(run / "settings.json"), "found JSONDecodeError"),
    "a list": (settings("[]"), _OTHER),
    "other settings": (settings('{"kind": "text"}'), _OTHER),
    "wrong types": (
        settings('{"kind": "text", "command": 3, "options": {}, "data": {}, "format": 1}'),
        _OTHER,
    ),
    "other kind": (
        settings('{"kind": "poem", "command": "", "options": {}, "data": {}, "format": 1}'),
        _OTHER,
    ),
    "newer": (settings('{"format": 99}'), "found a run of format 99, expected 1 at most"),
    "cut tensors": (lambda run: cut(next(run.glob("model/tensors-*"))), "found a damaged tensors"),
    "cut manifest": (lambda run: cut(run / "model" / "manifest.json"), "expected what save"),
    "no model": (lambda run: shutil.rmtree(run / "model"), "no model here yet"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder(name, trained, capsys, tmp_path):
    break_it, told = DAMAGE[name]
    run_folder = tmp_path / "run"
    shutil.copytree(trained, run_folder)
    break_it(run_folder)
    said = fails(capsys, "topics", run_folder)
    assert told in said and str(run_folder) in said and "expected" in said


def test_a_damaged_checkpoint_is_passed_over(trained, capsys, tmp_path):
    """The one before it is whole, which is told."""
    import warnings

    shutil.copytree(trained, tmp_path / "run")
    newest = max((tmp_path / "run").glob("checkpoint/*/tensors-*"), key=lambda p: p.stat().st_mtime)
    cut(newest)
    line = ["fit", trained.parent / "book.txt", "--out", tmp_path / "run", *SMALL, "--resume"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ran = run(capsys, *line)
    assert ran.code == 0 and "one of its two checkpoints is damaged" in ran.err
    for file in (tmp_path / "run").glob("checkpoint/*/tensors-*"):
        cut(file)
    said = fails(capsys, *line)
    assert "found a damaged tensors" in said
    assert "Failed." in (tmp_path / "run" / "index.html").read_text()


@pytest.mark.parametrize(
    "line, told",
    [
        ("", "required: COMMAND"),
        ("paint", "invalid choice: 'paint'"),
        ("fit --out x", "required: FILE"),
        ("fit a.txt", "required: --out"),
        ("fit a.txt --out x --topics 0", "found 0, expected a whole number from 1 on"),
        ("fit a.txt --out x --topics many", "found many, expected a whole number from 1 on"),
        ("fit a.txt --out x --valid 1.5", "found 1.5, expected a share from 0 to below 1"),
        ("fit a.txt --out x --learning-rate -1", "found -1, expected a positive number"),
        ("fit a.txt --out x --dim 3", "--dim is of --kind series, found --kind text"),
        ("fit a.txt --out x --kind series --topics 3", "--topics is of --kind text"),
        ("fit a.txt --out x --column a --column b", "--column names one column of text"),
        ("fit a.txt --out x --delimiter ;;", "found ';;', expected one character, or tab"),
        ("fit a.txt --out x --top 3", "unrecognized arguments: --top 3"),
        ("forecast x a.txt --level 1", "found 1, expected a share between 0 and 1"),
    ],
)
def test_a_wrong_command_line(line, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("some text")
    assert told in fails(capsys, *line.split(), code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("line", ["", "fit", "topics", "score", "forecast", "bench", "demo"])
def test_help(line, capsys):
    ran = run(capsys, *line.split(), "--help")
    assert ran.code == 0 and ran.out.startswith("usage: ") and not ran.err
    if line in ("fit", "topics", "score", "forecast"):
        assert f"\n  pyro-ssl {line} " in ran.out  # an example


def test_bench_and_demo_are_theirs(capsys, monkeypatch):
    small = "--states 3 --hidden 4 --particles 2 --steps 5 --rounds 1 --batches 1".split()
    ran = run(capsys, "bench", *small)
    assert ran.code == 0 and "tokens/s" in ran.out
    ran = run(capsys, "demo", "--data", "imdb")
    assert ran.code == 1 and "--data imdb needs --path" in ran.err
    assert run(capsys, "bench", "--states", "many").code == 2


def test_a_traceback_on_demand(capsys, tmp_path):
    ran = run(capsys, "topics", tmp_path / "nowhere", "--traceback")
    assert ran.code == 1 and ran.err.startswith("Traceback") and "CheckpointError" in ran.err


@pytest.mark.parametrize(
    "error, told",
    [
        (ValueError("two\n  lines"), "two lines"),
        (FileNotFoundError(2, "No such file", "a.txt"), "a.txt: No such file"),
        (KeyError("x"), "found KeyError: 'x'; add --traceback to see where"),
        (MemoryError(), "found MemoryError; add --traceback to see where"),
    ],
)
def test_errors_in_a_paragraph(error, told):
    assert _told(error) == told
    error.add_note("A note.")
    assert _told(error) == f"{told} A note."


def test_an_error_in_a_fit(capsys, tmp_path, monkeypatch):
    """What was reached stays, and page and log tell of it."""
    from pyro_ssl import StochasticEM

    def wrong(self, *args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(StochasticEM, "step", wrong)
    said = fails(capsys, "fit", circle(tmp_path), "--out", tmp_path / "run", *SMALL_SERIES)
    assert "not enough memory" in said
    page = (tmp_path / "run" / "index.html").read_text()
    assert "Failed." in page and "not enough memory" in page and "--resume" in page
    assert "not enough memory" in (tmp_path / "run" / "log.txt").read_text()
