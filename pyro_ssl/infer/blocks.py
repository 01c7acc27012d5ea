"""Blocks of sequences: memory that does not grow with how many sequences there are.

Tables over steps, sequences and states, ``(T, B, K)``, are the largest that any inference makes,
and sequences are independent given parameters. So a block of them has its table at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reading.program import ModelRun, Program

__all__ = ["Batches", "block_size", "blocks", "check_share", "programs_of"]

#: for each batch a tuple of a model's arguments; ``None``: there is one, of no further arguments
Batches = Iterable[Sequence[Any]] | None

#: entries of the largest table of a block: 128 MiB in float32, of which EM holds about eight
MAX_ENTRIES = 2**25


def block_size(*entries: int) -> int:
    """Return how many sequences a block may have, at least 1.

    :param entries: of each table, how many entries one sequence has.

    Example::

        >>> block_size(100 * 500)
        671
    """
    return max(MAX_ENTRIES // max(*entries, 1), 1)


def blocks(num_sequences: int, size: int, device: torch.device) -> list[Tensor]:
    """Return the indices of sequences, in order, in blocks of at most ``size``.

    Example::

        >>> [index.tolist() for index in blocks(5, 2, torch.device("cpu"))]
        [[0, 1], [2, 3], [4]]
    """
    return list(torch.arange(num_sequences, device=device).split(size))


def programs_of(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    batches: Batches,
) -> Iterator[Program]:
    """Bind a model to its arguments, or to those of each batch in turn.

    :param batches: tuples of positional arguments that follow ``args``; ``None``: there are none.
    :raises ValueError: if there is no batch.
    """
    batch: Sequence[Any] | None = None
    for batch in [()] if batches is None else batches:
        yield Program(model, (*args, *batch), kwargs)
    if batch is None:
        raise ValueError(
            "There is no batch, expected one at least; write batches=[(words, index) for index in "
            "torch.arange(N).split(250)], for a model of these arguments."
        )


def check_share(run: ModelRun, share: float, *, whole: bool = False) -> None:
    """Check that batches hold each sequence once, as far as the share that they hold tells.

    :param ModelRun run: of one of them, for the message.
    :param float share: what they hold in all, 1 for all sequences.
    :param bool whole: whether none may be missing.
    :raises ValueError: if they hold more, or less.
    """
    if share > 1.0 + 1e-6 or whole and share < 1.0 - 1e-6:
        plate = next((frame.name for frame in run.loop.plates), "sequences")
        raise ValueError(
            f'Site "{run.loop.name}": {share:.4g} of the sequences of the plates around the loop '
            "were given, expected each sequence once; write pyro.plate("
            f'"{plate}", N, subsample=index) in the model, with N sequences in all, and '
            "batches=[(index,) for index in torch.arange(N).split(250)] for its last argument."
        )
