"""Steps of sequences: which lie within each, the one before, and minibatches of similar lengths."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Lagged", "lagged", "minibatches_by_length", "steps_within"]

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


class Lagged(NamedTuple):
    """``values``, x_{t-1} or 0 where it is not known, and ``known``, bool; both as x."""

    values: Tensor
    known: Tensor


def lagged(x: Tensor, seen: Tensor | None = None) -> Lagged:
    """Return x_{t-1} at each step t, for the body of a loop that is an autoregression.

    0 stands in at the first step, and where the entry was not seen. (``x[t - 1]`` in the body would
    be the *last* step at the first one.)

    :param Tensor x: data, time first, ``(T, ...)``.
    :param Tensor seen: bool, of x's shape, where it was observed; by default where x is not NaN.
    :raises ValueError: if ``seen`` is not bool, or of another shape.

    Example::

        >>> before, known = lagged(torch.tensor([1.0, float("nan"), 3.0]))
        >>> before.tolist(), known.tolist()
        ([0.0, 1.0, 0.0], [False, True, False])
    """
    seen = ~x.isnan() if seen is None else seen
    if seen.dtype != torch.bool or seen.shape != x.shape:
        raise ValueError(
            f"lagged: seen is {seen.dtype} of shape {tuple(seen.shape)}, expected bool of x's "
            f"shape {tuple(x.shape)}; write seen.bool(), and seen.unsqueeze(-1).expand_as(x) where "
            "whole steps are missing."
        )
    known = torch.zeros_like(seen)
    known[1:] = seen[:-1]
    values = torch.zeros_like(x)
    values[1:] = torch.where(seen[:-1], x[:-1], 0.0)
    return Lagged(values, known)


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
