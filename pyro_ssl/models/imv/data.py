"""Windows as an IMV-LSTM reads them: checked, their gaps filled, and taken in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..door import flags, floats
from .network import IMVNetwork

__all__ = ["Data", "check_windows", "chunks", "parts_of", "take", "there"]

#: x ``(M, T, N)``, y ``(M, Y)`` or ``None``, mask ``(M, T, N)`` or ``None``
Data = tuple[Tensor, "Tensor | None", "Tensor | None"]


def there(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return where x is finite and, by the mask, was observed."""
    return x.isfinite() if mask is None else x.isfinite() & mask


def take(data: Data, index: Tensor) -> Data:
    """Return the windows of these numbers."""
    x, y, mask = data
    return x[index], None if y is None else y[index], None if mask is None else mask[index]


def chunks(data: Data, size: int) -> Iterator[Data]:
    """Yield at most ``size`` windows at a time, and at least one part."""
    for start in range(0, max(len(data[0]), 1), size):
        part = slice(start, start + size)
        x, y, mask = data
        yield x[part], None if y is None else y[part], None if mask is None else mask[part]


def check_windows(where: str, x: Any, y: Any, mask: Any, network: IMVNetwork) -> Data:
    """Return the data with y as ``(M, Y)``; of :class:`Windows`, x as they filled it, and y.

    :param str where: who asks, for the messages.
    :raises ValueError: if x, y and mask do not fit the model or one another, or y is not finite.
    """
    if hasattr(x, "y") and hasattr(x, "x"):
        y = x.y if y is None else y
        x = x.x
    like = network.gate.weight
    x = floats(f"IMVLSTM.{where}: x", x, like)
    y = None if y is None else floats(f"IMVLSTM.{where}: y", y, like)
    mask = None if mask is None else flags(f"IMVLSTM.{where}: mask", mask, like.device)
    N, T, Y = network.layer.num_variables, network.num_steps, network.num_targets
    steps = x.shape[1] if x.dim() == 3 else 0
    if steps == 0 or x.shape[2] != N or T not in (None, steps):
        raise ValueError(
            f"IMVLSTM.{where}: x has shape {tuple(x.shape)}, expected (M, {T or 'T'}, {N}), "
            "windows by steps by variables; write IMVLSTM(num_variables=x.shape[2], units=16, "
            "num_steps=x.shape[1]) for other windows, or x.unsqueeze(0) for a single one."
        )
    if mask is not None and mask.shape != x.shape:
        raise ValueError(
            f"IMVLSTM.{where}: mask has shape {tuple(mask.shape)}, expected "
            f"{tuple(x.shape)}, true where x was observed; write mask=~x.isnan()."
        )
    if y is not None:
        if y.dim() == 1 and Y == 1:
            y = y.unsqueeze(1)
        if y.shape != (len(x), Y):
            raise ValueError(
                f"IMVLSTM.{where}: y has shape {tuple(y.shape)}, expected {(len(x), Y)}; write "
                f"num_targets={y.shape[-1] if y.dim() > 1 else 1} for as many targets, or one row "
                "of y for each window of x."
            )
        if not bool(y.isfinite().all()):
            raise ValueError(
                f"IMVLSTM.{where}: {int((~y.isfinite()).any(1).sum())} of {len(y)} windows have a "
                "target that is not finite, expected none; write "
                "keep = y.isfinite().all(1); x, y = x[keep], y[keep]."
            )
    return x, y, mask


def parts_of(valid: Any) -> tuple[Any, ...]:
    """Return validation data as arguments of :func:`check_windows`.

    :param valid: ``(x, y)``, ``(x, y, mask)``, or windows.
    :raises ValueError: if it is something else.
    """
    if hasattr(valid, "y") and hasattr(valid, "x"):
        return (valid,)
    if not isinstance(valid, tuple | list) or not 1 <= len(valid) <= 3:
        raise ValueError(
            f"IMVLSTM.fit: valid is a {type(valid).__name__}, expected (x, y), (x, y, mask) or "
            "windows; write valid=(x, y)."
        )
    return tuple(valid)
