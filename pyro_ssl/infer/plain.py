"""Trees of plain values as JSON and tensors, and back: what is saved of a run.

Everything comes back as it was, to the last bit, dtypes, devices and the order of dicts included.
Only the types named here can be, so that reading runs no code of anyone's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer.mcmc.adaptation import adapt_window
from torch import Tensor

from ..distributed import current
from ..reading.paths import PathSites
from ..smc import LinearSurrogate, MarkovSurrogate
from .mean_field import MarkovPart
from .series import Series
from .small import smallest
from .trial import Trial

__all__ = ["OfRank", "OfRanks", "pack", "pack_own", "unpack", "unpack_own"]

#: named tuples, and objects that are what their attributes are
_TUPLES: dict[str, Any] = {kind.__name__: kind for kind in (PathSites, Trial, adapt_window)}
_OBJECTS: dict[str, Any] = {
    kind.__name__: kind for kind in (MarkovSurrogate, LinearSurrogate, MarkovPart, Series)
}


@dataclass(frozen=True)
class OfRank:
    """A value in a tree of which each rank has its own; it comes back as :class:`OfRanks`."""

    value: Any


class OfRanks(list[Any]):
    """Every rank's own value, in the order of the ranks that saved them."""

    @property
    def are_these(self) -> bool:
        """Whether as many ranks saved them as there are now."""
        return len(self) == current().size

    @property
    def mine(self) -> Any:
        """This rank's, where they are :attr:`are_these`."""
        return self[current().rank]


def pack(tree: Any, tensors: dict[str, Tensor], own: list[Any] | None = None) -> Any:
    """Return a tree as JSON can hold it; its tensors are put into a dict beside it.

    :param tree: dicts, lists, tuples, sets, numbers, strings, tensors, ``None``, and a few named
        tuples and surrogates.
    :param own: takes what is :class:`OfRank`, for :func:`pack_own`; without it this is packed as
        that of the only rank.
    :raises TypeError: on anything else.

    Example::

        >>> tensors = {}
        >>> packed = pack({"z": torch.tensor([[3, 4]]), "at": (1, float("nan"))}, tensors)
        >>> tensors["0"].dtype
        torch.uint8
        >>> unpack(packed, tensors)
        {'z': tensor([[3, 4]]), 'at': (1, nan)}
    """
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, Tensor):
        kept = tree.detach()
        found = {"dtype": str(kept.dtype), "device": str(kept.device), "tensor": str(len(tensors))}
        # A clone: those that share memory are refused by safetensors.
        tensors[found["tensor"]] = smallest(kept).cpu().clone()
        return found
    if isinstance(tree, OfRank):
        if own is None:
            return {"ranks": [pack(tree.value, tensors)]}
        own.append(tree.value)
        return {"rank": len(own) - 1}
    if isinstance(tree, list) and len(tree) > 1 and _is_even(tree):
        return {"stack": pack(torch.stack(tree), tensors)}
    if isinstance(tree, dict):
        pairs = [[pack(key, tensors), pack(value, tensors, own)] for key, value in tree.items()]
        return {"dict": pairs}
    name = type(tree).__name__
    if _TUPLES.get(name) is type(tree):
        return {name: [pack(value, tensors, own) for value in tree]}
    if _OBJECTS.get(name) is type(tree):
        return {name: pack(vars(tree), tensors, own)}
    for kind in (list, tuple, torch.Size, frozenset, set):
        if type(tree) is kind:
            items = sorted(tree) if isinstance(tree, frozenset | set) else tree
            return {kind.__name__: [pack(value, tensors, own) for value in items]}
    raise TypeError(
        f"found a {name} in what a run is to go on from, expected numbers, text, tensors, and "
        "lists and dicts of them: only these can be saved."
    )


def unpack(packed: Any, tensors: dict[str, Tensor], ranks: Sequence[Any] = ()) -> Any:
    """Return the tree that :func:`pack` was given.

    :param ranks: what :func:`unpack_own` returns of each rank's own.
    :raises ValueError: if it is none of :func:`pack`'s.
    """
    if packed is None or type(packed) in (bool, int, float, str):
        return packed
    if not isinstance(packed, dict):
        raise ValueError(f"a {type(packed).__name__} in the state of a run")
    if "tensor" in packed:
        dtype = getattr(torch, packed["dtype"].removeprefix("torch."))
        return tensors[packed["tensor"]].to(_device(packed["device"]), dtype)
    ((name, content),) = packed.items()
    if name == "rank":
        return OfRanks(own[content] for own in ranks)
    if name == "stack":
        return [value.clone() for value in unpack(content, tensors).unbind(0)]
    if name == "dict":
        return {unpack(key, tensors): unpack(value, tensors, ranks) for key, value in content}
    if name in _OBJECTS:
        made = object.__new__(_OBJECTS[name])
        vars(made).update(unpack(content, tensors, ranks))
        return made
    values = [unpack(value, tensors, ranks) for value in content]
    if name == "ranks":
        return OfRanks(values)
    if name in _TUPLES:
        return _TUPLES[name](*values)
    kinds = {"list": list, "tuple": tuple, "Size": torch.Size, "frozenset": frozenset, "set": set}
    return kinds[name](values)


def pack_own(own: list[Any]) -> dict[str, Tensor]:
    """Return a list of trees as tensors alone.

    Example::

        >>> unpack_own(pack_own([1, {"z": torch.tensor([3])}]))
        [1, {'z': tensor([3])}]
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(own, tensors)).encode()
    return tensors | {"tree": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def unpack_own(tensors: dict[str, Tensor]) -> list[Any]:
    """Return the trees that :func:`pack_own` was given."""
    text = tensors["tree"].numpy().tobytes()
    found: list[Any] = unpack(json.loads(text), tensors)
    return found


def _device(name: str) -> torch.device:
    """A device as it is here: a rank has a GPU of its own."""
    if name.startswith("cuda") and current().active:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


def _is_even(values: Sequence[Any]) -> bool:
    """Whether all are tensors of one shape, dtype and device."""
    kinds = {
        (v.shape, v.dtype, v.device) if isinstance(v, Tensor) else type(v).__name__ for v in values
    }
    return len(kinds) == 1 and isinstance(values[0], Tensor)
