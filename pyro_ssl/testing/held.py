"""The tensors that a model can change by running: kept, compared, and put back."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Held"]

#: how far objects are followed into what they hold
DEPTH = 5
#: what holds no tensor
LEAVES = (str, bytes, int, float, type, ModuleType)


class Held:
    """The tensors that some objects hold, as they are now.

    Of modules the parameters and buffers; of functions what they close over; what lists, tuples,
    dictionaries and the user's own objects hold.

    :param objects: the model, and its arguments by name.
    """

    def __init__(self, **objects: Any) -> None:
        self._tensors: dict[int, tuple[str, Tensor, Tensor]] = {}
        seen: set[int] = set()
        for name, value in objects.items():
            for place, tensor in _tensors(name, value, DEPTH, seen):
                self._tensors.setdefault(id(tensor), (place, tensor, tensor.detach().clone()))

    def changed(self) -> list[str]:
        """Return the places of those that are no longer what they were."""
        return [place for place, now, then in self._tensors.values() if not _same(now, then)]

    @torch.no_grad()
    def put_back(self) -> None:
        """Write into each what it was."""
        for _, now, then in self._tensors.values():
            if now.shape == then.shape and not _same(now, then):
                now.copy_(then)


def _same(now: Tensor, then: Tensor) -> bool:
    if now.shape != then.shape:
        return False
    now = now.detach()
    return bool(((now == then) | ((now != now) & (then != then))).all())  # noqa: PLR0124


def _tensors(place: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
        return
    if depth == 0 or id(value) in seen or isinstance(value, LEAVES):
        return
    seen.add(id(value))
    for name, part in _parts(value):
        yield from _tensors(f"{place}{name}", part, depth - 1, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, with how to write it."""
    if isinstance(value, nn.Module):
        tensors = (*value.named_parameters(), *value.named_buffers())
        yield from ((f".{name}", tensor) for name, tensor in tensors)
        yield from ((f".{name}", part) for name, part in vars(value).items() if name[0] != "_")
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("", part) for part in (value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield from (("", part) for part in (value.__self__, value.__func__))
    elif isinstance(value, FunctionType):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                yield f": {name}", cell.cell_contents
            except ValueError:  # not yet assigned
                continue
    elif hasattr(value, "__dict__") and not type(value).__module__.startswith(("torch", "pyro.")):
        yield from ((f".{name}", part) for name, part in vars(value).items())
