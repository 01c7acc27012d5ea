"""Blocks of sequences: memory that does not grow with how many sequences there are.

Tables over steps, sequences and states, ``(T, B, K)``, are the largest that any inference makes,
and sequences are independent given parameters. So a block of them has its table at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reading.program import ModelRun, Program

__all__ = ["block_size", "blocks", "check_shares", "programs_of", "share_of"]

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


def blocks(num_sequences: int, size: int | None, device: torch.device) -> list[Tensor]:
    """Return the indices of sequences, in order, in blocks of at most ``size``; by default in one.

    Example::

        >>> [index.tolist() for index in blocks(5, 2, torch.device("cpu"))]
        [[0, 1], [2, 3], [4]]
    """
    index = torch.arange(num_sequences, device=device)
    return list(index.split(max(num_sequences, 1) if size is None else size))


def programs_of(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    batches: Iterable[Sequence[Any]] | None,
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


def share_of(run: ModelRun) -> float:
    """Return which share of all sequences a run holds, by its subsampled plates."""
    return 1.0 / run.subsample_factor


def check_shares(run: ModelRun, total: float, *, whole: bool) -> None:
    """Check that batches hold each sequence once at most, as far as their numbers tell.

    :param ModelRun run: of one of them, for the message.
    :param float total: the sum of their shares.
    :param bool whole: whether they are to hold all sequences.
    :raises ValueError: if they do not.
    """
    if total > 1.0 + 1e-6 or whole and not math.isclose(total, 1.0, abs_tol=1e-6):
        plate = next((frame.name for frame in run.loop.plates), "sequences")
        raise ValueError(
            f'Site "{run.loop.name}": batches hold {total:.4g} times the sequences of the plates '
            f"around the loop, expected each sequence once; write pyro.plate("
            f'"{plate}", N, subsample=index) in the model, N sequences in all, and give an index '
            "to each batch: torch.arange(N).split(250)."
        )
