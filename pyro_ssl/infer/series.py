"""Small tensors that are kept of every draw, in one block of memory."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Series"]


class Series:
    """Tensors of one shape and dtype, one after the other.

    Each for itself, they would stand between the large ones of a sweep, which go: the allocator
    cannot use the space of these again, and a run grows by about a path with each draw.

    Example::

        >>> import torch
        >>> series = Series()
        >>> for n in range(3):
        ...     series.append(torch.tensor([n, 1.0]))
        >>> series.stacked()
        tensor([[0., 1.],
                [1., 1.],
                [2., 1.]])
    """

    def __init__(self) -> None:
        self.number = 0
        self.block: Tensor | None = None  # (capacity, ...), a power of two

    def __len__(self) -> int:
        return self.number

    def append(self, value: Tensor) -> None:
        """Add one."""
        if self.block is None or self.number == len(self.block):
            longer = value.new_zeros((max(2 * self.number, 64), *value.shape))
            if self.block is not None:
                longer[: self.number] = self.block
            self.block = longer
        self.block[self.number] = value
        self.number += 1

    def stacked(self) -> Tensor:
        """Return all of them, ``(number, ...)``."""
        assert self.block is not None, "there is none yet"
        return self.block[: self.number]
