"""Starts ranks as torchrun does, without its own start-up time."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def start(size, *command, started=None):
    """Start Python on each rank, or on the first ones alone; return the processes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    given = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    given |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | given | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size if started is None else started)
    ]


def results(size, name, folder):
    """What a scenario comes to on each rank; one process imports all and forks the others."""
    folder.mkdir(exist_ok=True)
    command = "-m", "tests.distributed.scenarios", name, str(folder), str(size)
    (process,) = start(size, *command, started=1)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]
