"""Take arguments as they come: numbers, arrays, lists and tensors of any dtype that has a meaning.

What is given stays as it is. A number that would have to be rounded, or an index out of range, is
an error that tells what to write.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "as_floats",
    "as_ids",
    "as_indices",
    "as_mask",
    "generator",
    "integer",
    "real",
    "several",
]


def integer(value: Any, name: str, caller: str, least: int | None = 1) -> int:
    """Return a whole number as an ``int``: 3, ``np.int64(3)``, 3.0, a tensor of one number.

    :param int least: the smallest that may be; None for any.
    :raises TypeError: if it is not a number.
    :raises ValueError: if it has a fraction, is not finite, or is too small.
    """
    number = _number(value, name, caller)
    if not number.is_integer():
        raise ValueError(f"{caller}: found {name}={value}, expected a whole number.")
    whole = int(value)
    if least is not None and whole < least:
        raise ValueError(f"{caller}: found {name}={whole}, expected {least} or more.")
    return whole


def real(value: Any, name: str, caller: str, low: float = -math.inf) -> float:
    """Return a finite number as a ``float``.

    :param float low: the smallest that may be.
    :raises TypeError: if it is not a number.
    :raises ValueError: if it is not finite, or too small.
    """
    number = _number(value, name, caller)
    if not math.isfinite(number) or number < low:
        expected = "a finite number" if low == -math.inf else f"a finite number, {low} or more"
        raise ValueError(f"{caller}: found {name}={value}, expected {expected}.")
    return number


def several(values: Any) -> list[Any]:
    """Return a list of arguments, also of a single one."""
    return list(values) if isinstance(values, Iterable) else [values]


def generator(seed: Any, caller: str) -> torch.Generator:
    """Return a generator on the CPU that starts from a seed, an integer."""
    return torch.Generator(device="cpu").manual_seed(integer(seed, "seed", caller, least=None))


def as_floats(values: Any, what: str) -> Tensor:
    """Return numbers as a tensor of floats; what numpy marks as missing (``None``) is NaN.

    float32 and float64 are kept, half precision becomes float32, integers the default dtype.

    :param values: a tensor, an array, a data frame, or lists of numbers.
    :param str what: for the message.
    :raises TypeError: if there is something else than real numbers in it.
    """
    tensor = values.detach() if isinstance(values, Tensor) else _from_array(values, what)
    if tensor.is_complex():
        raise TypeError(f"{what}: found complex numbers, expected real ones. Write values.real.")
    if not tensor.is_floating_point():
        return tensor.to(torch.get_default_dtype())
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def as_ids(values: Any, what: str) -> Tensor:
    """Return whole numbers, floats among them, as a tensor of int64.

    :raises TypeError: if they are not numbers.
    :raises ValueError: if one has a fraction.
    """
    tensor = values if isinstance(values, Tensor) else _from_array(values, what)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{what}: found {tensor.dtype}, expected whole numbers.")
    if tensor.is_floating_point():
        odd = (tensor != tensor.round()) | (tensor.abs() > 2.0**53)  # NaN differs from itself
        if bool(odd.any()):
            raise ValueError(
                f"{what}: found {float(tensor[odd][0]):.6g}, expected whole numbers. Write "
                "vocabulary.encode(tokens) for words, and round what was measured."
            )
    return tensor.long()


def as_mask(values: Any, what: str) -> Tensor:
    """Return a mask as bool, also one of 0 and 1.

    :raises TypeError: if they are not numbers.
    :raises ValueError: if one is neither 0 nor 1.
    """
    tensor = values if isinstance(values, Tensor) else _from_array(values, what)
    if tensor.dtype != torch.bool and bool(((tensor != 0) & (tensor != 1)).any()):
        raise ValueError(f"{what}: found other numbers than 0 and 1, expected a mask of bools.")
    return tensor.bool()


def as_indices(indices: Any, size: int, what: str, device: torch.device) -> Tensor:
    """Return places as a tensor of int64, from a mask too.

    :param indices: ``(N,)`` whole numbers from ``-size`` to ``size - 1``, or a ``(size,)`` bool.
    :raises IndexError: if one is out of range, or the mask has another length.
    """
    given = indices if isinstance(indices, Tensor) else _from_array(indices, what)
    if given.dim() > 1 or (given.dtype == torch.bool and given.shape != (size,)):
        raise IndexError(
            f"{what}: found {given.dtype} of shape {tuple(given.shape)}, expected places (N,), or "
            f"a bool mask ({size},)."
        )
    places = given.nonzero().squeeze(-1) if given.dtype == torch.bool else as_ids(given, what)
    if places.numel() and not -size <= int(places.min()) <= int(places.max()) < size:
        low, high = int(places.min()), int(places.max())
        raise IndexError(f"{what}: found {low} to {high}, expected {-size} to {size - 1}.")
    return places.to(device)


def _number(value: Any, name: str, caller: str) -> float:
    try:
        if isinstance(value, (bool, str, bytes, np.bool_)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = f"{name}={value!r}"[:80]
        raise TypeError(f"{caller}: found {found}, expected a number.") from None


def _from_array(values: Any, what: str) -> Tensor:
    """A tensor of what numpy can read as numbers: bool, int64, float32 or float64."""
    try:
        array = np.asanyarray(values)
        if isinstance(array, np.ma.MaskedArray):
            array = np.ma.filled(array.astype(np.float64), np.nan)
        if array.dtype == object:
            array = array.astype(np.float64)  # None is NaN
        if array.dtype.kind not in "biuf":
            raise TypeError(f"an array of {array.dtype}")
        if array.dtype.kind == "u" and array.max(initial=0) > np.iinfo(np.int64).max:
            raise TypeError(f"the number {array.max()}")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"{what}: found {error}, expected numbers, in rows of the same length. Write "
            "torch.as_tensor(values), and NaN for what is missing."
        ) from error
    floats = np.float32 if array.dtype.itemsize <= 4 else np.float64
    dtype = {"b": np.bool_, "i": np.int64, "u": np.int64}.get(array.dtype.kind, floats)
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))
