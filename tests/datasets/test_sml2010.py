import gzip
import lzma
import os
from pathlib import Path

import pytest
import torch

from pyro_ssl.datasets import load_sml2010, make_windows

# As on file: a blank after the first sharp in one file and two in the other.
NAMES = [f"{i}:Sensor_{i}" for i in range(3, 25)]
OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def rows_of(start, count):
    """Column c holds c + 100 × row; 19 to 21 are constant, 10 in the second file alone."""
    rows = torch.arange(3.0, 25.0) + 100.0 * torch.arange(start, start + count)[:, None]
    rows[:, 16:19] = 0.0
    if start:
        rows[:, 7] = 5.0
    return rows


FIRST, SECOND = rows_of(0, 4), rows_of(4, 3)


def write(folder, suffix="", head=("# 1:Date 2:Time", *NAMES), extra=""):
    folder.mkdir(exist_ok=True)
    for number, rows in ((1, FIRST), (2, SECOND)):
        with OPENERS[suffix](folder / f"NEW-DATA-{number}.T15.txt{suffix}", "wt") as file:
            file.write(" ".join(head).replace("#", "# " if number == 1 else "#  ") + " \n")
            for row in rows.tolist():
                file.write("13/03/2012 11:45 " + " ".join(map(str, row)) + "\n")
            file.write(extra)
    return folder


@pytest.mark.parametrize("suffix", OPENERS)
def test_packagings(tmp_path, suffix):
    write(tmp_path / "sml2010", suffix)
    for path in (tmp_path, str(tmp_path / "sml2010")):
        series = load_sml2010(path)
        columns = [*range(3, 17), 22]  # 20 and 21 never change
        assert series.names == series.inputs == tuple(f"Sensor_{c}" for c in columns)
        assert series.targets == ("Sensor_3",)
        for piece, rows in zip(series.pieces, (FIRST, SECOND), strict=True):
            assert torch.equal(piece, rows[:, [c - 3 for c in columns]])


def test_other_columns(tmp_path):
    series = load_sml2010(write(tmp_path), columns=[24, 19, 10], target=23)
    assert series.names == ("Sensor_10", "Sensor_23", "Sensor_24")
    assert series.inputs == ("Sensor_10", "Sensor_24")
    assert series.targets == ("Sensor_23",)
    assert torch.equal(series.pieces[1], SECOND[:, [7, 20, 21]])


class TestErrorsTeach:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"NEW-DATA-1.*load_sml2010\('path/to/sml2010'"):
            load_sml2010(tmp_path)

    def test_one_of_two(self, tmp_path):
        (write(tmp_path) / "NEW-DATA-2.T15.txt").unlink()
        with pytest.raises(FileNotFoundError, match="no such file there"):
            load_sml2010(tmp_path)

    def test_a_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"found a file\. Expected the folder"):
            load_sml2010(write(tmp_path) / "NEW-DATA-1.T15.txt")

    @pytest.mark.parametrize("head", [(), ("# 1:Date 2:Time", *NAMES[1:]), NAMES])
    def test_another_head(self, tmp_path, head):
        with pytest.raises(ValueError, match="found another head"):
            load_sml2010(write(tmp_path, head=head))

    @pytest.mark.parametrize("extra", ["13/03/2012 11:45 1 2 3\n", "a b " + "x " * 22 + "\n"])
    def test_damaged_rows(self, tmp_path, extra):
        with pytest.raises(ValueError, match="line 6; expected a date, a time and 22 numbers"):
            load_sml2010(write(tmp_path, extra=extra))

    @pytest.mark.parametrize("arguments", [{"columns": [3, 2]}, {"target": 25}])
    def test_columns(self, tmp_path, arguments):
        with pytest.raises(ValueError, match="expected numbers from 3 to 24"):
            load_sml2010(write(tmp_path), **arguments)

    def test_constant_target(self, tmp_path):
        with pytest.raises(ValueError, match="the same value in every row of column 19"):
            load_sml2010(write(tmp_path), target=19)


@pytest.fixture(scope="module")
def folder():
    folder = Path(os.environ.get("PYRO_SSL_DATA", "."), "sml2010")
    if not folder.exists():
        pytest.skip("PYRO_SSL_DATA names no folder that holds sml2010")
    return folder


def test_published_counts(folder):
    series = load_sml2010(folder)
    assert [tuple(piece.shape) for piece in series.pieces] == [(2_764, 15), (1_373, 15)]
    assert series.targets == ("Temperature_Comedor_Sensor",)
    assert all(piece.isfinite().all() for piece in series.pieces)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({}, 0.015475), ({"columns": (*range(5, 19), 22, 23, 24), "target": 5}, 0.186103)],
)
def test_persistence(folder, arguments, error):
    split = make_windows(load_sml2010(folder, **arguments), split=(3200, 400), difference=True)
    assert [part.num_windows for part in split[3:6]] == [3_180, 400, 537]
    y = split.scaling.inverse_target(split.test.y, split.test.last)
    assert float((y - split.test.last).square().mean()) == pytest.approx(error, abs=1e-6)
