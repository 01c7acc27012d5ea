"""``python -m pyro_ssl.bench`` runs, at sizes that take no time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyro_ssl.bench import main

ROOT = Path(__file__).parents[1]
SMALL = "--states 3 --hidden 4 --particles 2 --steps 5 --rounds 1 --batches 1 2".split()


@pytest.mark.stage("system")
def test_runs():
    command = [sys.executable, "-m", "pyro_ssl.bench", *SMALL]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    assert "torch" in lines[0] and not found.stderr
    assert [line.split()[0] for line in lines[3:]] == ["1", "2"]


def test_exponents(capsys):
    torch.set_default_dtype(torch.float32)
    main([*SMALL, "--exponents"])
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert "torch" in lines[0] and not found.err
    assert re.findall(r"[a-z]+ -?\d+\.\d\d", lines[1])
