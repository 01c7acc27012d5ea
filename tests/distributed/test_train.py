"""``pyro-ssl fit`` on several processes, under torchrun."""

import json
import subprocess
import sys

import pytest
import torch

from pyro_ssl import TopicalSSL, train
from tests.distributed.launch import ROOT

SMALL = "--topics 3 --hidden 4 --passage 8 --epochs 2 --markov-steps 5 --batch-size 6 --words 2"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("the cat sat on the mat and the dog ran to the sea with a red boat " * 15)
    return path


@pytest.mark.stage("system")
def test_the_module_is_the_command(text, tmp_path, capsys):
    torch.set_default_dtype(torch.float32)
    assert train.main([str(text), *SMALL.split(), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "held-out perplexity" in said and said.count("%  ") == 3
    command = json.loads((tmp_path / "run" / "settings.json").read_text())["command"]
    assert command.startswith("pyro-ssl fit ")


@pytest.mark.stage("system")
def test_torchrun(text, tmp_path):
    """The first rank alone prints and writes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "pyro_ssl.train", str(text), *SMALL.split(), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out perplexity") == 1 == done.stdout.count("saved in")
    assert done.stderr.count("epoch 1 of 2:") == 1
    assert TopicalSSL.load(tmp_path / "run" / "model").num_topics == 3
    on = subprocess.run([*command, "--resume"], cwd=ROOT, capture_output=True, text=True)
    assert on.returncode == 0, on.stderr
    assert done.stdout.splitlines()[0] == on.stdout.splitlines()[0]
    assert "epoch 1 of 2:" not in on.stderr
