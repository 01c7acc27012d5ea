"""Variables measured side by side, as the loaders of time series return them.

Next file to read: ``windows.py``, what a model learns from.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TimeSeries"]


class TimeSeries(NamedTuple):
    """Variables measured side by side, at even steps; a missing value is NaN.

    :param str name: What it is.
    :param names: Of the columns.
    :param pieces: Each ``(rows, columns)``, in the order of time. Between two there is a gap, which
        no window crosses.
    :param inputs: Names of the columns to predict from, N of them.
    :param targets: Names of the columns to predict; they may be inputs too.
    :param str unit: Of the targets.
    """

    name: str
    names: tuple[str, ...]
    pieces: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    unit: str = ""

    @property
    def num_rows(self) -> int:
        """Rows of all pieces together."""
        return sum(len(piece) for piece in self.pieces)

    def columns(self, names: tuple[str, ...]) -> list[int]:
        """Return the places of the columns of these names.

        :raises ValueError: if there is no such column.
        """
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(
                f"TimeSeries {self.name!r}: found no column {unknown[0]!r}, expected one of "
                f"{', '.join(self.names)}."
            )
        return [self.names.index(name) for name in names]

    def with_changes(self, names: tuple[str, ...] | None = None) -> TimeSeries:
        """Add inputs: the change of a column since the row before; NaN where one is missing.

        What a slow variable does from step to step is lost in its range: a room that warms by 0.1
        degrees moves by a fortieth of its standard deviation, too little for a saturating cell.
        A window of T steps then knows T changes, of which the first begins a step before it.

        :param names: of the columns; by default the targets. A new column is named ``"Δ name"``.

        **Example**::

            >>> from pyro_ssl.datasets import TimeSeries
            >>> rows = torch.tensor([[1.0], [4.0], [9.0]])
            >>> series = TimeSeries("squares", ("n",), (rows,), ("n",), ("n",)).with_changes()
            >>> series.inputs, series.pieces[0][1:, 1]
            (('n', 'Δ n'), tensor([3., 5.]))
        """
        names = self.targets if names is None else names
        columns = self.columns(names)
        pieces = []
        for piece in self.pieces:
            change = torch.full_like(piece[:, columns], float("nan"))
            change[1:] = piece[1:, columns] - piece[:-1, columns]
            pieces.append(torch.cat([piece, change], -1))
        new = tuple(f"Δ {name}" for name in names)
        return self._replace(names=self.names + new, pieces=tuple(pieces), inputs=self.inputs + new)
