"""Beijing PM2.5: fine dust and weather, hour by hour, 2010 to 2014.

*Reference*: Liang, Zou, Guo, Li, Zhang, Zhang, Huang, Chen, "Assessing Beijing's PM2.5 pollution",
Proc. Royal Society A 471, 2015. UCI data set 381.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from .files import as_path, find_file, number_of, open_text
from .series import TimeSeries

__all__ = ["PM25_VARIABLES", "load_beijing_pm25"]

_MEASURED = ("pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir")
_WINDS = ("NE", "NW", "SE", "cv")

#: Columns of what :func:`load_beijing_pm25` returns: dust in µg/m³, dew point and temperature in
#: °C, pressure in hPa, cumulated wind speed in m/s, cumulated hours of snow and of rain; and the
#: wind's direction, 1 in one of four columns ("cv": calm or variable).
PM25_VARIABLES = (*_MEASURED, *(f"cbwd {wind}" for wind in _WINDS))


def load_beijing_pm25(path: str | os.PathLike[str]) -> TimeSeries:
    """Read the Beijing PM2.5 data (Liang et al. 2015) from disk.

    43,824 hours without a gap, in one piece; 2,067 have no PM2.5 and are NaN there. The target is
    PM2.5, and all columns are inputs, PM2.5 itself included. The wind's direction takes four
    columns, as in public code that compares on these data.

    :param path: ``PRSA_data_2010.1.1-2014.12.31.csv``, plain or ``.gz`` or ``.xz``, or its folder.
    :raises FileNotFoundError: if there is no such file, or it is not clear which one is meant.
    :raises ValueError: if the file is another one, an hour is missing, or it is damaged.

    **Example**::

        >>> import pathlib, tempfile
        >>> from pyro_ssl.datasets import load_beijing_pm25
        >>> text = "No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir\\n"
        >>> text += "1,2010,1,1,0,NA,-21,-11,1021,NW,1.79,0,0\\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "PRSA_data_2010.1.1-2014.12.31.csv")
        ...     _ = file.write_text(text)
        ...     series = load_beijing_pm25(folder)
        >>> series.targets, series.pieces[0][:, :4]
        (('pm2.5',), tensor([[  nan,  -21.,  -11., 1021.]]))
    """
    caller = "load_beijing_pm25"
    file = find_file(
        as_path(path, caller),
        ["PRSA_data_2010.1.1-2014.12.31.csv", "beijing_pm25/PRSA_data_2010.1.1-2014.12.31.csv"],
        caller,
        "Expected PRSA_data_2010.1.1-2014.12.31.csv of UCI's data set 381, plain or .gz or .xz, or "
        "its folder. Write load_beijing_pm25('path/to/PRSA_data_2010.1.1-2014.12.31.csv').",
    )
    with open_text(file, (".csv",), caller, 2**22) as lines:
        rows = list(_rows(lines, file))
    if not rows:
        raise ValueError(f"{caller}: found no row in {file}, line 2; expected one for each hour.")
    values = torch.tensor(rows, device="cpu", dtype=torch.get_default_dtype())
    return TimeSeries(
        "Beijing PM2.5", PM25_VARIABLES, (values,), PM25_VARIABLES, ("pm2.5",), "µg/m³"
    )


def _rows(lines: Iterator[str], file: Path) -> Iterator[list[float]]:
    names = next(lines, "").strip().split(",")
    wanted = ("No", *_MEASURED, "cbwd")
    if wrong := [name for name in wanted if names.count(name) != 1]:
        found = "twice the column" if wrong[0] in names else "no column"
        raise ValueError(
            f"load_beijing_pm25: found {found} {wrong[0]!r} in {file}, line 1; expected the first "
            "line 'No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir'."
        )
    places = [names.index(name) for name in wanted]
    hour = 0
    for number, line in enumerate(lines, start=2):
        if line.isspace():
            continue
        hour += 1
        try:
            # Each line by itself: a stray quote must not swallow those after it.
            (cells,) = csv.reader([line], strict=True)
            if len(cells) != len(names):
                raise ValueError(f"{len(cells)} cells")
            yield _row([cells[place] for place in places], hour)
        except (csv.Error, ValueError) as error:
            raise ValueError(
                f"load_beijing_pm25: found {error} in {file}, line {number}, hour {hour}; expected "
                f"its number, numbers or NA, and a wind out of {', '.join(_WINDS)}: {len(names)} "
                "cells in all. Is the file damaged?"
            ) from error


def _row(cells: list[str], hour: int) -> list[float]:
    position, *measured, wind = cells
    if number_of(position) != hour:
        raise ValueError(f"No {position}")
    if wind not in _WINDS:
        raise ValueError(f"cbwd {wind}")
    values = [float("nan") if cell == "NA" else number_of(cell) for cell in measured]
    return values + [float(wind == name) for name in _WINDS]
