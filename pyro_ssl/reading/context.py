"""What stands around a run of the user's model: its turn, its values, its plates' dimensions."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor

__all__ = [
    "TURNS",
    "Before",
    "Given",
    "all_or_nothing",
    "own_dims",
    "private_store",
    "undrawn",
]

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


class Before:
    """What a call may change, as it was: kept, to be put back if the call raises.

    The random generators, the names in Pyro's parameter store, and the attributes of the library's
    own objects, with those of the objects that these keep. Tensors are kept, not copied: they are
    to be replaced, or edited after all checks.

    :param owners: the objects.
    """

    def __init__(self, *owners: Any) -> None:
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._generators = get_rng_state()
        self._names = set(pyro.get_param_store().keys())
        self._attributes: dict[int, tuple[Any, dict[str, Any]]] = {}
        for owner in owners:
            self._keep(owner)

    def _keep(self, owner: Any) -> None:
        if not _keeps_state(owner) or id(owner) in self._attributes:
            return
        attributes = {
            name: copy.copy(value) if type(value) is dict else value
            for name, value in vars(owner).items()
        }
        self._attributes[id(owner)] = owner, attributes
        for value in attributes.values():
            self._keep(value)

    def put_back(self) -> None:
        """Undo what was done since."""
        set_rng_state(self._generators)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        store = pyro.get_param_store()
        for name in set(store.keys()) - self._names:
            del store[name]
        for owner, attributes in self._attributes.values():
            vars(owner).clear()
            vars(owner).update(attributes)


def _keeps_state(value: Any) -> bool:
    """Whether an object is one of this library's that changes from call to call."""
    if isinstance(value, torch.nn.Module | tuple | Before) or not hasattr(value, "__dict__"):
        return False
    package = __name__.partition(".")[0]
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)


def all_or_nothing(method: F) -> F:
    """Let a call that raises leave everything as it was: see :class:`Before`.

    What is run to be checked draws numbers and registers parameters, and an object may have taken
    in a part of the result when the rest fails. Gradient steps are ``infer/undo.py``'s.
    """

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with TURNS:  # handlers that one thread enters would stand around another's model too
            before, depth = Before(*args), len(_PYRO_STACK)
            dims = tuple(_DIM_ALLOCATOR._stack)
            try:
                return method(*args, **kwargs)
            except BaseException:  # Ctrl-C too
                before.put_back()
                # A loop that a traceback keeps alive has not left its plates.
                del _PYRO_STACK[depth:]
                _DIM_ALLOCATOR._stack[:] = dims
                raise

    return call  # type: ignore[return-value]
