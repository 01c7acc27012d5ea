"""The program in this process, and small files for it."""

import json
from pathlib import Path
from typing import NamedTuple

import torch

from pyro_ssl.cli import main

SENTENCES = "The cat sat on the mat, and the dog ran to the sea. A red boat sails on the sea. "
#: a fit that takes no time
SMALL = "--topics 3 --hidden 4 --passage 8 --epochs 4 --markov-steps 3 --words 2".split()
SMALL_SERIES = "--kind series --hidden 4 --epochs 4 --paths 2".split()


class Ran(NamedTuple):
    """An exit code, and what was printed."""

    code: int
    out: str
    err: str


def run(capsys, *argv):
    """Run ``pyro-ssl`` with these arguments."""
    capsys.readouterr()
    torch.set_default_dtype(torch.float32)
    code = main([str(one) for one in argv])
    return Ran(code, *capsys.readouterr())


def fails(capsys, *argv, code=1):
    """What it tells, in one paragraph, when it fails."""
    ran = run(capsys, *argv)
    assert ran.code == code and not ran.out, ran
    assert "Traceback" not in ran.err
    return ran.err


def book(folder, times=6):
    path = Path(folder, "book.txt")
    path.write_text(SENTENCES * times)
    return path


def circle(folder, name="circle.csv", steps=12):
    t = torch.arange(steps) / 2
    rows = [f"{i},{a:.3f},{b:.3f}" for i, (a, b) in enumerate(zip(t.cos(), t.sin(), strict=True))]
    path = Path(folder, name)
    path.write_text("\n".join(["day,east,north", *rows, ""]))
    return path


def tensors_of(folder):
    """The name of the model's tensors, which is their digest."""
    (found,) = Path(folder, "model").glob("tensors-*")
    return found.name


def history_of(folder):
    """The records of a model that was saved, but for the clock."""
    body = json.loads(json.loads(Path(folder, "model", "manifest.json").read_text())["body"])
    return [{**record, "seconds": 0} for record in body["config"]["history"]]
