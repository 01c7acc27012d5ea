"""Starts ranks as torchrun does, without its own start-up time."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def start(size, *command):
    """Start Python on each rank; return the processes."""
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
        for rank in range(size)
    ]


def results(size, name, folder):
    """What a scenario comes to on each rank."""
    folder.mkdir(exist_ok=True)
    processes = start(size, "-m", "tests.distributed.scenarios", name, str(folder))
    said = [process.communicate(timeout=300)[0] for process in processes]
    for rank, process in enumerate(processes):
        assert process.returncode == 0, f"rank {rank}: {said[rank]}"
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]
