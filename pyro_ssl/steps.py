"""Sequences of several lengths: which steps lie within each, and minibatches of similar ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["minibatches_by_length", "steps_within"]

#: minibatches whose sequences are sorted among themselves: more leave less padding, and less chance
POOL = 64


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


def minibatches_by_length(order: Tensor, lengths: Tensor, size: int) -> list[Tensor]:
    """Split sequences, in a random order, into minibatches of similar lengths.

    Within every so many minibatches sequences are sorted by length, and the minibatches then come
    in the order of the first of each: at random too. Where all lengths are the same the order stays
    as it is.

    :param Tensor order: places of sequences, int64 ``(n,)``.
    :param Tensor lengths: of all sequences, ``(N,)``, on the same device.
    :param int size: sequences in a minibatch; one has less where n is no multiple.
    :returns: places of the sequences of each.

    Example::

        >>> lengths = torch.tensor([9, 1, 8, 2])
        >>> minibatches_by_length(torch.tensor([2, 1, 0, 3]), lengths, 2)
        [tensor([2, 0]), tensor([1, 3])]
    """
    found = []
    for pool in order.split(POOL * size):
        by_length = lengths[pool].argsort(stable=True)
        parts = [part.sort().values for part in by_length.split(size)]
        parts.sort(key=lambda part: int(part[0]))
        found += [pool[part] for part in parts]
    return found
