"""What is asked of arguments, whoever takes them: checks by name, once per call.

Shapes, dtypes and devices cost nothing to compare. Values are read only where the host need not
wait for them, on the CPU, or where Pyro's validation is on; see :func:`may_read`.
"""

from __future__ import annotations

import math
import operator
import os
from types import EllipsisType
from typing import Any

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from .errors import NonFiniteError

__all__ = [
    "at_least",
    "broadcast_shapes",
    "check_finite",
    "check_kind",
    "check_lengths",
    "check_level",
    "check_positive",
    "check_probabilities",
    "check_range",
    "check_share",
    "check_tensor",
    "check_unit",
    "hides_progbar",
    "may_read",
    "sizes_of",
    "whole",
]

_SLACK = 1e-3  # of a row's sum: a mistake is larger, float32's rounding smaller
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

#: sizes of dimensions: a number, a letter for any, and at the front ``...`` for any more of them
Shape = tuple[int | str | EllipsisType, ...]


def may_read(value: Tensor) -> bool:
    """Return whether a tensor's values may be checked.

    Reading them makes the host wait for a GPU; ``pyro.enable_validation(False)`` leaves it out.
    """
    device = value.device.type
    return device == "cpu" or device != "meta" and is_validation_enabled()


def check_kind(where: str, name: str, value: Any, kind: type, write: str) -> None:
    """Check an argument's class.

    :raises TypeError: if it is of another one.
    """
    if not isinstance(value, kind):
        found = value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"{where}: {name} is {found}, expected a {kind.__name__}; write {write}.")


def check_tensor(
    where: str,
    name: str,
    value: Any,
    shape: Shape,
    *,
    like: Tensor | None = None,
    integer: bool = False,
    some: str = "",
    write: str = "",
) -> None:
    """Check that an argument is a tensor of a shape, a dtype and a device; it costs no wait.

    :param str where: who asks, for the message.
    :param shape: sizes; a letter stands for any.
    :param Tensor like: of the dtype, unless ``integer``, and the device that are expected.
    :param bool integer: it must be int64; else float32 or float64.
    :param str some: letters of the sizes that must be 1 at least.
    :param str write: the line to write instead, where the shape is another.
    :raises TypeError: if it is no tensor.
    :raises ValueError: if it is another one.
    """
    words = _words(shape) + (f" with {' and '.join(some)} at least 1" if some else "")
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{where}: {name} is a {type(value).__name__}, expected a tensor of shape {words}; "
            f"write torch.as_tensor({name})."
        )
    if not _fits(tuple(value.shape), shape, some):
        raise ValueError(
            f"{where}: {name} has shape {tuple(value.shape)}, expected {words}"
            + (f"; write {write}." if write else ".")
        )
    dtype = torch.int64 if integer else value.dtype if like is None else like.dtype
    if value.dtype != dtype or not integer and dtype not in (torch.float32, torch.float64):
        good = dtype if integer or dtype in (torch.float32, torch.float64) else torch.float32
        raise ValueError(
            f"{where}: {name} is {value.dtype}, expected {good}; write {name}.to({good})"
            + (", or encode symbols as 0, 1, 2, ..." if integer else "")
            + "."
        )
    if like is not None and value.device != like.device:
        raise ValueError(
            f"{where}: {name} is on {value.device}, expected {like.device}, as the rest; write "
            f'{name}.to("{like.device}").'
        )


def check_range(where: str, name: str, value: Tensor, size: int, write: str) -> None:
    """Check that integers run from 0 to ``size`` - 1, where they may be read.

    :raises ValueError: if one does not.
    """
    if not value.numel() or not may_read(value):
        return
    low, high = torch.stack(torch.aminmax(value)).tolist()
    if low < 0 or high >= size:
        raise ValueError(
            f"{where}: {name} holds numbers from {low} to {high}, expected 0 to {size - 1}; "
            f"write {write}."
        )


def check_probabilities(where: str, name: str, value: Tensor, *, sums: bool = True) -> None:
    """Check that rows are probabilities, where they may be read.

    :param bool sums: a row has to add up to 1; else to any positive number.
    :raises ValueError: if a number is negative or NaN, or a row does not add up.
    """
    if not value.numel() or not may_read(value):
        return
    value = value.detach()
    rows = value.sum(-1)
    least, low, high = torch.stack([value.amin(), rows.amin(), rows.amax()]).tolist()
    good = 1 - _SLACK < low <= high < 1 + _SLACK if sums else 0.0 < low <= high < math.inf
    if not least >= 0.0 or not good:
        raise ValueError(
            f"{where}: {name} has a least entry of {least:.3g} and rows that add up to {low:.6g} "
            f"to {high:.6g}, expected probabilities; write {name}.softmax(-1) for logits, or "
            f"{name} / {name}.sum(-1, keepdim=True)."
        )


def check_positive(where: str, name: str, value: Tensor) -> None:
    """Check that numbers are positive and finite, where they may be read.

    :raises ValueError: if one is not.
    """
    if may_read(value) and not bool(((value > 0) & value.isfinite()).all()):
        raise ValueError(
            f"{where}: {name} holds numbers that are not positive, or not finite; expected "
            f"positive ones; write {name}.exp() for logarithms."
        )


def check_finite(where: str, name: str, value: Tensor) -> None:
    """Check that numbers are finite, where they may be read.

    :raises NonFiniteError: if one is not.
    """
    if may_read(value) and not bool(value.isfinite().all()):
        raise NonFiniteError(
            f"{where}: {int((~value.isfinite()).sum())} numbers of {name} are not finite, expected "
            f"none; write {name}.nan_to_num(0.0) where nothing was observed."
        )


def check_unit(where: str, name: str, value: Tensor) -> None:
    """Check that each number is a probability, where they may be read.

    :raises ValueError: if one is not from 0 to 1.
    """
    if value.numel() and may_read(value) and not bool(((value >= 0) & (value <= 1)).all()):
        low, high = torch.stack(torch.aminmax(value.detach())).tolist()
        raise ValueError(
            f"{where}: {name} holds numbers from {low:.6g} to {high:.6g}, expected probabilities "
            f"from 0 to 1; write {name}.sigmoid() for log-odds."
        )


def check_share(where: str, name: str, value: Any) -> float:
    """Return a probability below 1, as that of dropout.

    :raises ValueError: if it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise ValueError(
            f"{where}: {name} is {value}, expected a number from 0 to below 1; write {name}=0.0."
        )
    return float(value)


def check_level(where: str, level: float, write: str = "interval(0.9)") -> None:
    """Check that an interval can be of a level.

    :raises ValueError: if it is no probability strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"{where}: found level={level}, expected a probability strictly between 0 and 1; "
            f"write {write} for 90 %."
        )


def check_lengths(
    where: str, lengths: Any, num_steps: int, num_sequences: int, device: torch.device
) -> None:
    """Check the lengths of sequences; ``None`` passes.

    :raises TypeError: if they are no tensor.
    :raises ValueError: if they are not integers ``(B,)`` from 0 to T.
    """
    if lengths is None:
        return
    T, B = num_steps, num_sequences
    numbers = lengths
    if isinstance(lengths, Tensor) and lengths.dtype in _INTEGERS:
        numbers = lengths.long()
    like = torch.empty(0, dtype=torch.int64, device=device)
    write = "lengths, one for each sequence"
    check_tensor(where, "lengths", numbers, (B,), like=like, integer=True, write=write)
    check_range(where, "lengths", numbers, T + 1, f"lengths.clamp(0, {T}) if the data were cut")


def at_least(least: int, *values: Any) -> bool:
    """Return whether settings are integers, none of them below a bound."""
    try:
        return all(operator.index(value) >= least for value in values)
    except TypeError:
        return False


def whole(where: str, name: str, value: Any, least: int) -> int:
    """Return a size as an ``int``.

    :raises ValueError: if it is no whole number, or less than ``least``.
    """
    try:
        number = operator.index(value)
        good = number >= least and not isinstance(value, bool)
    except (TypeError, ValueError, RuntimeError):
        number, good = least, False
    if not good:
        found = value if isinstance(value, int | float | str) else f"a {type(value).__name__}"
        raise ValueError(
            f"{where}: {name} is {found}, expected a whole number of {least} or more; write "
            f"{name}={max(least, 1)}."
        )
    return number


def hides_progbar(disable_progbar: bool | None) -> bool:
    """Return whether progress bars are hidden: by default where ``CI`` is set."""
    return bool(os.environ.get("CI")) if disable_progbar is None else disable_progbar


def sizes_of(where: str, name: str, shape: Any) -> torch.Size:
    """Return the shape of what is drawn.

    :raises ValueError: if it is no tuple of whole numbers of 0 or more.
    """
    sizes = shape if isinstance(shape, tuple | list) else (-1,)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes):
        raise ValueError(
            f"{where}: {name} is {shape}, expected a tuple of whole numbers of 0 or more; write "
            f"{name}=(100,)."
        )
    return torch.Size(sizes)


def broadcast_shapes(*shapes: tuple[int, ...]) -> torch.Size:
    """Return the shape that all broadcast to; torch's own takes as long as a step of a small model.

    :raises RuntimeError: if there is none, as torch does.
    """
    padded = ((1,) * (max(map(len, shapes)) - len(shape)) + tuple(shape) for shape in shapes)
    sizes = [{*column} - {1} or {1} for column in zip(*padded, strict=True)]
    if any(len(found) > 1 for found in sizes):
        raise RuntimeError(f"Shapes {', '.join(map(str, map(tuple, shapes)))} do not broadcast.")
    return torch.Size(size for (size,) in sizes)


def _fits(found: tuple[int, ...], shape: Shape, some: str) -> bool:
    if shape[:1] == (...,):
        shape = shape[1:]
        found = found[len(found) - len(shape) :] if len(found) >= len(shape) else ()
    return len(found) == len(shape) and all(
        number >= (size in some) if isinstance(size, str) else size == number
        for number, size in zip(found, shape, strict=True)
    )


def _words(shape: Shape) -> str:
    sizes = ["..." if size is ... else str(size) for size in shape]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
