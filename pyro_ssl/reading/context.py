"""What stands around a run of the user's model: its turn, its values, its plates' dimensions."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _DIM_ALLOCATOR
from torch import Tensor

__all__ = ["TURNS", "Given", "all_or_nothing", "own_dims", "private_store", "undrawn"]

F = TypeVar("F", bound=Callable[..., Any])

#: Pyro's handlers and parameter store are one for all threads: who runs a model holds this.
TURNS = threading.RLock()


class Given(Messenger):
    """Gives latent sites their current values; they stay latent."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        value = self.values.get(msg["name"])
        if value is not None and not msg["is_observed"] and msg["value"] is None:
            event = getattr(msg["fn"], "event_shape", ())  # a subsample has none
            if value.shape[value.dim() - len(event) :] != event:
                raise ValueError(
                    f'Site "{msg["name"]}": the value it is given has shape {tuple(value.shape)}, '
                    f"expected {tuple(event)}; give one that was drawn or fitted with this model."
                )
            msg["value"], msg["done"] = value, True


@contextmanager
def own_dims() -> Iterator[None]:
    """Let plates of the model use dimensions that plates around this run have allocated.

    These are hidden from it, but a guide may run the model within ``SVI``'s plate of particles.
    """
    taken = _DIM_ALLOCATOR._stack
    _DIM_ALLOCATOR._stack = []
    try:
        yield
    finally:
        _DIM_ALLOCATOR._stack = taken


def undrawn(device: torch.device) -> AbstractContextManager[object]:
    """Leave the random generators as they are, whatever is drawn within."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


@contextmanager
def private_store() -> Iterator[None]:
    """An empty parameter store for a while, and no other thread in it."""
    with TURNS, pyro.get_param_store().scope():
        yield


def all_or_nothing(method: F) -> F:
    """Let a call that raises leave the random generators and the parameter store as they were.

    What a class keeps of its own it changes only after all checks; but a model that is run to be
    checked draws numbers and registers parameters. Calls of several threads take turns: handlers
    that one of them enters would stand around the other's model too.
    """

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        store = pyro.get_param_store()
        with TURNS:
            names, cuda = set(store.keys()), torch.cuda.is_initialized()
            states = torch.get_rng_state(), torch.cuda.get_rng_state_all() if cuda else []
            try:
                return method(*args, **kwargs)
            except Exception:
                torch.set_rng_state(states[0])
                if cuda:
                    torch.cuda.set_rng_state_all(states[1])
                for name in set(store.keys()) - names:
                    del store[name]
                raise

    return call  # type: ignore[return-value]
