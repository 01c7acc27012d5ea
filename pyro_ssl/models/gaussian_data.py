"""Series as a Gaussian SSL reads them: checked, and where something was observed.

Next file to read: ``gaussian.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .door import active_cells, flags, floats, lengths_of

__all__ = ["Series", "observed", "seen_steps", "take_emission", "take_series", "take_valid"]

#: x ``(T, B, E)``, lengths ``(B,)`` or ``None``, mask bool ``(T, B)`` or ``None``
Series = tuple[Tensor, "Tensor | None", "Tensor | None"]


def observed(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Data with 0 where nothing was observed, and where something was, bool ``(T, B)``."""
    there = x.isfinite().all(-1)
    if mask is not None:
        there = there & mask
    return torch.where(there.unsqueeze(-1), x, 0.0), there


def seen_steps(x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> Tensor:
    """Steps observed within the lengths, bool ``(T, B)``."""
    return observed(x, mask)[1] & active_cells(x, lengths)


def take_series(
    where: str, x: Any, lengths: Any, mask: Any, like: Tensor, num_sensors: int | None = None
) -> Series:
    """Return data as tensors of the model's dtype, on its device.

    :param str where: who asks, for the messages.
    :param Tensor like: a weight of the model.
    :param int num_sensors: E, where the model is fitted.
    :raises ValueError: if they do not fit one another, or the model.
    """
    x = floats(f"{where}: x", x, like)
    if x.dim() != 3 or x.numel() == 0:
        write = {
            1: "x[:, None, None] for one series of one sensor",
            2: "x[:, None] for one series of E sensors, or x[..., None] for B series of one sensor",
        }.get(x.dim(), "x[:, None] for one series of E sensors, and leave out what is empty")
        raise ValueError(
            f"{where}: x has shape {tuple(x.shape)}, expected (T, B, E), steps by series by "
            f"sensors, one of each at least; write {write}."
        )
    if num_sensors not in (None, x.shape[2]):
        raise ValueError(
            f"{where}: x has shape {tuple(x.shape)}, expected (T, B, {num_sensors}), the sensors "
            f"of the fit; write x[..., :{num_sensors}], or fit the model anew."
        )
    lengths = lengths_of(where, lengths, len(x), x.shape[1], like.device)
    if mask is not None:
        mask = flags(f"{where}: mask", mask, like.device)
        if mask.shape != x.shape[:2]:
            raise ValueError(
                f"{where}: mask has shape {tuple(mask.shape)}, expected {tuple(x.shape[:2])}, true "
                "where x_t was observed; write mask=~x.isnan().any(-1)."
            )
    return x, lengths, mask


def take_valid(where: str, valid: Any, like: Tensor, num_sensors: int) -> Series | None:
    """Return validation data as :func:`take_series` does.

    :param valid: ``(x, lengths)``.
    :raises ValueError: if it is something else, or nothing was observed.
    """
    if valid is None:
        return None
    if not isinstance(valid, tuple | list) or len(valid) not in (1, 2):
        raise ValueError(
            f"{where}: valid is a {type(valid).__name__}, expected (x, lengths); write "
            "valid=(x, None) where all series are of one length, with NaN where a step is masked."
        )
    where += "(valid=)"
    x, lengths = valid if len(valid) == 2 else (*valid, None)
    found = take_series(where, x, lengths, None, like, num_sensors)
    if not bool(seen_steps(*found).any()):
        raise ValueError(
            f"{where}: no step was observed in x of shape {tuple(found[0].shape)}, expected one at "
            "least; write valid=None to keep the last epoch."
        )
    return found


def take_emission(
    where: str, loading: Any, offset: Any, num_sensors: int, dim: int, like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return C and b as tensors, where they are given.

    :raises ValueError: if they do not fit, or are not finite.
    """
    found = []
    shapes = {"loading": (loading, (num_sensors, dim)), "offset": (offset, (num_sensors,))}
    for name, (value, shape) in shapes.items():
        if value is not None:
            value = floats(f"{where}: {name}", value, like)
            if value.shape != shape or not bool(value.isfinite().all()):
                raise ValueError(
                    f"{where}: {name} has shape {tuple(value.shape)}, expected {shape}, finite; "
                    f"write {name}=torch.zeros{shape} and fill it, or leave it out."
                )
        found.append(value)
    return found[0], found[1]
