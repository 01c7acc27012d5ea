"""Series of numbers from CSV files: one file is one series, a row is a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..datasets.files import number_of
from .files import rows_of

__all__ = ["read_series"]

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}


def read_series(
    files: Sequence[str], columns: Sequence[str] | None, delimiter: str | None
) -> tuple[list[str], list[Tensor]]:
    """Read columns of numbers; what is missing is NaN.

    A first row that is not all numbers has the names of the columns; without one they are 1, 2, ...

    :param columns: their names; by default all that hold nothing but numbers.
    :returns: the names, and of each file its numbers, ``(T, E)``.
    :raises OSError: if a file cannot be read.
    :raises ValueError: if a column is not there, or holds something else.

    Example::

        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.csv")
        ...     _ = file.write_text("day,x,y\\nMon,1,2\\nTue,,3\\n")
        ...     read_series([str(file)], None, None)
        (['x', 'y'], [tensor([[1., 2.],
                [nan, 3.]])])
    """
    tables = [_table(file, delimiter) for file in files]
    if columns is None:
        names, rows = tables[0]
        columns = [n for i, n in enumerate(names) if _all_numbers([row[i] for _, row in rows])]
        if not columns:
            raise ValueError(
                f"{files[0]}: found no column of numbers among {', '.join(map(repr, names[:10]))}, "
                "expected one at least; write --delimiter if cells are not separated by a comma."
            )
    pairs = zip(files, tables, strict=True)
    return [*columns], [_numbers(file, *table, columns) for file, table in pairs]


def _table(file: str, delimiter: str | None) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and rows with the numbers of their lines."""
    rows = [(line, [cell.strip() for cell in row]) for line, row in rows_of(file, delimiter)]
    if not rows:
        raise ValueError(f"{file}: found no row, expected a row of numbers for each step.")
    first = rows[0][1]
    has_names = not all(_is_number(cell) for cell in first)
    names = first if has_names else [str(i + 1) for i in range(len(first))]
    rows = rows[has_names:]
    if not rows:
        raise ValueError(f"{file}: found the names of columns alone, expected numbers below them.")
    return names, rows


def _numbers(
    file: str, names: list[str], rows: list[tuple[int, list[str]]], columns: Sequence[str]
) -> Tensor:
    for name in columns:
        if names.count(name) != 1:
            found = f"{names.count(name)} columns" if name in names else "no column"
            raise ValueError(
                f"{file}: found {found} {name!r} among {', '.join(map(repr, names[:10]))}, "
                "expected one; write --column NAME, once for each that is wanted."
            )
    places = [names.index(name) for name in columns]
    values: list[list[float]] = []
    for line, row in rows:
        values.append([])
        for name, place in zip(columns, places, strict=True):
            try:
                missing = row[place].lower() in _MISSING
                values[-1].append(float("nan") if missing else number_of(row[place]))
            except ValueError as error:
                raise ValueError(
                    f"{file}, line {line}: found {error} in the column {name!r}, expected a "
                    "number, or an empty cell where it is missing."
                ) from error
    return torch.tensor(values, dtype=torch.get_default_dtype(), device="cpu")


def _is_number(cell: str) -> bool:
    try:
        return cell.lower() in _MISSING or number_of(cell) is not None
    except ValueError:
        return False


def _all_numbers(cells: Sequence[str]) -> bool:
    return all(map(_is_number, cells)) and any(c.lower() not in _MISSING for c in cells)
