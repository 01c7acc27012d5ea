"""Minibatches of sequences of similar lengths, so that little is padding."""

from torch import Tensor

__all__ = ["minibatches_by_length"]

#: minibatches whose sequences are sorted among themselves: more leave less padding, and less chance
POOL = 64


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

        >>> import torch
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
