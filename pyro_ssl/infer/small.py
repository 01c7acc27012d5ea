"""Whole numbers in the smallest type that holds them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["smallest", "smallest_type"]

_INTEGERS = (torch.uint8, torch.int16, torch.int32)
_WIDE = (torch.int16, torch.int32, torch.int64)


def smallest_type(most: int) -> torch.dtype:
    """Return the smallest type of the numbers from 0 to ``most``.

    Example::

        >>> smallest_type(255), smallest_type(256)
        (torch.uint8, torch.int16)
    """
    fitting = (dtype for dtype in _INTEGERS if most <= torch.iinfo(dtype).max)
    return next(fitting, torch.int64)


def smallest(values: Tensor, most: int | None = None) -> Tensor:
    """Return whole numbers, none below 0, in the smallest type that holds them.

    :param int most: what none is above; by default the greatest is sought. Others come back as
        they are.

    Example::

        >>> smallest(torch.tensor([0, 255])).dtype, smallest(torch.tensor([0, 1]), 256).dtype
        (torch.uint8, torch.int16)
    """
    if values.dtype not in _WIDE or most is None and not values.numel():
        return values
    if most is None:
        least, greatest = (int(value) for value in torch.aminmax(values))
        most = greatest if least >= 0 else torch.iinfo(torch.int64).max
    return values.to(dtype) if (dtype := smallest_type(most)) != torch.int64 else values
