"""Starts ranks as torchrun does, but for its start-up time: one process imports once, and forks."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.distributed.scenarios"])


class Rank:
    """A rank at work; what it says goes to a file."""

    def __init__(self, environment, said, name, folder):
        self.said = said
        self.process = FORKS.Process(target=_work, args=(environment, said, name, folder))
        self.process.start()

    def wait(self):
        """Wait until it has ended; return its exit status, and what it said."""
        self.process.join(300)
        if self.process.is_alive():
            self.kill()
        return self.process.exitcode, self.said.read_text()

    def kill(self):
        """Kill it, stopped or not."""
        self.process.kill()
        self.process.join()


def _work(environment, said, name, folder):
    from tests.distributed import scenarios

    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(out, stream.fileno())
    os.environ |= environment
    scenarios.main(name, folder)


def start(size, name, folder):
    """Start a scenario on each rank."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    given = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    given |= {"OMP_NUM_THREADS": "1"}
    return [
        Rank(
            given | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            folder / f"{rank}.txt",
            name,
            folder,
        )
        for rank in range(size)
    ]


def results(size, name, folder):
    """What a scenario comes to on each rank."""
    for rank, one in enumerate(start(size, name, folder)):
        status, said = one.wait()
        assert status == 0, f"rank {rank}: {said}"
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]
