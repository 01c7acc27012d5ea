"""Rows of paths, one for each sequence: in memory, or in a file that is mapped.

The file has no name: it goes with the process, however that ends, and what a run that was stopped
goes on from is its checkpoint. Its space is taken when it is made, so that a full disk is told then
and not amid a step.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["longer_rows", "pad_steps", "rows_like", "zero_rows"]

#: rows that are copied at a time
_BLOCK = 2**16


def zero_rows(
    shape: tuple[int, ...], like: Tensor, folder: str | os.PathLike[str] | None
) -> Tensor:
    """Return rows of zeros.

    :param Tensor like: of the dtype and the device; those of a file are on the CPU.
    :param folder: of the file; ``None``: they are in memory.
    :raises OSError: if there is no room.

    Example::

        >>> zero_rows((2, 3), torch.empty(0, dtype=torch.uint8), tempfile.mkdtemp())
        tensor([[0, 0, 0],
                [0, 0, 0]], dtype=torch.uint8)
    """
    size = int(np.prod(shape, dtype=np.int64)) * like.element_size()
    if folder is None or not size:
        return like.new_zeros(shape)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            reason = f"{error.strerror}; {size:,} bytes of paths do not fit"
            raise OSError(error.errno, reason, str(folder)) from error
        dtype = torch.empty(0, dtype=like.dtype, device="cpu").numpy().dtype
        return torch.from_numpy(np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray))


def rows_like(rows: Tensor, folder: str | os.PathLike[str] | None, num_steps: int = 0) -> Tensor:
    """Return a copy of rows, in another place perhaps, of ``num_steps`` steps at least."""
    shape = (len(rows), max(rows.shape[1], num_steps), *rows.shape[2:])
    new = zero_rows(shape, rows, folder)
    for start in range(0, len(rows), _BLOCK):
        new[start : start + _BLOCK, : rows.shape[1]] = rows[start : start + _BLOCK]
    return new


def longer_rows(rows: Tensor, num_steps: int, folder: str | os.PathLike[str] | None) -> Tensor:
    """Return rows of so many steps at least; in a file half as many more, to copy them seldom."""
    if num_steps <= rows.shape[1]:
        return rows
    return rows_like(rows, folder, num_steps if folder is None else num_steps * 3 // 2)


def pad_steps(paths: Tensor, T: int) -> Tensor:
    """Give paths ``(N, T', ...)`` at least T steps."""
    longer = max(T - paths.shape[1], 0)
    return torch.nn.functional.pad(paths, (0, 0) * (paths.dim() - 2) + (0, longer))
