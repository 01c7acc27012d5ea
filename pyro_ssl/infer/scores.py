"""Which cells a score counts."""

from __future__ import annotations

from torch import Tensor

from ..arguments import at_least
from ..reading.program import ModelRun

__all__ = ["scored_cells"]


def scored_cells(run: ModelRun, start: int, *, at_least_one: bool = True) -> Tensor:
    """Return which cells count from step ``start`` on: the observed ones, bool ``(T, B)``.

    :param int start: from 0 to T - 1.
    :param bool at_least_one: whether one has to be left.
    :raises ValueError: if ``start`` is out of range, or no cell is left to score.
    """
    name, T = run.loop.name, run.loop.num_steps
    if not (at_least(0, start) and start < T):
        raise ValueError(
            f'Site "{name}": scores from start={start}, expected 0 to T - 1 = {T - 1}.'
        )
    cells = run.grid.observed().clone()
    cells[:start] = False
    if at_least_one and not bool(cells.any()):
        raise ValueError(
            f'Site "{name}": no step from start={start} on was observed in any of '
            f"{run.num_sequences} sequences, expected one at least; write start=0, or leave "
            "sequences out that are shorter."
        )
    return cells
