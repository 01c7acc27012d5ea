import gzip
import lzma
import os
from pathlib import Path

import pytest

from pyro_ssl.datasets import MSNBC_CATEGORIES, UNKNOWN, Vocabulary, batchify, load_msnbc

# As on file: carriage returns, a space after each number, the names in one line.
HEAD = (
    "% Different categories found in input file:\r\n\r\n"
    f"{' '.join(MSNBC_CATEGORIES)}\r\n\r\n\r\n% Sequences:\r\n\r\n"
)
CODES = [[1, 1], [2], [3, 2, 2, 4], [17], [5, 6, 7, 8, 9]]
SEQUENCES = [[MSNBC_CATEGORIES[code - 1] for code in codes] for codes in CODES]
OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def write(path, codes=CODES, head=HEAD):
    body = "".join("".join(f"{code} " for code in row) + "\r\n" for row in codes)
    with OPENERS.get(path.suffix, open)(path, "wb") as file:
        file.write((head + body).encode())
    return path


@pytest.mark.parametrize("suffix", OPENERS)
def test_packagings(tmp_path, suffix):
    file = write(tmp_path / f"msnbc990928.seq{suffix}")
    assert load_msnbc(file) == load_msnbc(str(tmp_path)) == SEQUENCES


def test_lengths_and_limit(tmp_path):
    write(tmp_path / "msnbc990928.seq")
    assert load_msnbc(tmp_path, min_len=2) == [SEQUENCES[i] for i in (0, 2, 4)]
    assert load_msnbc(tmp_path, min_len=2, max_len=4) == [SEQUENCES[i] for i in (0, 2)]
    assert load_msnbc(tmp_path, max_len=1) == [SEQUENCES[i] for i in (1, 3)]
    assert load_msnbc(tmp_path, min_len=2, limit=2) == [SEQUENCES[i] for i in (0, 2)]
    assert load_msnbc(tmp_path, limit=99) == SEQUENCES


def test_ids_are_the_numbers_on_file(tmp_path):
    write(tmp_path / "msnbc990928.seq")
    batch = batchify(load_msnbc(tmp_path), Vocabulary([UNKNOWN, *MSNBC_CATEGORIES]))
    for column, codes in enumerate(CODES):
        assert batch.words[: len(codes), column].tolist() == codes
    assert batch.num_unknown == 0


class TestErrorsTeach:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"msnbc990928\.seq.*load_msnbc\(fetch_msnbc"):
            load_msnbc(tmp_path)

    @pytest.mark.parametrize(
        "head", ["", HEAD.replace("travel", "trips"), HEAD.replace("% Seq", ""), "x\n" * 200]
    )
    def test_another_file(self, tmp_path, head):
        write(tmp_path / "msnbc990928.seq", head=head)
        with pytest.raises(ValueError, match="found another head"):
            load_msnbc(tmp_path)

    @pytest.mark.parametrize("wrong", [0, 18, "x"])
    def test_categories_that_there_are_not(self, tmp_path, wrong):
        write(tmp_path / "msnbc990928.seq", [*CODES, [1, wrong]])
        message = f"found the category '{wrong}' in .*, line {HEAD.count(chr(10)) + 6};"
        with pytest.raises(ValueError, match=message):
            load_msnbc(tmp_path)

    @pytest.mark.parametrize("lengths", [(0, None), (3, 2), (1, 0)])
    def test_lengths(self, tmp_path, lengths):
        with pytest.raises(ValueError, match="expected 1 <= min_len <= max_len"):
            load_msnbc(tmp_path, min_len=lengths[0], max_len=lengths[1])

    def test_limit(self, tmp_path):
        with pytest.raises(ValueError, match="found limit=0"):
            load_msnbc(tmp_path, limit=0)


def test_published_counts():
    folder = Path(os.environ.get("PYRO_SSL_DATA", "."), "msnbc")
    if not folder.exists():
        pytest.skip("PYRO_SSL_DATA names no folder that holds msnbc")
    lengths = list(map(len, load_msnbc(folder)))
    assert len(lengths) == 989_818
    assert sum(lengths) == 4_698_794
    assert max(lengths) == 14_795
    assert sum(length >= 10 for length in lengths) == 120_038
    assert sum(10 <= length <= 100 for length in lengths) == 119_503
