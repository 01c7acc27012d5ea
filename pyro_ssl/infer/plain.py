"""Trees of plain values as JSON and tensors, and back: what is saved of a run.

Everything comes back as it was, to the last bit, dtypes, devices and the order of dicts included.
Only the types named here can be, so that reading runs no code of anyone's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.infer.mcmc.adaptation import adapt_window
from torch import Tensor

from ..checkpoint import MappedArray
from ..reading.paths import PathSites
from ..smc import LinearSurrogate, MarkovSurrogate
from .mean_field import MarkovPart
from .series import Series
from .small import smallest
from .twisting import Trial

__all__ = ["pack", "unpack"]

#: named tuples, and objects that are what their attributes are
_TUPLES: dict[str, Any] = {kind.__name__: kind for kind in (PathSites, Trial, adapt_window)}
_OBJECTS: dict[str, Any] = {
    kind.__name__: kind for kind in (MarkovSurrogate, LinearSurrogate, MarkovPart, Series)
}


def pack(tree: Any, tensors: dict[str, Any]) -> Any:
    """Return a tree as JSON can hold it; its tensors are put into a dict beside it.

    :param tree: dicts, lists, tuples, sets, numbers, strings, tensors, ``None``, a few named tuples
        and surrogates, and arrays that are mapped from files, which stay so.
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
    if isinstance(tree, MappedArray):
        found = {"mapped": str(len(tensors))}
        tensors[found["mapped"]] = tree
        return found
    if isinstance(tree, list) and len(tree) > 1 and _is_even(tree):
        return {"stack": pack(torch.stack(tree), tensors)}
    if isinstance(tree, dict):
        pairs = [[pack(key, tensors), pack(value, tensors)] for key, value in tree.items()]
        return {"dict": pairs}
    name = type(tree).__name__
    if _TUPLES.get(name) is type(tree):
        return {name: [pack(value, tensors) for value in tree]}
    if _OBJECTS.get(name) is type(tree):
        return {name: pack(vars(tree), tensors)}
    for kind in (list, tuple, torch.Size, frozenset, set):
        if type(tree) is kind:
            items = sorted(tree) if isinstance(tree, frozenset | set) else tree
            return {kind.__name__: [pack(value, tensors) for value in items]}
    raise TypeError(
        f"found a {name} in what a run is to go on from, expected numbers, text, tensors, and "
        "lists and dicts of them: only these can be saved."
    )


def unpack(packed: Any, tensors: dict[str, Any]) -> Any:
    """Return the tree that :func:`pack` was given.

    :raises ValueError: if it is none of :func:`pack`'s.
    """
    if packed is None or type(packed) in (bool, int, float, str):
        return packed
    if not isinstance(packed, dict):
        raise ValueError(f"a {type(packed).__name__} in the state of a run")
    if "tensor" in packed:
        dtype = getattr(torch, packed["dtype"].removeprefix("torch."))
        return tensors[packed["tensor"]].to(packed["device"], dtype)
    ((name, content),) = packed.items()
    if name == "mapped":
        return tensors[content]
    if name == "stack":
        return [value.clone() for value in unpack(content, tensors).unbind(0)]
    if name == "dict":
        return {unpack(key, tensors): unpack(value, tensors) for key, value in content}
    if name in _OBJECTS:
        made = object.__new__(_OBJECTS[name])
        vars(made).update(unpack(content, tensors))
        return made
    values = [unpack(value, tensors) for value in content]
    if name in _TUPLES:
        return _TUPLES[name](*values)
    kinds = {"list": list, "tuple": tuple, "Size": torch.Size, "frozenset": frozenset, "set": set}
    return kinds[name](values)


def _is_even(values: Sequence[Any]) -> bool:
    """Whether all are tensors of one shape, dtype and device."""
    kinds = {
        (v.shape, v.dtype, v.device) if isinstance(v, Tensor) else type(v).__name__ for v in values
    }
    return len(kinds) == 1 and isinstance(values[0], Tensor)
