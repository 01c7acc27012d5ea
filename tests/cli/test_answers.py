"""``pyro-ssl topics``, ``score`` and ``forecast`` tell what the model does."""

import json
import os
import re
import subprocess
import sys

import pyro
import pytest
import torch

from pyro_ssl import GaussianSSL, TopicalSSL
from pyro_ssl.cli.tables import json_line, table_lines
from tests.cli.program import SENTENCES, SMALL, SMALL_SERIES, book, circle, fails, run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of texts and one of series."""
    folder = tmp_path_factory.mktemp("runs")
    from pyro_ssl.cli import main

    torch.set_default_dtype(torch.float32)
    assert main(["fit", str(book(folder)), "--out", str(folder / "text"), *SMALL]) == 0
    assert main(["fit", str(circle(folder)), "--out", str(folder / "series"), *SMALL_SERIES]) == 0
    return folder


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("the cat sails on the red sea and the dog sat on a boat to the unseen moon")
    return path


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.stage("system")
def test_topics(runs, capsys):
    expected = TopicalSSL.load(runs / "text" / "model").topics(3)
    found = rows(run(capsys, "topics", runs / "text", "--words", 3, "--json").out)
    assert [row["topic"] for row in found] == [topic.index for topic in expected]
    assert [row["words"] for row in found] == [topic.words for topic in expected]
    assert found[0]["probs"] == pytest.approx(expected[0].probs, rel=1e-5)
    assert sum(row["share"] for row in found) == pytest.approx(1.0, abs=1e-5)
    own = ["--words", 3, "--relevance", 0, "--json"]
    telling = TopicalSSL.load(runs / "text" / "model").topics(3, relevance=0.0)
    found = rows(run(capsys, "topics", runs / "text", *own).out)
    assert [row["words"] for row in found] == [topic.words for topic in telling]
    assert telling[0].words != expected[0].words
    table = run(capsys, "topics", runs / "text", "--words", 3).out.splitlines()
    assert [line.split()[2:] for line in table] == [topic.words for topic in expected]


def ids_of(ssl, words):
    return torch.tensor([ssl.vocabulary.index(w) if w in ssl.vocabulary else 0 for w in words])


def test_score(runs, other, capsys):
    """Passages are those of the fit, of 8 words, and the last one is short."""
    found = rows(run(capsys, "score", runs / "text", other, "--json", "--particles", 20).out)
    ssl = TopicalSSL.load(runs / "text" / "model")
    words = other.read_text().split()
    batch = torch.zeros(8, 3, dtype=torch.long)
    lengths = torch.tensor([8, 8, 2])
    for b in range(3):
        ids = ids_of(ssl, words[8 * b : 8 * b + 8])
        batch[: len(ids), b] = ids
    pyro.set_rng_seed(0)
    log_p = ssl.log_likelihood(batch, lengths, num_particles=20).sum(0)
    assert [row["log_likelihood"] for row in found] == pytest.approx(log_p.tolist(), rel=1e-5)
    assert [row["words"] for row in found] == [8, 8, 2]
    assert [row["unknown"] for row in found] == [0, 0, 2]  # "unseen moon"
    assert [(row["document"], row["passage"]) for row in found] == [(1, 1), (1, 2), (1, 3)]
    perplexities = (-log_p / lengths).exp().tolist()
    assert [row["perplexity"] for row in found] == pytest.approx(perplexities, rel=1e-5)
    table = run(capsys, "score", runs / "text", other, "--particles", 20).out.splitlines()
    total = float((-log_p.sum() / 18).exp())
    assert table[-1].split()[0] == "all" and float(table[-1].split()[-1]) == round(total, 2)
    whole = ["--passage", "0", "--json"]
    assert [
        row["words"] for row in rows(run(capsys, "score", runs / "text", other, *whole).out)
    ] == [18]


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.jsonl", '{"text": "the cat"}\n\n{"text": "..."}\n{"text": "the dog ran"}\n'),
        ("a.csv", "text\nthe cat\n\n...\nthe dog ran\n"),
    ],
)
def test_score_of_rows(name, content, runs, tmp_path, capsys):
    """A document without words is left out, and the others keep their numbers."""
    path = tmp_path / name
    path.write_text(content)
    found = rows(run(capsys, "score", runs / "text", path, "--json").out)
    assert [(row["document"], row["words"]) for row in found] == [(1, 2), (3, 3)]


def test_forecast_of_words(runs, tmp_path, capsys):
    """The next word's probabilities are those that scoring gives it, but for the particles."""
    start = ["the", "cat", "sat"]
    texts = {"a.txt": "the cat sat", "long.txt": SENTENCES + "red the cat sat", "b.txt": "a sea"}
    files = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        files.append(tmp_path / name)
    how = ["--horizon", 2, "--top", 99, "--json", "--particles", 4000]
    found = rows(run(capsys, "forecast", runs / "text", *files, *how).out)
    assert [(row["file"].rpartition("/")[2], row["step"]) for row in found] == [
        (name, step) for name in texts for step in (1, 2)
    ]
    for row in found:
        for what in ("topics", "words"):
            probs = [one["prob"] for one in row[what]]
            assert probs == sorted(probs, reverse=True)
            assert sum(probs) == pytest.approx(1.0, abs=1e-4)
    ssl = TopicalSSL.load(runs / "text" / "model")
    for row in found:
        shares = {one["topic"]: one["prob"] for one in row["topics"]}
        mixed = sum(p * ssl.phi[k] for k, p in shares.items())
        by_word = {one["word"]: one["prob"] for one in row["words"]}
        expected = dict(zip(ssl.vocabulary, mixed.tolist(), strict=True))
        assert by_word == pytest.approx(expected, rel=1e-3, abs=1e-5)
    ids = torch.arange(len(ssl.vocabulary))
    words = torch.cat([ids_of(ssl, start)[:, None].expand(-1, len(ids)), ids[None]])
    expected = ssl.log_likelihood(words, num_particles=4000)[-1].exp()
    probs = {one["word"]: one["prob"] for one in found[0]["words"]}
    scored = dict(zip(ssl.vocabulary, expected.tolist(), strict=True))
    # Both are means over 4,000 particles of shares below 1: four deviations of their difference,
    # at most, which is passed by chance once in 1,000 runs with another seed.
    assert probs == pytest.approx(scored, abs=4 * (2 * 0.25 / 4000) ** 0.5)
    table = run(capsys, "forecast", runs / "text", *files, "--horizon", 2).out.splitlines()
    assert table[0].endswith("document 1, after ... the cat sat")
    assert re.match(r"  \+1  topic  \d+\.\d% \d \(\w", table[1]) and "word" in table[2]
    assert len(table) == 3 * 5


def test_a_forecast_follows_as_many_words_as_a_passage_has(runs, tmp_path, capsys):
    for name, text in {"a": "dog " * 7, "b": "dog " * 8, "c": "cat sea " * 4 + "dog " * 8}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    found = {}
    for name in "abc":
        ran = run(capsys, "forecast", runs / "text", tmp_path / f"{name}.txt", "--json")
        found[name] = [row["words"] for row in rows(ran.out)]
    assert found["a"] != found["b"] == found["c"]


def test_series(runs, capsys):
    file = circle(runs, "other.csv", 9)
    (row,) = rows(run(capsys, "score", runs / "series", file, "--json").out)
    ssl = GaussianSSL.load(runs / "series" / "model")
    lines = file.read_text().splitlines()[1:]
    # Without --column all columns of numbers were taken by fit, the days too.
    x = torch.tensor([[float(cell) for cell in line.split(",")] for line in lines])
    pyro.set_rng_seed(0)
    total = float(ssl.log_likelihood(x[:, None]).sum())
    assert row["log_likelihood"] == pytest.approx(total, rel=1e-5) and row["steps"] == 9
    assert row["per_step"] == pytest.approx(total / 9, rel=1e-5)

    how = ["--horizon", 3, "--level", 0.5]
    found = rows(run(capsys, "forecast", runs / "series", file, *how, "--json").out)
    pyro.set_rng_seed(0)
    ahead = ssl.forecast(x[:, None], 3)
    low, high = ahead.interval(0.5)
    assert [row["step"] for row in found] == [1, 2, 3]
    for s, row in enumerate(found):
        for e, name in enumerate(["day", "east", "north"]):
            expected = {"mean": ahead.mean, "low": low, "high": high}
            values = {n: float(v[s, 0, e]) for n, v in expected.items()}
            assert row["values"][name] == pytest.approx(values, rel=1e-4)
    table = run(capsys, "forecast", runs / "series", file, *how).out.splitlines()
    assert "after 9 steps; 50% lie within the interval" in table[0]
    assert table[1].split()[:4] == ["step", "day", "day", "from"] and len(table) == 5


def test_topics_of_series(runs, capsys):
    assert "holds a model of series" in fails(capsys, "topics", runs / "series")


@pytest.mark.stage("system")
def test_a_reader_that_has_enough(runs):
    """As ``head`` does."""
    line = f"{sys.executable} -W error -m pyro_ssl topics {runs / 'text'} --words 9 --json"
    pipe = f"set -o pipefail; {line} | true; echo $?"
    root = os.path.dirname(os.path.dirname(sys.modules["pyro_ssl"].__file__))
    env = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, env=env)
    assert done.stdout == "1\n" and not done.stderr


def test_tables():
    assert table_lines(["a", "b"], [["long", "1"], ["x", "22"]]) == [
        "a      b",
        "long   1",
        "x     22",
    ]
    assert json_line({"p": float("inf"), "each": [{"q": 0.1234567}]}) == (
        '{"p": null, "each": [{"q": 0.123457}]}'
    )
