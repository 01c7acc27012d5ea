"""Tables with named columns: in as data, out as results. No library of tables is needed to import.

A table is what has ``columns``, ``index`` and ``to_numpy``, as a DataFrame of pandas does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

__all__ = [
    "Labels",
    "as_numbers",
    "from_tables",
    "inputs_from_tables",
    "is_table",
    "later",
    "to_tables",
    "unnamed",
]


class Labels(NamedTuple):
    """Names of the sensors, and where tables were given, the index of each series."""

    sensors: tuple[str, ...]
    indexes: tuple[Any, ...] | None = None

    def moved(self, ends: Sequence[int], horizon: int) -> Labels:
        """Labels of the steps after each series' end."""
        if self.indexes is None:
            return self
        pairs = zip(self.indexes, ends, strict=True)
        return self._replace(indexes=tuple(later(index[:end], horizon) for index, end in pairs))


def is_table(value: Any) -> bool:
    """Whether a value has named columns."""
    return all(hasattr(value, name) for name in ("columns", "index", "to_numpy"))


def _tables(value: Any) -> list[Any] | None:
    """One table or several as a list; ``None`` if it is something else."""
    if is_table(value):
        return [value]
    some = isinstance(value, list | tuple) and len(value) > 0 and all(map(is_table, value))
    return list(value) if some else None


def from_tables(
    where: str, x: Any, lengths: Any, sensors: Sequence[str] | None
) -> tuple[Any, Any, Labels | None]:
    """Return data ``(T, B, E)`` and lengths of one table, a series, or of a list of them.

    Columns are matched to ``sensors`` by name; one that is missing was not observed.

    :returns: x and lengths as they came, and ``None``, where x is no table.
    :raises ValueError: if a column is no sensor of the model, or lengths are given too.
    """
    tables = _tables(x)
    if tables is None:
        return x, lengths, None if sensors is None else Labels(tuple(sensors))
    names = tuple(map(str, tables[0].columns)) if sensors is None else tuple(sensors)
    for table in tables:
        columns = list(map(str, table.columns))
        twice = sorted({name for name in columns if columns.count(name) > 1})
        unknown = [name for name in columns if name not in names]
        if twice or unknown:
            raise ValueError(
                f"{where}: the table has "
                + (f"{twice} twice" if twice else f"the columns {unknown}")
                + f", expected some of {list(names)}, once each; write x[model.sensors]."
            )
    if lengths is not None and len(tables) == 1 and is_table(x):
        lengths = None if list(lengths) == [len(x)] else lengths
    if lengths is not None:
        raise ValueError(
            f"{where}: lengths were given beside tables, expected none: a table is as long as it "
            "is; write [table.iloc[:n] for table, n in zip(tables, lengths)]."
        )
    return *_stacked(tables, names), Labels(names, tuple(table.index for table in tables))


def _stacked(tables: list[Any], names: tuple[str, ...]) -> tuple[Any, Any]:
    rows = [len(table) for table in tables]
    values = np.full((max(rows), len(tables), len(names)), np.nan)
    for b, table in enumerate(tables):
        places = [names.index(str(name)) for name in table.columns]
        values[: len(table), b, places] = table.to_numpy(dtype=float)
    return values, None if len(set(rows)) == 1 else rows


def inputs_from_tables(inputs: Any) -> Any:
    """Inputs ``(T, B, U)``, 0 past the end of shorter ones, of tables; else as they came."""
    tables = _tables(inputs)
    if tables is None:
        return inputs
    rows = max(len(table) for table in tables)
    values = np.zeros((rows, len(tables), len(tables[0].columns)))
    for b, table in enumerate(tables):
        values[: len(table), b] = table[tables[0].columns].to_numpy(dtype=float)
    return values[:, 0] if len(tables) == 1 else values


def later(index: Any, horizon: int) -> Any:
    """Return the index of the next steps, as far apart as the last two."""
    if len(index) < 2:
        return list(range(len(index), len(index) + horizon))
    step = index[-1] - index[-2]
    return [index[-1] + (k + 1) * step for k in range(horizon)]


def to_tables(
    columns: Callable[[int, int], dict[Any, Tensor]], labels: Labels, num_steps: int, B: int
) -> Any:
    """Return a DataFrame, or one for each of several series.

    :param columns: returns the columns of a series ``b`` up to a step, by name.
    """
    import pandas as pd

    tables = []
    for b in range(B):
        index = range(num_steps) if labels.indexes is None else labels.indexes[b]
        values = columns(b, len(index))
        named = {name: value.detach().cpu().numpy() for name, value in values.items()}
        tables.append(pd.DataFrame(named, index=pd.Index(index)))
    return tables[0] if B == 1 else tables


def unnamed(num_sensors: int) -> tuple[str, ...]:
    """Names of sensors that have none."""
    return tuple(f"sensor {e}" for e in range(num_sensors))


def as_numbers(value: Any) -> Any:
    """Tables as arrays, for a digest of data."""
    tables = _tables(value)
    if tables is None:
        return value
    return [np.array(table.to_numpy(dtype=float)) for table in tables]
