"""Variables measured side by side, as the loaders of time series return them.

Next file to read: ``windows.py``, what a model learns from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .arguments import as_floats

__all__ = ["TimeSeries"]


class _Fields(NamedTuple):
    name: str
    names: tuple[str, ...]
    pieces: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    unit: str = ""


class TimeSeries(_Fields):
    """Variables measured side by side, at even steps; a missing value is NaN.

    :param str name: What it is.
    :param names: Of the columns; a single name is one column.
    :param pieces: Each ``(rows, columns)``, in the order of time, or ``(rows,)`` of one column.
        Between two there is a gap, which no window crosses. An array or a tensor is one piece.
        Integers become the default dtype, half precision float32.
    :param inputs: Names of the columns to predict from, N of them.
    :param targets: Names of the columns to predict; they may be inputs too.
    :param str unit: Of the targets.
    :raises TypeError: if a piece does not hold numbers.
    :raises ValueError: if a piece has another shape, a value is infinite, or a name stands twice.
    """

    def __new__(
        cls,
        name: str,
        names: Sequence[str] | str,
        pieces: Any,
        inputs: Sequence[str] | str,
        targets: Sequence[str] | str,
        unit: str = "",
    ) -> TimeSeries:
        """Take data as they come; see the class."""
        caller = f"TimeSeries {name!r}"
        columns = _names(names)
        if len(set(columns)) < len(columns):
            raise ValueError(f"{caller}: found names={columns}, expected every name once.")
        several = isinstance(pieces, (list, tuple)) and (
            not pieces or any(hasattr(piece, "__len__") for piece in pieces)
        )
        rows = tuple(
            _rows(piece, columns, f"{caller}, piece {i}")
            for i, piece in enumerate(pieces if several else [pieces])
        )
        if len({(piece.dtype, piece.device) for piece in rows}) > 1:
            raise ValueError(
                f"{caller}: found pieces of {', '.join(str(p.dtype) for p in rows)} on "
                f"{', '.join(str(p.device) for p in rows)}, expected one dtype and one device. "
                "Write [piece.to(pieces[0]) for piece in pieces]."
            )
        return super().__new__(cls, name, columns, rows, _names(inputs), _names(targets), unit)

    @property
    def num_rows(self) -> int:
        """Rows of all pieces together."""
        return sum(len(piece) for piece in self.pieces)

    def columns(self, names: Sequence[str] | str) -> list[int]:
        """Return the places of the columns of these names.

        :raises ValueError: if there is no such column, or no name.
        """
        names = _names(names)
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(
                f"TimeSeries {self.name!r}: found no column {unknown[0]!r}, expected one of "
                f"{', '.join(self.names)}."
            )
        if not names:
            raise ValueError(
                f"TimeSeries {self.name!r}: found no name among inputs or targets, expected one "
                f"at least of {', '.join(self.names)}."
            )
        return [self.names.index(name) for name in names]

    def with_changes(self, names: Sequence[str] | str | None = None) -> TimeSeries:
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
        names = self.targets if names is None else _names(names)
        columns = self.columns(names)
        pieces = []
        for piece in self.pieces:
            change = torch.full_like(piece[:, columns], float("nan"))
            change[1:] = piece[1:, columns] - piece[:-1, columns]
            pieces.append(torch.cat([piece, change], -1))
        new = tuple(f"Δ {name}" for name in names)
        return TimeSeries(
            self.name, self.names + new, pieces, self.inputs + new, self.targets, self.unit
        )


def _names(names: Sequence[str] | str) -> tuple[str, ...]:
    found = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if wrong := [name for name in found if not isinstance(name, str)]:
        raise TypeError(f"TimeSeries: found the name {wrong[0]!r:.40}, expected a string.")
    return tuple(found)


def _rows(piece: Any, names: tuple[str, ...], what: str) -> Tensor:
    """One piece as floats, ``(rows, columns)``."""
    rows = as_floats(piece, what)
    if rows.dim() == 1 and len(names) == 1:
        rows = rows.unsqueeze(-1)
    if rows.dim() != 2 or rows.shape[1] != len(names):
        raise ValueError(
            f"{what}: found shape {tuple(rows.shape)}, expected (rows, {len(names)}) for the "
            f"columns {', '.join(names)}. Write TimeSeries(name, names, [rows], inputs, targets)."
        )
    if bool(rows.isinf().any()):
        row, column = rows.isinf().nonzero()[0].tolist()
        raise ValueError(
            f"{what}: found {float(rows[row, column])} in row {row} of {names[column]!r}, expected "
            "numbers. Write NaN for what is missing."
        )
    return rows
