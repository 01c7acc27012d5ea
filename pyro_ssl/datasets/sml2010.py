"""SML2010: the climate of a monitored house, every 15 minutes, in March and April 2012.

*Reference*: Zamora-Martínez, Romeu, Botella-Rocamora, Pardo, "On-line learning of indoor
temperature forecasting models towards energy efficiency", Energy and Buildings 83, 2014. UCI data
set 274.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .arguments import integer, several
from .files import as_path, find_file, number_of, open_text
from .series import TimeSeries

__all__ = ["SML2010_COLUMNS", "load_sml2010"]

_FIRST, _LAST = 3, 24  # columns that hold numbers; 1 and 2 are date and time

#: The inputs of :func:`load_sml2010`, by their numbers on file.
SML2010_COLUMNS = (*range(3, 17), *range(20, 23))


def load_sml2010(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[int] = SML2010_COLUMNS,
    target: int = 3,
) -> TimeSeries:
    """Read the SML2010 data (Zamora-Martínez et al. 2014) from disk.

    Two pieces of 2,764 and 1,373 rows, for 6.7 days lie between the two files. Columns that never
    change are left out: 19 to 21 are 0 throughout. So by default there are 15 inputs, and the
    target is one of them: the temperature of the dining room.

    Rows are taken as evenly spaced; two quarter hours are missing in the last night. The weather
    service's temperature (column 5) stands at 15 °C for the four days up to 20 March.

    Published errors of IMV-LSTM on these data come from a reading of the files by which each name
    stands two columns too far left (the ``#`` before the first name counts as one), so that
    the target is the forecast of the weather outdoors: ``columns=(*range(5, 19), 22, 23, 24)`` and
    ``target=5`` are what it saw.

    :param path: The folder of ``NEW-DATA-1.T15.txt`` and ``NEW-DATA-2.T15.txt``, each plain or
        ``.gz`` or ``.xz``.
    :param columns: The inputs, by their numbers on file, 3 to 24.
    :param int target: What to predict, likewise.
    :raises FileNotFoundError: if a file is missing.
    :raises ValueError: if a file is another one or damaged, or there is no such column.

    **Example**::

        >>> import pathlib, tempfile
        >>> from pyro_ssl.datasets import load_sml2010
        >>> head = "# 1:Date 2:Time " + " ".join(f"{i}:Sensor_{i}" for i in range(3, 25))
        >>> row = "13/03/2012 11:45 " + " ".join(str(i) for i in range(3, 24))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in (1, 2):
        ...         text = f"{head}\\n{row} {i}\\n"
        ...         _ = pathlib.Path(folder, f"NEW-DATA-{i}.T15.txt").write_text(text)
        ...     load_sml2010(folder, columns=[3, 24], target=24).pieces
        (tensor([[1.]]), tensor([[2.]]))
    """
    caller = "load_sml2010"
    columns = [integer(column, "column", caller, least=None) for column in several(columns)]
    target = integer(target, "target", caller, least=None)
    if not columns:
        raise ValueError(f"{caller}: found no columns, expected inputs. Write columns=[3, 5].")
    for column in (*columns, target):
        if not _FIRST <= column <= _LAST:
            raise ValueError(
                f"load_sml2010: found the column {column}, expected numbers from {_FIRST} to "
                f"{_LAST}. Write load_sml2010(path, target=3)."
            )
    wanted = sorted({*columns, target})
    folder = as_path(path, caller)
    read = [_read(folder, number) for number in (1, 2)]
    values = torch.cat([rows for _, rows in read])
    varies = (values != values[0]).any(0).tolist()  # a deviation of 0 may round to another number
    kept = [column for column in wanted if varies[column - _FIRST]]
    if target not in kept:
        raise ValueError(
            f"load_sml2010: found the same value in every row of column {target}, expected a "
            "target that changes. Write load_sml2010(path, target=3)."
        )
    names = [read[0][0][column - _FIRST] for column in kept]
    places = [column - _FIRST for column in kept]
    return TimeSeries(
        "SML2010",
        tuple(names),
        tuple(rows[:, places] for _, rows in read),
        tuple(name for name, column in zip(names, kept, strict=True) if column in columns),
        (names[kept.index(target)],),
        "°C",
    )


def _read(path: Path, number: int) -> tuple[list[str], Tensor]:
    """Names and rows of columns 3 to 24 of one file."""
    name, caller = f"NEW-DATA-{number}.T15.txt", "load_sml2010"
    expected = (
        "Expected the folder of NEW-DATA-1.T15.txt and NEW-DATA-2.T15.txt, of UCI's data set 274. "
        "Write load_sml2010('path/to/sml2010')."
    )
    if path.is_file():
        raise FileNotFoundError(f"{caller}({str(path)!r}): found a file. {expected}")
    file = find_file(path, [name, f"sml2010/{name}"], caller, expected)
    with open_text(file, (".txt",), caller, 2**22) as lines:
        head = [column.partition(":") for column in next(lines, "").lstrip("# ").split()]
        numbers, names = [column[0] for column in head], [column[2] for column in head]
        if numbers != [str(i) for i in range(1, _LAST + 1)] or "" in names:
            raise ValueError(
                f"{caller}: found another head in {file}, line 1; expected '# 1:Date 2:Time ... "
                "24:Day_Of_Week'."
            )
        if len(set(names)) < len(names):
            raise ValueError(f"{caller}: found a name twice in {file}, line 1; expected 24 names.")
        rows = [
            _row(line, place, file) for place, line in enumerate(lines, start=2) if line.split()
        ]
    if not rows:
        raise ValueError(
            f"{caller}: found no row in {file}, line 2; expected one for each 15 minutes."
        )
    return names[_FIRST - 1 :], torch.tensor(rows, device="cpu", dtype=torch.get_default_dtype())


def _row(line: str, number: int, file: Path) -> list[float]:
    cells = line.split()
    try:
        if len(cells) != _LAST:
            raise ValueError(f"{len(cells)} cells")
        return [number_of(cell) for cell in cells[_FIRST - 1 :]]
    except ValueError as error:
        raise ValueError(
            f"load_sml2010: found {error} in {file}, line {number}; expected a date, a time and 22 "
            "numbers. Is the file damaged?"
        ) from error
