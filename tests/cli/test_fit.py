"""``pyro-ssl fit``: from files to a folder that has all of it."""

import gzip
import io
import json
import re
import sys

import pytest

from pyro_ssl import GaussianSSL, TopicalSSL
from pyro_ssl.cli import log, main
from pyro_ssl.datasets import Vocabulary
from tests.cli.program import SMALL, SMALL_SERIES, book, circle, fails, history_of, run


@pytest.mark.stage("system")
def test_a_text(capsys, tmp_path):
    out = tmp_path / "new" / "run"
    ran = run(capsys, "fit", book(tmp_path), "--out", out, *SMALL)
    assert ran.code == 0
    assert re.match(r"held-out perplexity [\d.]+ at epoch \d of 4, which is kept\n", ran.out)
    assert len(re.findall(r"^ +\d +\d+\.\d%  \w+ \w+$", ran.out, re.M)) == 3
    assert f"saved in {out}" in ran.out
    assert sorted(p.name for p in out.iterdir()) == [
        *("checkpoint", "index.html", "log.txt", "model", "settings.json", "vocabulary.json")
    ]
    ssl, vocabulary = TopicalSSL.load(out / "model"), Vocabulary.load(out / "vocabulary.json")
    assert ssl.num_topics == 3 and tuple(ssl.vocabulary) == vocabulary.words
    assert "cat" in vocabulary and "The" not in vocabulary
    settings = json.loads((out / "settings.json").read_text())
    assert settings["kind"] == "text" and settings["options"]["topics"] == 3
    assert settings["data"]["words"] == 6 * 20
    assert settings["command"].startswith("pyro-ssl fit ")


@pytest.mark.stage("system")
def test_the_log_and_the_standard_error_have_the_same_lines(capsys, tmp_path):
    ran = run(capsys, "fit", book(tmp_path), "--out", tmp_path / "run", *SMALL)
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert ran.err.splitlines() == lines
    assert [re.search(r"epoch (\d) of 4", x)[1] for x in lines if " epoch " in x][:4] == [*"1234"]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert "120 words in 15 passages, 1 of them held out" in lines[1]


@pytest.mark.stage("system")
def test_a_terminal_has_a_bar_in_place_of_lines(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(log.Log, "has_bar", True)
    ran = run(capsys, "fit", book(tmp_path), "--out", tmp_path / "run", *SMALL)
    assert "TopicalSSL: 100%" in ran.err and "4/4" in ran.err
    assert "epoch 1 of 4:" not in ran.err
    assert "epoch 1 of 4:" in (tmp_path / "run" / "log.txt").read_text()


def test_the_log_cannot_be_written_any_more(capsys, tmp_path):
    class Full(io.StringIO):
        name = "log.txt"

        def write(self, text):
            raise OSError(28, "No space left on device")

    made = log.Log()
    made.to_file(Full())
    made.line("first")
    made.line("second")
    said = capsys.readouterr().err
    assert said.count("No space left on device; the log ends here, the run goes on.") == 1
    assert "first" in said and "second" in said


@pytest.mark.stage("system")
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "txt.gz"])
def test_formats_hold_the_same_documents(kind, capsys, tmp_path):
    texts = [f"the {color} boat\nsails, today" * 4 for color in ("red", "blue", "green")]
    path = tmp_path / f"a.{kind}"
    asked = ["--passage", "0"]
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"id": 1, "body": t}) + "\n\n" for t in texts))
        asked += ["--field", "body"]
    elif kind == "txt.gz":
        path.write_bytes(gzip.compress(texts[0].encode()))
    else:
        between = {"csv": ",", "tsv": "\t"}[kind]
        rows = [["id", "body"], *([str(i), f'"{t}"'] for i, t in enumerate(texts))]
        path.write_text("\n".join(between.join(row) for row in rows))
        asked += ["--column", "body"]
    ran = run(capsys, "fit", path, "--out", tmp_path / "run", *SMALL, *asked)
    assert ran.code == 0, ran.err
    data = json.loads((tmp_path / "run" / "settings.json").read_text())["data"]
    count = 1 if kind == "txt.gz" else 3
    # Four times "the boat sails today", of which neighbours run together, and colours.
    assert data["passages"] == count and data["words"] == count * 17
    assert data["held out"] == (count > 1)


@pytest.mark.stage("system")
def test_the_standard_input(capsys, tmp_path, monkeypatch):
    text = book(tmp_path).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert run(capsys, "fit", "-", "--out", tmp_path / "a", *SMALL).code == 0
    assert run(capsys, "fit", tmp_path / "book.txt", "--out", tmp_path / "b", *SMALL).code == 0
    assert history_of(tmp_path / "a") == history_of(tmp_path / "b")
    assert "standard input" in (tmp_path / "a" / "index.html").read_text()


@pytest.mark.stage("system")
def test_case_is_kept(capsys, tmp_path):
    asked = ["--out", tmp_path / "run", *SMALL, "--keep-case"]
    assert run(capsys, "fit", book(tmp_path), *asked).code == 0
    words = TopicalSSL.load(tmp_path / "run" / "model").vocabulary
    assert {"The", "the"} <= {*words}


def test_one_document(capsys, tmp_path):
    """Nothing is left to hold out, and the last epoch is kept."""
    (tmp_path / "a.txt").write_text("one two three")
    ran = run(capsys, "fit", tmp_path / "a.txt", "--out", tmp_path / "run", *SMALL)
    assert ran.code == 0
    assert re.match(r"loss [\d.]+ at epoch 4 of 4, which is kept; nothing was held out\n", ran.out)
    assert len(TopicalSSL.load(tmp_path / "run" / "model").history) == 4


def test_series(capsys, tmp_path):
    files = [circle(tmp_path), circle(tmp_path, "short.csv", 7)]
    files[1].write_text(files[1].read_text().replace("1.000", "NA"))
    ran = run(capsys, "fit", *files, "--out", tmp_path / "run", *SMALL_SERIES, "--column", "north")
    assert ran.code == 0, ran.err
    assert "held-out \N{MINUS SIGN}log p per step" in ran.out
    assert "19 steps of north in 2 series, 1 of them held out" in ran.err
    ssl = GaussianSSL.load(tmp_path / "run" / "model")
    assert ssl.dim == 1 and len(ssl.offset) == 1
    assert not (tmp_path / "run" / "vocabulary.json").exists()


def test_series_without_names(capsys, tmp_path):
    (tmp_path / "a.csv").write_text("1,5\n2,4\n4,6\n3,5\n")
    ran = run(capsys, "fit", tmp_path / "a.csv", "--out", tmp_path / "run", *SMALL_SERIES)
    assert ran.code == 0 and "4 steps of 1, 2 in 1 series" in ran.err


@pytest.mark.stage("system")
def test_options_reach_the_fit(capsys, tmp_path):
    asked = "--learning-rate 0.05 --batch-size 5 --particles 3 --seed 7 --vocabulary 6 --device cpu"
    for name, more in {"a": asked, "b": asked, "c": asked.replace("7", "8")}.items():
        ran = run(capsys, "fit", book(tmp_path), "--out", tmp_path / name, *SMALL, *more.split())
        assert ran.code == 0
    assert history_of(tmp_path / "a") == history_of(tmp_path / "b") != history_of(tmp_path / "c")
    assert len(TopicalSSL.load(tmp_path / "a" / "model").vocabulary) == 6
    parts = (tmp_path / "a" / "checkpoint").glob("*/manifest.json")
    about = json.loads(json.loads(next(parts).read_text())["body"])["config"]["about"]["settings"]
    assert about["learning_rate"] == 0.05 and about["batch_size"] == 5
    assert about["num_particles"] == 3 and about["markov_steps"] == 3


@pytest.mark.parametrize("count, expected", [(5, None), (7, 6)])
def test_many_passages_are_learned_in_batches(count, expected, capsys, tmp_path, monkeypatch):
    from pyro_ssl.cli import prepare

    monkeypatch.setattr(prepare, "_TOGETHER", 6)
    seen, fit = [], TopicalSSL.fit

    def look(self, *args, **kwargs):
        seen.append(kwargs["batch_size"])
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(TopicalSSL, "fit", look)
    (tmp_path / "a.txt").write_text("one two three four five six seven eight " * count)
    asked = ["--out", tmp_path / "run", *SMALL, "--valid", "0"]
    assert run(capsys, "fit", tmp_path / "a.txt", *asked).code == 0
    assert seen == [expected]


def test_the_command_is_installed():
    import importlib
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, name = project["project"]["scripts"]["pyro-ssl"].split(":")
    assert getattr(importlib.import_module(module), name) is main


@pytest.mark.stage("system")
def test_patience_ends_a_fit(capsys, tmp_path):
    asked = ["--epochs", "60", "--patience", "1", "--learning-rate", "0.5"]
    ran = run(capsys, "fit", book(tmp_path), "--out", tmp_path / "run", *SMALL, *asked)
    assert ran.code == 0 and len(history_of(tmp_path / "run")) < 60


@pytest.mark.stage("system")
def test_what_cannot_be_shown_ends_no_fit(capsys, tmp_path, monkeypatch):
    from pyro_ssl.cli.folder import RunFolder

    def full(self, page):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "show", full)
    ran = run(capsys, "fit", book(tmp_path), "--out", tmp_path / "run", *SMALL)
    assert ran.code == 0
    assert "the page could not be written ([Errno 28] No space left on device)" in ran.err


@pytest.mark.stage("system")
def test_warnings_are_told_in_a_line(capsys, tmp_path):
    import warnings

    path = tmp_path / "rare.jsonl"
    names = "abcdefghijklmnopqrstuvwxyz"
    rows = [{"text": f"{a}{b} {b}{a} the"} for a in names[:4] for b in names[4:8]]
    path.write_text("\n".join(map(json.dumps, rows)))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        asked = ["--out", tmp_path / "run", *SMALL, "--vocabulary", "2"]
        ran = run(capsys, "fit", path, *asked)
    assert ran.code == 0
    assert re.search(r"^warning: batchify: found \d+% of", ran.err, re.M)


def test_a_device_that_is_not_there(capsys, tmp_path):
    told = fails(capsys, "fit", book(tmp_path), "--out", tmp_path / "run", "--device", "abacus")
    assert "found --device abacus" in told and "write --device cpu" in told
    assert not (tmp_path / "run").exists()
