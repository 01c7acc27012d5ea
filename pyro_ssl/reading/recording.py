"""Writing down what torch computes of some tensors, to compute it again without the code.

The body of the user's loop runs in Python, under Pyro's handlers, and asks autograd for two
derivatives; in a sweep it would do so three times a step. The operations that it comes down to are
few. :class:`Recording` sees them below autograd and Pyro, with those of the derivatives, as they
are run on one step; ``replay.py`` runs them again on others.

What a replay could not repeat is refused: whatever depends on a number that left torch, on a random
number, or on an edit in place. Where the code branched on a number that it had computed, as
distributions do when they check their arguments, a replay has to find it as it was: a *guard*.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Guard", "Operation", "Recording"]

#: what a tensor depends on, in rising order
CONSTANT, STEP, LATENT = range(3)

#: functions by which numbers leave torch unseen by what is recorded
_ESCAPES = {
    *("numpy", "tolist", "__array__", "data_ptr", "__dlpack__", "untyped_storage", "storage"),
    *("__cuda_array_interface__", "_typed_storage", "apply_", "map_", "map2_"),
}

#: operations whose result is their argument, if its layout is the same: nothing is edited in place
_SAME = {"detach", "alias", "lift_fresh", "view", "_unsafe_view", "expand", "clone"}

#: operations that read a shape, no number
_OF_SHAPES = {
    *("ones_like", "zeros_like", "full_like", "empty_like"),
    *("new_ones", "new_zeros", "new_full", "new_empty", "new_empty_strided"),
}


class Operation(NamedTuple):
    """``name = function(arguments)``, the arguments as text, with the names that they hold."""

    name: str
    function: str
    arguments: str
    reads: tuple[str, ...]
    level: int


class Guard(NamedTuple):
    """A number that decided a branch, by name, and what it was."""

    name: str
    was: bool


class Recording(TorchDispatchMode):
    """Writes operations down while it is entered, by ``with``.

    :param Tensor step: the number of the step, int64.
    :param Tensor latent: z_t.

    ``refused`` says why there is nothing to be replayed, ``None`` where there is. ``names`` are of
    constants and functions.
    """

    def __init__(self, step: Tensor, latent: Tensor) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.guards: list[Guard] = []
        self.refused: str | None = None
        self.names: dict[str, Any] = {}
        self.level = {"step": STEP, "latent": LATENT}
        self._name_of = {id(step): "step", id(latent): "latent"}
        self._held: list[Any] = [step, latent]  # an id is of one object while that lives
        self._known: dict[tuple[str, str], list[str]] = {}
        self._own: dict[int, Tensor] = {}  # by its memory, what was made within
        self._viewed: set[int] = set()
        self._escapes = _Escapes(self)

    def __enter__(self) -> Recording:
        self._escapes.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._escapes.__exit__(*error)

    def refuse(self, why: str) -> None:
        """Give up; what is computed goes on."""
        self.refused = self.refused or why

    def depends(self, value: object) -> bool:
        """Whether a tensor depends on the step or on z_t."""
        return self.level.get(self._name_of.get(id(value), ""), CONSTANT) > CONSTANT

    def name(self, value: Any) -> str:
        """Return the name that a value goes by; constants are given one."""
        if value is None or type(value) in (bool, int) or _is_finite(value):
            return repr(value)
        if id(value) not in self._name_of:
            self._name_of[id(value)] = f"k{len(self._held)}"
            self.names[f"k{len(self._held)}"] = value
            self._held.append(value)
        return self._name_of[id(value)]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: keeping the compiler out of a recording would import it, half a second's work."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and write it down."""
        kwargs, before = kwargs or {}, None
        if func._schema.is_mutable and self.refused is None:
            before = args[0].clone() if args and isinstance(args[0], Tensor) else None
        found = func(*args, **kwargs)
        if self.refused is None:
            try:
                self._write(func, args, kwargs, found, before)
                self._keep(list(_tensors((args, kwargs))), list(_tensors(found)))
            except Exception as error:  # whatever it is, the user's code goes on
                self.refuse(f"{func} cannot be written down: {error}")
        return found

    def _keep(self, given: list[Tensor], found: list[Tensor]) -> None:
        """Note what was made here, and what has views."""
        before = {_memory(v) for v in given}
        for value in found:
            if _memory(value) not in before:
                self._own[_memory(value)] = value
            elif all(value is not v for v in given):
                self._viewed.add(_memory(value))

    def _write(self, func: Any, args: Any, kwargs: Any, found: Any, before: Tensor | None) -> None:
        operation = func._schema.name.partition("::")[2]
        tracked = any(self.depends(v) for v in _tensors((args, kwargs)))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.refuse(f"{operation} draws random numbers")
        elif func._schema.is_mutable:
            self._edit(func, operation, args, kwargs, before if tracked else None)
        elif not tracked or operation in _OF_SHAPES:
            pass  # a constant
        elif operation == "_local_scalar_dense" and isinstance(found, bool):
            self.guards.append(Guard(self.name(args[0]), found))
        elif isinstance(found, Tensor):
            self._one(func, operation, args, kwargs, found)
        elif isinstance(found, list | tuple) and all(_is_part(v) for v in found):
            parts = self._operation(func, args, kwargs, len(found))
            for value, name in zip(found, parts, strict=True):
                if value is not None:
                    self._call(value, name)
        else:
            self.refuse(f"{operation} returns a number")

    def _edit(
        self, func: Any, operation: str, args: Any, kwargs: Any, before: Tensor | None
    ) -> None:
        """Take an edit in place for a new tensor, where nothing else has the old one.

        :param Tensor before: what was edited, as it was; ``None`` where it stays a constant.
        """
        of = func._schema.arguments
        given = dict(zip((a.name for a in of), args, strict=False)) | kwargs
        edited = [given.get(a.name) for a in of if a.alias_info and a.alias_info.is_write]
        memory = {_memory(v) for v in _tensors(edited)}
        others = [v for v in _tensors(self._held) if all(v is not e for e in edited)]
        plain = getattr(torch.ops.aten, operation.removesuffix("_"), None)
        plain = getattr(plain, func._overloadname, None)
        if memory - self._own.keys() or memory & {_memory(v) for v in others}:
            self.refuse(f"{operation} edits a tensor in place that is read elsewhere")
        elif before is None:
            if any(id(v) in self._name_of for v in _tensors(edited)):
                self.refuse(f"{operation} edits a constant in place")
        elif plain is None or len(edited) > 1 or edited[0] is not args[0] or memory & self._viewed:
            self.refuse(f"{operation} edits a tensor in place")
        else:
            old = args[0] if self.depends(args[0]) else before
            self._call(args[0], self._operation(plain, (old, *args[1:]), kwargs, 0)[0])

    def _one(self, func: Any, operation: str, args: Any, kwargs: Any, found: Tensor) -> None:
        shapes = torch.Tag.dynamic_output_shape in func.tags
        if shapes and not (operation == "index" and not _is_masked(args[1])):
            self.refuse(f"the shape of what {operation} returns depends on numbers")
        elif operation in _SAME and _alike(args[0], found):
            self._call(found, self.name(args[0]))
        else:
            self._call(found, self._operation(func, args, kwargs, 0)[0])

    def _operation(self, func: Any, args: Any, kwargs: Any, parts: int) -> list[str]:
        """Write one down, unless it was, and return the names of what it gives."""
        reads: list[str] = []
        texts = [self._text(value, reads) for value in args]
        texts += [f"{key}={self._text(value, reads)}" for key, value in kwargs.items()]
        key = self.name(func), ", ".join(texts)
        if key not in self._known:
            level = max(self.level.get(name, CONSTANT) for name in reads)
            name = f"v{len(self.operations)}"
            self.operations.append(Operation(name, *key, tuple(reads), level))
            self.level[name], self._known[key] = level, [name]
            if parts:
                self._known[key] = []
            for i in range(parts):
                part = f"{name}_{i}"
                self.operations.append(Operation(part, "", f"{name}[{i}]", (name,), level))
                self.level[part] = level
                self._known[key].append(part)
        return self._known[key]

    def _call(self, value: Tensor, name: str) -> None:
        self._name_of[id(value)] = name
        self._held.append(value)

    def _text(self, value: Any, reads: list[str]) -> str:
        if isinstance(value, list | tuple):
            return "[" + "".join(self._text(v, reads) + ", " for v in value) + "]"
        text = self.name(value)
        if self.level.get(text, CONSTANT) > CONSTANT:
            reads.append(text)
        return text


class _Escapes(TorchFunctionMode):
    """Has a recording refused where numbers leave torch."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _ESCAPES and any(self.recording.depends(v) for v in _tensors(args)):
            self.recording.refuse(f"{name} takes numbers out of torch")
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _memory(value: Tensor) -> int:
    """What two views of one tensor share."""
    return value.untyped_storage()._cdata if value.layout == torch.strided else id(value)


def _is_part(value: Any) -> bool:
    return value is None or isinstance(value, Tensor)


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_masked(index: Any) -> bool:
    """Whether an index picks as many entries as a mask has."""
    return any(v.dtype in (torch.bool, torch.uint8) for v in _tensors(index))


def _alike(value: Any, other: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == other.shape
        and value.stride() == other.stride()
        and value.dtype == other.dtype
    )
