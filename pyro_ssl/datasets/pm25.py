"""Beijing PM2.5: fine dust and weather, hour by hour, 2010 to 2014.

*Reference*: Liang, Zou, Guo, Li, Zhang, Zhang, Huang, Chen, "Assessing Beijing's PM2.5 pollution",
Proc. Royal Society A 471, 2015. UCI data set 381.
"""

import csv
import os
from pathlib import Path

import torch

from pyro_ssl.datasets.files import find_file, open_text
from pyro_ssl.datasets.series import TimeSeries

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
        Path(path),
        ["PRSA_data_2010.1.1-2014.12.31.csv", "beijing_pm25/PRSA_data_2010.1.1-2014.12.31.csv"],
        caller,
        "Expected PRSA_data_2010.1.1-2014.12.31.csv of UCI's data set 381, plain or .gz or .xz, or "
        "its folder. Write load_beijing_pm25('path/to/PRSA_data_2010.1.1-2014.12.31.csv').",
    )
    with open_text(file, (".csv",), caller) as lines:
        reader = csv.DictReader(lines)
        wanted = ("No", *_MEASURED, "cbwd")
        if missing := [name for name in wanted if name not in (reader.fieldnames or ())]:
            raise ValueError(
                f"{caller}: found no column {missing[0]!r} in {file}, expected the first line "
                "'No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir'."
            )
        rows = [_row(record, number, file) for number, record in enumerate(reader, start=1)]
    if not rows:
        raise ValueError(f"{caller}: found no row in {file}, expected one for each hour.")
    values = torch.tensor(rows, device="cpu", dtype=torch.get_default_dtype())
    return TimeSeries(
        "Beijing PM2.5", PM25_VARIABLES, (values,), PM25_VARIABLES, ("pm2.5",), "µg/m³"
    )


def _row(record: dict[str, str], number: int, file: Path) -> list[float]:
    try:
        if int(record["No"]) != number:
            raise ValueError(f"No {record['No']}")
        if record["cbwd"] not in _WINDS:
            raise ValueError(f"cbwd {record['cbwd']}")
        measured = [
            float("nan") if record[name] == "NA" else float(record[name]) for name in _MEASURED
        ]
    except (TypeError, ValueError) as error:  # a TypeError where the line ends too soon
        raise ValueError(
            f"load_beijing_pm25: found {error} in {file}, hour {number}; expected its number, "
            f"numbers or NA, and a wind out of {', '.join(_WINDS)}. Is the file damaged?"
        ) from error
    return measured + [float(record["cbwd"] == wind) for wind in _WINDS]
