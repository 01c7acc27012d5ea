import gzip
import lzma
import os
from pathlib import Path

import pytest
import torch

from pyro_ssl.datasets import PM25_VARIABLES, load_beijing_pm25, make_windows

HEAD = "No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir"
ROWS = [
    "1,2010,1,1,0,NA,-21,-11,1021,NW,1.79,0,0",
    "2,2010,1,1,1,129,-16,-4.5,1020,SE,0.89,1,0",
    "3,2010,1,1,2,148,-15,-4,1020,cv,2.68,2,7",
    "4,2010,1,1,3,159,-11,-5,1021,NE,3.57,3,0",
]
VALUES = [
    [float("nan"), -21, -11, 1021, 1.79, 0, 0, 0, 1, 0, 0],
    [129, -16, -4.5, 1020, 0.89, 1, 0, 0, 0, 1, 0],
    [148, -15, -4, 1020, 2.68, 2, 7, 0, 0, 0, 1],
    [159, -11, -5, 1021, 3.57, 3, 0, 1, 0, 0, 0],
]
NAME = "PRSA_data_2010.1.1-2014.12.31.csv"
OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def write(path, rows=ROWS, head=HEAD):
    with OPENERS.get(path.suffix, open)(path, "wt", encoding="utf-8") as file:
        file.write("\n".join([head, *rows]) + "\n")
    return path


@pytest.mark.parametrize("suffix", OPENERS)
def test_packagings(tmp_path, suffix):
    file = write(tmp_path / f"{NAME}{suffix}")
    for path in (file, str(tmp_path)):
        series = load_beijing_pm25(path)
        (values,) = series.pieces
        torch.testing.assert_close(values, torch.tensor(VALUES), equal_nan=True)
    assert series.names == series.inputs == PM25_VARIABLES and len(PM25_VARIABLES) == 11
    assert series.targets == ("pm2.5",) and series.unit == "µg/m³"


class TestErrorsTeach:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"PRSA_data.*load_beijing_pm25\('path/to"):
            load_beijing_pm25(tmp_path)

    def test_another_file(self, tmp_path):
        write(tmp_path / NAME, head=HEAD.replace("pm2.5", "pm_US"))
        with pytest.raises(ValueError, match=r"found no column 'pm2\.5'"):
            load_beijing_pm25(tmp_path)

    def test_no_rows(self, tmp_path):
        write(tmp_path / NAME, [])
        with pytest.raises(ValueError, match="found no row"):
            load_beijing_pm25(tmp_path)

    @pytest.mark.parametrize(
        "row",
        ["6,2010,1,1,4,1,1,1,1,NW,1,1,1", "5,2010,1,1,4,1,x,1,1,NW,1,1,1"]
        + ["5,2010,1,1,4,1,1,1,1,N,1,1,1", "5,2010,1,1,4,1", "", "5,2010,1,1,4,1,,1,1,NW,1,1,1"],
    )
    def test_damaged_rows(self, tmp_path, row):
        write(tmp_path / NAME, [*ROWS, row, "7,2010,1,1,4,1,1,1,1,NW,1,1,1"])
        with pytest.raises(ValueError, match="hour 5; expected its number"):
            load_beijing_pm25(tmp_path)


@pytest.fixture(scope="module")
def published():
    folder = Path(os.environ.get("PYRO_SSL_DATA", "."), "beijing_pm25")
    if not folder.exists():
        pytest.skip("PYRO_SSL_DATA names no folder that holds beijing_pm25")
    return load_beijing_pm25(folder)


def test_published_counts(published):
    (values,) = published.pieces
    assert values.shape == (43_824, 11)
    assert values.isnan().sum(0).tolist() == [2_067] + [0] * 10
    assert torch.equal(values[:, 7:].sum(-1), torch.ones(43_824))


def test_persistence(published):
    """Windows whose target is missing are dropped, so that no made-up value is predicted."""
    split = make_windows(published, difference=True)
    assert [part.num_windows for part in split[3:6]] == [24_408, 8_683, 8_666]
    y = split.scaling.inverse_target(split.test.y, split.test.last)
    assert y.isfinite().all()
    assert float((y - split.test.last).square().mean()) == pytest.approx(489.75, abs=0.01)
