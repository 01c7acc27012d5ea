"""Which steps lie within each sequence, of sequences that are shorter than the longest."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["steps_within"]


def steps_within(lengths: Tensor, num_steps: int, *, time_first: bool = True) -> Tensor:
    """Return a mask, bool, that is True at steps t < ``lengths``.

    :param Tensor lengths: integers ``(...)``, how many steps each sequence has.
    :param int num_steps: T.
    :param bool time_first: put time first, ``(T, ...)``, or last, ``(..., T)``.

    Example::

        >>> lengths = torch.tensor([1, 3])
        >>> steps_within(lengths, 3).int().tolist()
        [[1, 1], [0, 1], [0, 1]]
        >>> steps_within(lengths, 3, time_first=False).int().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    steps = torch.arange(num_steps, device=lengths.device, dtype=torch.long)
    if time_first:
        return steps.view(-1, *[1] * lengths.dim()) < lengths
    return steps < lengths.unsqueeze(-1)
