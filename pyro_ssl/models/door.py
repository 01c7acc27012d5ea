"""Data as they come: arrays, lists and tensors of any number type become the model's own tensors.

Every public method of a model takes its data through here, once. What cannot be meant is refused
with the line to write instead; ``what`` is what the message calls the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..steps import steps_within

__all__ = ["active_cells", "flags", "floats", "integers", "lengths_of", "on_device"]

_COARSE = 0.01  # of a column's spread: rounding above it is no longer the same data
_WHOLE = 2.0**53  # floats hold every integer below it


def active_cells(data: Tensor, lengths: Tensor | None) -> Tensor:
    """Return where data ``(T, B, ...)`` stand, not padding: bool ``(T, B)``."""
    if lengths is None:
        return data.new_ones(data.shape[:2], dtype=torch.bool)
    return steps_within(lengths, len(data))


def on_device(what: str, value: Any, device: torch.device) -> Tensor:
    """Return numbers as a tensor on the model's device, without gradients.

    :param value: a tensor on that device, an array or a list.
    :raises ValueError: if it is no block of real numbers, or a tensor on another device.
    """
    if not isinstance(value, Tensor):
        value = _from_array(what, value)
        value = value.to(device)
    if value.layout != torch.strided or value.is_complex() or value.is_quantized:
        raise ValueError(
            f"{what} is a {value.dtype} tensor of layout {value.layout}, expected real numbers, "
            "one after the other; write x.to_dense(), or x.real for complex numbers."
        )
    if value.device != device:
        raise ValueError(
            f"{what} found on {value.device}, the model is on {device}; expected one device: write "
            f'model.to("{value.device}"), or move the data.'
        )
    value = value.detach()
    # A tensor made in inference mode can never be part of a gradient; its copy can.
    return value.clone() if value.is_inference() else value


def floats(what: str, value: Any, like: Tensor) -> Tensor:
    """Return numbers in the dtype and on the device of the model's weights.

    :raises ValueError: as :func:`on_device`, or if that dtype cannot tell the numbers apart.
    """
    exact = on_device(what, value, like.device)
    found = exact.to(like.dtype)
    if exact.dtype.itemsize > like.dtype.itemsize and _is_lost(exact, found):
        raise ValueError(
            f"{what} is {exact.dtype}, and the model's {like.dtype} is too coarse for it: the "
            "numbers are large beside the differences between them; write model.double(), or "
            "subtract x.mean(0) first."
        )
    return found


def integers(what: str, value: Any, device: torch.device, read: Tensor | None = None) -> Tensor:
    """Return whole numbers as int64; where ``read`` is false anything may stand, and -1 comes.

    :param value: integers, or floats that are whole.
    :raises ValueError: as :func:`on_device`, or if a number that is read has a fraction.
    """
    found = on_device(what, value, device)
    if found.is_floating_point():
        whole = (found == found.trunc()) & (found.abs() < _WHOLE)
        bad = ~whole if read is None else ~whole & read
        if bool(bad.any()):
            raise ValueError(
                f"{what} holds {float(found[bad][0])}, expected whole numbers; write "
                "x.round().long() if they are rounded, or encode the symbols as 0, 1, 2, ..."
            )
        found = torch.where(whole, found, -1.0)
    found = found.long()
    return found if read is None else torch.where(read, found, -1)


def flags(what: str, value: Any, device: torch.device) -> Tensor:
    """Return a mask as bool.

    :param value: bool, or 0 and 1 of any number type.
    :raises ValueError: as :func:`on_device`, or if there is another number in it.
    """
    found = on_device(what, value, device)
    if found.dtype != torch.bool and not bool(((found == 0) | (found == 1)).all()):
        raise ValueError(
            f"{what} holds other numbers than 0 and 1, expected true where something was observed; "
            "write mask=~x.isnan().any(-1), or mask=mask > 0.5."
        )
    return found.bool()


def lengths_of(
    what: str, lengths: Any, num_steps: int, num_sequences: int, device: torch.device
) -> Tensor | None:
    """Return the lengths of sequences as int64 ``(B,)``, or ``None`` where none were given.

    :raises ValueError: if there is not one for each sequence, between 0 and T.
    """
    if lengths is None:
        return None
    found = on_device(f"{what}: lengths", lengths, device)
    if found.shape != (num_sequences,) or found.dtype == torch.bool:
        raise ValueError(
            f"{what}: lengths are {found.dtype} {tuple(found.shape)}, expected integers "
            f"({num_sequences},), one for each column of data that are time first; write x.T if "
            "they are (B, T)."
        )
    found = integers(f"{what}: lengths", found, device)
    if bool((found < 0).any()) or bool((found > num_steps).any()):
        raise ValueError(
            f"{what}: lengths run from {int(found.min())} to {int(found.max())}, expected 0 to "
            f"T={num_steps}; write lengths.clamp(max={num_steps}) if the data were cut."
        )
    return found


def _from_array(what: str, value: Any) -> Tensor:
    try:
        if isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value):
            value = [part.detach().cpu().numpy() for part in value]
        array = np.array(value)
        if not array.size and array.dtype == object:
            array = array.astype(float)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{what} is a {type(value).__name__}, expected a tensor, an array or a list of numbers "
            "whose rows are of one length. Write torch.nn.utils.rnn.pad_sequence(rows) with "
            "lengths= for rows of several lengths, and table.to_numpy(float) for a table."
        ) from error


def _is_lost(exact: Tensor, found: Tensor) -> bool:
    """Whether a narrower dtype makes numbers infinite, or rounds their differences away."""
    if not exact.numel():
        return False
    exact = exact.double()
    if not torch.equal(exact.isfinite(), found.isfinite()):
        return True
    columns = exact.reshape(-1, exact.shape[-1]) if exact.dim() else exact.reshape(1, 1)
    there = columns.isfinite()
    error = torch.where(there, (columns - found.double().view_as(columns)).abs(), 0.0).amax(0)
    high = torch.where(there, columns, -torch.inf).amax(0)
    low = torch.where(there, columns, torch.inf).amin(0)
    return bool((error > _COARSE * (high - low)).logical_and(high > low).any())
