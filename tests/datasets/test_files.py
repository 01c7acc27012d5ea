import gzip
import lzma
from pathlib import Path

import pytest

from pyro_ssl.datasets.files import (
    check_limit,
    check_split,
    find_file,
    named_for_other_split,
    open_text,
)


def find(path, patterns=("a.txt", "sub/b.txt"), **more):
    return find_file(path, patterns, "load_it", "Write load_it(file).", **more)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "sub/b.txt.gz"])
def test_find_file(tmp_path, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / name).touch()
    assert find(tmp_path) == find(tmp_path / name) == tmp_path / name


def test_find_file_by_split(tmp_path):
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).touch()
    assert find(tmp_path, ["*.txt"], split="test") == tmp_path / "test.txt"
    with pytest.raises(FileNotFoundError, match="found test.txt, train.txt, expected one of them"):
        find(tmp_path, ["*.txt"], split="valid")


def test_find_file_errors_teach(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder\. Write load_it\(file\)"):
        find(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="found no such file there"):
        find(tmp_path)
    for name in ("a.txt", "a.txt.gz"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match="a.txt, a.txt.gz, .*write its own path"):
        find(tmp_path)


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_open_text(tmp_path, suffix, opener):
    path = tmp_path / f"a.txt{suffix}"
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("été\r\n\N{LINE SEPARATOR}two\n")
    with open_text(path, [".txt"], "load_it") as lines:
        assert list(lines) == ["été\n", "\N{LINE SEPARATOR}two\n"]


def damaged(path):
    whole = {".gz": gzip.compress, ".xz": lzma.compress}[path.suffix](bytes(range(256)) * 99)
    return {"cut": whole[:-20], "other": b"plain text", "latin": b"\xe9"}


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("how", ["cut", "other", "latin"])
def test_damaged_files(tmp_path, suffix, how):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(damaged(path)[how])
    with pytest.raises(ValueError, match="load_it: found .* expected a whole file of UTF-8 text"):
        with open_text(path, [".txt"], "load_it") as lines:
            list(lines)


def test_text_of_another_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xe9t\xe9")
    with pytest.raises(ValueError, match="expected a whole file of UTF-8 text"):
        with open_text(tmp_path / "a.txt", [".txt"], "load_it") as lines:
            list(lines)


def test_other_endings():
    with pytest.raises(ValueError, match=r"found a.csv, expected .* ends in .txt, .tokens, .gz or"):
        with open_text(Path("a.csv"), [".txt", ".tokens"], "load_it"):
            pass


def test_splits_and_limits():
    splits = ("train", "valid", "test")
    check_split("valid", splits, "load_it")
    with pytest.raises(ValueError, match="found split='dev', expected 'train', 'valid' or 'test'"):
        check_split("dev", splits, "load_it")
    check_limit(None, "load_it")
    check_limit(1, "load_it")
    with pytest.raises(ValueError, match="load_it: found most=0, expected 1 or more, or None"):
        check_limit(0, "load_it", "most")
    assert named_for_other_split(Path("test/wiki.valid.tokens"), "train", splits) == "valid"
    assert named_for_other_split(Path("wiki.valid.tokens"), "valid", splits) is None
    assert named_for_other_split(Path("tokens.txt"), "valid", splits) is None
