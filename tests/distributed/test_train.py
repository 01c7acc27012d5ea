"""The command line, alone and under torchrun."""

import subprocess
import sys

import pytest

from pyro_ssl import TopicalSSL, train
from tests.distributed.launch import ROOT

SMALL = "--topics 3 --hidden 4 --passage 8 --epochs 2 --markov-steps 5 --batch-size 6 --words 2"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("the cat sat on the mat and the dog ran to the sea with a red boat " * 15)
    return path


def test_it_prints_topics_and_saves_the_model(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CI", "true")
    train.main([str(text), *SMALL.split(), "--save", str(tmp_path / "model")])
    said = capsys.readouterr().out
    assert "held-out perplexity" in said and said.count("%  ") == 3
    assert TopicalSSL.load(tmp_path / "model").num_topics == 3


@pytest.mark.parametrize(
    "content, options, told",
    [
        (b"\xff\xfe\x00", [], "expected a text file in UTF-8"),
        (b"one two", [], "found 1 passages of 100 words, expected 2 at least"),
    ],
)
def test_what_it_cannot_read(content, options, told, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(SystemExit):
        train.main([str(path), *options])
    assert told in capsys.readouterr().err


@pytest.mark.stage("statistical")
def test_torchrun(text):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "pyro_ssl.train", str(text), *SMALL.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out perplexity") == 1
