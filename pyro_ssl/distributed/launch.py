"""How a run joins the ranks that ``torchrun`` has started."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as td

from .alone import Alone
from .headers import gone
from .ranks import Ranks

__all__ = ["current", "ranks"]

_current = Alone()


def current() -> Alone:
    """Return the ranks of the run in progress; :class:`Alone` outside of :func:`ranks`."""
    return _current


@contextmanager
def ranks(*, timeout: float = 600.0) -> Iterator[Ranks]:
    """Let inference within the block be over all ranks that ``torchrun`` has started.

    Every rank runs the same program, on a share of the sequences: the model has
    ``pyro.plate(name, N, subsample=index)`` around its loop, N of all ranks. Models and calls are
    those of one process, and so are the draws, but for those of a twist and of dropout. A process
    that was not started by ``torchrun`` is one rank.

    Torch's generator is rank 0's from here on, so that what is made within the block, such as an
    LSTM, is the same on all ranks.

    :param float timeout: seconds to wait for another rank, at most: for as long one that hangs, or
        a network that is cut, goes unnoticed. It has to exceed what a rank may do alone, such as
        reading its data. A rank that dies is noticed at once.
    :raises RankError: if another rank fails, is gone, or does something else.

    Ctrl-C on any rank raises ``KeyboardInterrupt`` on all of them, where they next begin a step; a
    second one at once.

    Example, to be started by ``torchrun --nproc-per-node 2 script.py``::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl.distributed import ranks
        >>> from pyro_ssl import LSTMTransition, StochasticEM, ssl_transition
        >>> def model(words, index):
        ...     pyro.module("transition", transition)
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3, 6)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1], subsample=index):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[:, index][t])
        >>> words = torch.randint(6, (7, 12))
        >>> with ranks() as here:
        ...     transition = LSTMTransition(3, 8)
        ...     em = StochasticEM(model, pyro.optim.Adam({"lr": 1e-2}), num_particles=5)
        ...     for index in here.minibatches(12, size=4):
        ...         loss = em.step(words, index)
    """
    global _current
    if isinstance(_current, Ranks):
        yield _current
        return
    started = _start(timeout)
    here = _current = Ranks()
    try:
        with here.telling("the program"), _interrupts(here):
            here._align("the start")
            yield here
            here._headers("the end", 0)
    finally:
        _current = Alone()
        if started:
            td.destroy_process_group()
            # Cycles of references keep the group's threads, which a program that ends would abort.
            gc.collect()


@contextmanager
def _interrupts(here: Ranks) -> Iterator[None]:
    """Let Ctrl-C, which meets each rank elsewhere, stop all of them at one place."""
    is_main = threading.current_thread() is threading.main_thread()
    usual = signal.default_int_handler
    if here.size == 1 or not is_main or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if here.is_asked:  # who asks twice does not want to wait
            raise KeyboardInterrupt
        here.is_asked = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _start(timeout: float) -> bool:
    """Join the process group that ``torchrun`` describes; whether that was done here."""
    if not td.is_available() or td.is_initialized() or "WORLD_SIZE" not in os.environ:
        return False
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"  # what is sent ahead stays on the CPU
    # Torch's optimisers import it at their first step. A group that is there then is held for good,
    # and its threads are aborted when the program ends.
    importlib.import_module("torch._dynamo")
    with gone():
        td.init_process_group(backend, timeout=timedelta(seconds=timeout))
    return True
