"""Data sets as they come from disks and from users: what is damaged is told with file and line.

Each fault of the tables below gives a named error, or the result that stands beside it; the files,
the global generators and Pyro's store are as they were. Nothing is random, so no alarm is false.
"""

import gzip
import itertools
import json
import lzma
import re
import zlib

import numpy as np
import pytest
import torch

from pyro_ssl.datasets import (
    MSNBC_CATEGORIES,
    UNKNOWN,
    PlantedTransition,
    TextBatch,
    TimeSeries,
    Vocabulary,
    Windows,
    batchify,
    imdb_continuation,
    imdb_prefix_split,
    load_beijing_pm25,
    load_imdb,
    load_msnbc,
    load_python_docs,
    load_sml2010,
    load_wikitext2,
    make_windows,
    msnbc_sequences,
    noisy_curve,
    noisy_rotation,
    planted_memory,
    planted_variables,
    split_passages,
    wikitext2_passages,
)
from tests.faults.digest import nothing_changes

NAN, INF = float("nan"), float("inf")

# ------------------------------------------------------------------------- a good file of each


def review(**changes):
    row = {"id": 7, "label": "pos", "rating": 9, "text": "Fine.<br />See it."} | changes
    return json.dumps({key: value for key, value in row.items() if value is not ...})


SML_HEAD = "# 1:Date 2:Time " + " ".join(f"{i}:Sensor_{i}" for i in range(3, 25))
PM_HEAD = "No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir"


def sml_row(*cells, number=0):
    numbers = [str(i + number) for i in range(3, 25)]
    return " ".join(["13/03/2012", "11:45", *(cells or numbers)])


def pm_row(hour=1, pm="129", wind="NW", end="1.79,0,0"):
    return f"{hour},2010,1,1,{hour},{pm},-21,-11,1021,{wind},{end}"


# Of each loader: the name of the file that is spoiled, its good lines, and the call.
LOADERS = {
    "load_imdb": ("train.jsonl", [review(id=i) for i in range(40)], load_imdb),
    "load_wikitext2": (
        "wiki.train.tokens",
        ["", " = Ada = ", "", *[f" She wrote {i} <unk> . " for i in range(40)], ""],
        load_wikitext2,
    ),
    "load_msnbc": (
        "msnbc990928.seq",
        [*MSNBC_CATEGORIES, "% Sequences:", "", *[f"{i % 17 + 1} 1 2 " for i in range(40)]],
        load_msnbc,
    ),
    "load_beijing_pm25": (
        "PRSA_data_2010.1.1-2014.12.31.csv",
        [PM_HEAD, *[pm_row(hour) for hour in range(1, 41)]],
        load_beijing_pm25,
    ),
    "load_sml2010": (
        "NEW-DATA-2.T15.txt",
        [SML_HEAD, *[sml_row(number=i) for i in range(40)]],
        load_sml2010,
    ),
}


def write(folder, loader, content=None, suffix=""):
    """Write a data set, one file of it as given; return that file."""
    name, lines, _ = LOADERS[loader]
    good = "".join(f"{line}\n" for line in lines).encode()
    if loader == "load_sml2010":
        (folder / "NEW-DATA-1.T15.txt").write_bytes(good)
    file = folder / f"{name}{suffix}"
    file.write_bytes(good if content is None else content)
    return file


def told(folder, file, load, message, line=None, error=ValueError):
    """The error names file and line, and nothing has changed."""
    with nothing_changes(folder), pytest.raises(error) as caught:
        load(folder)
    text = str(caught.value)
    assert file.name in text
    assert re.search(message, text), text
    assert "expected" in text
    assert re.search(r"\bline \d+" if line is None else rf"\bline {line}\b", text), text
    assert len(text) < 1200


# ------------------------------------------------------------------ packaging and encoding


def flipped(content):
    bits = bytearray(content)
    bits[len(bits) // 2] ^= 4
    return bytes(bits)


def with_line(good, spoiled, place=10):
    lines = good.split(b"\n")
    return b"\n".join([*lines[:place], spoiled, *lines[place:]])


LONG = b"1 " * 2**22

# What becomes of the bytes of a good text, the ending of the file's name, and what is told.
PACKAGING = {
    "gz, cut": (lambda t: gzip.compress(t)[:-12], ".gz", "EOFError"),
    "gz, cut in its head": (lambda t: gzip.compress(t)[:5], ".gz", "EOFError|BadGzipFile"),
    "gz, without its sum": (lambda t: gzip.compress(t)[:-8], ".gz", "EOFError"),
    "gz, another sum": (lambda t: gzip.compress(t)[:-8] + b"\0" * 8, ".gz", "BadGzipFile"),
    "gz, a bit flipped": (lambda t: flipped(gzip.compress(t)), ".gz", "Gzip|error|Decode|EOF"),
    "gz, more after it": (lambda t: gzip.compress(t) + b"more", ".gz", "BadGzipFile"),
    "gz, not packed": (lambda t: t, ".gz", "BadGzipFile"),
    "gz, of a zip": (lambda t: b"PK\3\4" + t, ".gz", "BadGzipFile"),
    "gz, only zlib": (lambda t: zlib.compress(t), ".gz", "BadGzipFile"),
    "gz, a long line": (lambda t: gzip.compress(with_line(t, LONG)), ".gz", "too much text"),
    "gz, packed twice": (lambda t: gzip.compress(gzip.compress(t)), ".gz", "Decode|hole"),
    "xz, cut": (lambda t: lzma.compress(t)[:-12], ".xz", "EOFError"),
    "xz, cut in its head": (lambda t: lzma.compress(t)[:5], ".xz", "EOFError"),
    "xz, a bit flipped": (lambda t: flipped(lzma.compress(t)), ".xz", "LZMAError"),
    "xz, more after it": (lambda t: lzma.compress(t) + b"more", ".xz", "LZMAError|EOFError"),
    "xz, not packed": (lambda t: t, ".xz", "LZMAError"),
    "xz, of a gz": (lambda t: gzip.compress(t), ".xz", "LZMAError"),
    "xz, a long line": (lambda t: lzma.compress(with_line(t, LONG)), ".xz", "too much text"),
    "a long line": (lambda t: with_line(t, LONG), "", "too much text"),
    "latin-1": (lambda t: with_line(t, b"\xe9t\xe9"), "", "UnicodeDecodeError"),
    "half a character": (lambda t: with_line(t, b"\xe2\x82"), "", "UnicodeDecodeError"),
    "utf-16": (lambda t: t.decode().encode("utf-16"), "", "UnicodeDecodeError"),
    "utf-16 without a mark": (lambda t: t.decode().encode("utf-16-le"), "", "hole"),
    "surrogates": (lambda t: with_line(t, b"\xed\xa0\x80"), "", "UnicodeDecodeError"),
    "a hole": (lambda t: with_line(t, b"\0" * 512), "", "hole"),
    "zeros": (lambda t: b"\0" * len(t), "", "hole"),
}


@pytest.mark.stage("system")
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", PACKAGING)
def test_packaging(tmp_path, loader, fault):
    spoil, suffix, message = PACKAGING[fault]
    content = spoil(write(tmp_path, loader).read_bytes())
    write(tmp_path, loader).unlink()
    file = write(tmp_path, loader, content, suffix)
    is_put_in = fault in ("latin-1", "half a character", "surrogates", "a hole") or "line" in fault
    told(tmp_path, file, LOADERS[loader][2], message, line=11 if is_put_in else None)


@pytest.mark.parametrize(
    "loader, suffix",
    [
        *itertools.product([*LOADERS][1:], (".gz", ".xz")),
        ("load_imdb", ".gz"),  # eight times as much
        pytest.param("load_imdb", ".xz", marks=pytest.mark.stage("nightly")),
    ],
)
def test_a_bomb_is_bounded(tmp_path, loader, suffix):
    """A few kilobytes that unpack to more lines than the published file has."""
    lines = {"load_msnbc": b"1 1 1 1 1 1 1\n", "load_imdb": review().encode() + b"\n"}
    filler = lines.get(loader, b"She wrote <unk> . \n" if "wiki" in loader else b" \n")
    good = write(tmp_path, loader)
    size = 2**27 if loader == "load_imdb" else 2**24
    pack = {".gz": gzip.compress, ".xz": lambda t: lzma.compress(t, preset=0)}[suffix]
    bomb = pack(good.read_bytes() + filler * (size // len(filler)))
    good.unlink()
    file = write(tmp_path, loader, bomb, suffix)
    assert file.stat().st_size < size / 50
    told(tmp_path, file, LOADERS[loader][2], "too much text")


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "change",
    [
        lambda t: b"\xef\xbb\xbf" + t,
        lambda t: t.replace(b"\n", b"\r\n"),
        lambda t: t if b"She" in t else t.removesuffix(b"\n"),
        lambda t: t + b"\n" * (b"She" not in t),
    ],
    ids=["a byte order mark", "carriage returns", "no last line feed", "a blank line at the end"],
)
def test_harmless(tmp_path, loader, change):
    load = LOADERS[loader][2]
    file = write(tmp_path, loader)
    before = load(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    after = load(tmp_path)
    if isinstance(before, TimeSeries):
        assert all(a.equal(b) for a, b in zip(before.pieces, after.pieces, strict=True))
    else:
        assert after == before


# ------------------------------------------------------------------------------------ content

PM_TOLD = "expected its number, numbers or NA, and a wind out of NE, NW, SE, cv: 13 cells in all"
IMDB_TOLD = "expected a JSON object with the keys id, label, rating, text"
SML_TOLD = "expected a date, a time and 22 numbers"

# Of each loader: lines in place of some of the good ones (all, where the first is 1), the number of
# the line that is told, and what is told.
LINES = {
    "load_imdb": [
        (5, "not json", 5, IMDB_TOLD),
        (5, review()[:20], 5, "JSONDecodeError.*" + IMDB_TOLD),
        (5, review() + review(), 5, "Extra data.*" + IMDB_TOLD),
        (5, "[1]", 5, IMDB_TOLD),
        (5, "null", 5, IMDB_TOLD),
        (5, '"text"', 5, IMDB_TOLD),
        (5, "[" * 100_000, 5, "RecursionError.*" + IMDB_TOLD),
        (5, '{"id": ' + "9" * 5000, 5, "digits"),
        (5, review(id=...), 5, r"KeyError\('id'\)"),
        (5, review(label=...), 5, r"KeyError\('label'\)"),
        (5, review(rating=...), 5, r"KeyError\('rating'\)"),
        (5, review(text=...), 5, r"KeyError\('text'\)"),
        (5, review(label="positive"), 5, "label 'positive'"),
        (5, review(label=None), 5, "label None"),
        (5, review(label=["pos"]), 5, "label"),
        (5, review(rating="9"), 5, "rating='9', expected a number"),
        (5, review(rating=0), 5, "rating 0"),
        (5, review(rating=11), 5, "rating 11"),
        (5, review(rating=7.5), 5, "rating=7.5, expected a whole number"),
        (5, review(rating=NAN), 5, "rating=nan"),
        (5, review(rating=True), 5, "rating=True"),
        (5, review(id=-1), 5, "id=-1"),
        (5, review(id=None), 5, "id=None"),
        (5, review(text=None), 5, "TypeError"),
        (5, review(text=["a"]), 5, "TypeError"),
    ],
    "load_msnbc": [
        (25, "1 0 2", 25, "category '0'"),
        (25, "1 18", 25, "category '18'"),
        (25, "x", 25, "category 'x'"),
        (25, "1.0", 25, "category '1.0'"),
        (25, "-1", 25, "category '-1'"),
        (25, "\uff11", 25, "category"),
        (25, "1,2,3", 25, "category '1,2,3'"),
    ],
    "load_beijing_pm25": [
        (7, pm_row(6)[:20], 7, "7 cells.*" + PM_TOLD),
        (7, pm_row(6) + pm_row(7), 7, "25 cells"),
        (7, pm_row(7), 7, "No 7"),
        (7, pm_row(5), 7, "No 5"),
        (7, pm_row(6, pm="nan"), 7, "'nan'"),
        (7, pm_row(6, pm="inf"), 7, "'inf'"),
        (7, pm_row(6, pm="1e99"), 7, "'1e99'"),
        (7, pm_row(6, pm="1_000"), 7, "'1_000'"),
        (7, pm_row(6, pm="0x1f"), 7, "'0x1f'"),
        (7, pm_row(6, pm="\uff11"), 7, "\uff11"),
        (7, pm_row(6, pm=""), 7, "''"),
        (7, pm_row(6, pm="?"), 7, r"'\?'"),
        (7, pm_row(6, pm="-"), 7, "'-'"),
        (7, pm_row(6, pm="1 2"), 7, "'1 2'"),
        (7, pm_row(6, wind="N"), 7, "cbwd N"),
        (7, pm_row(6, wind=""), 7, "cbwd "),
        (7, pm_row(6, wind='"NW'), 7, "end of data"),
        (7, pm_row(6).replace(",", ";"), 7, "1 cells"),
        (7, pm_row(6, end="1,79,0,0"), 7, "14 cells"),
        (7, pm_row(6).replace(",0,", ",0\r,"), 7, "new-line|cells|number"),
        (1, PM_HEAD.replace("pm2.5", "pm_US"), 1, "no column 'pm2.5'"),
        (1, PM_HEAD.replace("DEWP", "TEMP"), 1, "no column 'DEWP'"),
        (1, PM_HEAD.replace("day", "TEMP"), 1, "twice the column 'TEMP'"),
        (1, PM_HEAD.replace(",", ";"), 1, "no column 'No'"),
        (1, pm_row(1), 1, "no column 'No'"),
    ],
    "load_sml2010": [
        (7, sml_row()[:40], 7, "cells.*" + SML_TOLD),
        (7, sml_row() + " " + sml_row(), 7, "48 cells"),
        (7, sml_row() + " 1", 7, "25 cells"),
        (7, sml_row(*["1"] * 21, "nan"), 7, "'nan'"),
        (7, sml_row(*["1"] * 21, "-inf"), 7, "'-inf'"),
        (7, sml_row(*["1"] * 21, "1e400"), 7, "'1e400'"),
        (7, sml_row(*["1"] * 21, "1,5"), 7, "'1,5'"),
        (7, sml_row(*["1"] * 21, "?"), 7, r"'\?'"),
        (7, sml_row(*["1"] * 21, "1_0"), 7, "'1_0'"),
        (1, SML_HEAD.replace("7:Sensor_7", "7"), 1, "another head"),
        (1, SML_HEAD.replace("7:Sensor_7 ", ""), 1, "another head"),
        (1, SML_HEAD.replace("7:Sensor_7", "7:Sensor_8"), 1, "a name twice"),
        (1, sml_row(), 1, "another head"),
    ],
}
CASES = [(loader, *case) for loader, cases in LINES.items() for case in cases]


@pytest.mark.parametrize(
    ("loader", "place", "line", "number", "message"),
    CASES,
    ids=[f"{loader}-{i}" for i, (loader, *_) in enumerate(CASES)],
)
def test_a_line(tmp_path, loader, place, line, number, message):
    lines = list(LOADERS[loader][1])
    lines[place - 1] = line
    file = write(tmp_path, loader, "".join(f"{line}\n" for line in lines).encode())
    told(tmp_path, file, LOADERS[loader][2], message, number)


@pytest.mark.parametrize(
    ("loader", "content", "message"),
    [
        ("load_imdb", "", "found no review of the 'train' split"),
        ("load_imdb", "\n\n", "found no review of the 'train' split"),
        ("load_imdb", review(split="test"), "found no review of the 'train' split"),
        ("load_wikitext2", "", "found no line '= Title ='"),
        ("load_wikitext2", " = Ada = \n words \n", "found no line '= Title ='"),
        ("load_msnbc", "", "found another head"),
        ("load_msnbc", " ".join(MSNBC_CATEGORIES), "found no sequence"),
        ("load_msnbc", "\n".join([*MSNBC_CATEGORIES, "% Sequences:"]), "found no sequence"),
        ("load_msnbc", "\n".join([*MSNBC_CATEGORIES[::-1], "% Seq"]), "found another head"),
        ("load_beijing_pm25", "", "found no column 'No'"),
        ("load_beijing_pm25", PM_HEAD, "found no row"),
        ("load_beijing_pm25", f"{PM_HEAD}\n\n\n", "found no row"),
        ("load_sml2010", "", "found another head"),
        ("load_sml2010", SML_HEAD, "found no row"),
    ],
)
def test_a_file_without_data(tmp_path, loader, content, message):
    file = write(tmp_path, loader, content.encode())
    with nothing_changes(tmp_path), pytest.raises(ValueError, match=message) as caught:
        LOADERS[loader][2](tmp_path)
    assert file.name in str(caught.value)


def folders(root, name="0_9.txt", content=b"Good"):
    """Reviews as they are published, one of them as given."""
    for label in ("neg", "pos"):
        (root / "train" / label).mkdir(parents=True)
        (root / "train" / label / "1_5.txt").write_text("Fair")
    file = root / "train" / "pos" / name
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0_9.txt", b"Fine.\n\xe9t\xe9", "UnicodeDecodeError.*line 2"),
        ("0_9.txt", "été".encode("utf-16"), "UnicodeDecodeError.*line 1"),
        ("0_9.txt", b"\0\0\0", "hole.*line 1"),
        ("0_9.txt", b"a " * 2**22, "too much text.*line 1"),
        ("0_9.txt", b"a\n" * 2**22, "too much text.*line "),
        ("0_0.txt", b"Good", "a rating in"),
        ("0_11.txt", b"Good", "a rating in"),
        ("0_9.txt", None, "a folder in"),
    ],
    ids=["latin-1", "utf-16", "hole", "line", "lines", "rating 0", "rating 11", "folder"],
)
def test_a_review_in_a_file_of_its_own(tmp_path, name, content, message):
    file = folders(tmp_path, name, content)
    with nothing_changes(tmp_path), pytest.raises(ValueError, match=message) as caught:
        load_imdb(tmp_path)
    assert f"pos/{file.name}" in str(caught.value)


def test_folders_without_a_review(tmp_path):
    folders(tmp_path, "notes.txt")
    for file in tmp_path.rglob("1_5.txt"):
        file.unlink()
    with nothing_changes(tmp_path), pytest.raises(ValueError, match="found no review of the"):
        load_imdb(tmp_path)


# ---------------------------------------------------------------------------------- arguments

EVERY = {
    **{name: (call, name) for name, (_, _, call) in LOADERS.items()},
    "imdb_prefix_split": (imdb_prefix_split, "load_imdb"),
    "imdb_continuation": (imdb_continuation, "load_imdb"),
    "wikitext2_passages": (wikitext2_passages, "load_wikitext2"),
    "msnbc_sequences": (msnbc_sequences, "load_msnbc"),
}


@pytest.mark.parametrize("call", EVERY)
@pytest.mark.parametrize("path", [None, 3, 1.5, b"bytes", ["list"]])
def test_no_path(tmp_path, call, path):
    with nothing_changes(tmp_path), pytest.raises(TypeError, match=r"expected a path\. Write load"):
        EVERY[call][0](path)


@pytest.mark.parametrize("call", EVERY)
@pytest.mark.parametrize("place", ["nowhere", "pipe", "file.csv"])
def test_no_such_data(tmp_path, call, place):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file.csv").write_text("a,b")
    with nothing_changes(), pytest.raises((FileNotFoundError, ValueError)) as caught:
        EVERY[call][0](tmp_path / place)
    assert EVERY[call][1] in str(caught.value)


WHOLE = "expected a whole number|expected a number"
NUMBERS = {
    "load_imdb": ["limit"],
    "load_wikitext2": ["limit"],
    "load_msnbc": ["limit", "min_len", "max_len"],
    "imdb_prefix_split": ["num_reviews", "length", "train_length", "vocab_size", "seed"],
    "imdb_continuation": ["num_reviews", "num_valid", "max_test", "length", "seed"],
    "wikitext2_passages": ["num_train_tokens", "passage_length", "min_length", "max_valid"],
    "msnbc_sequences": ["num_train", "num_valid", "num_test", "min_len", "max_len", "seed"],
}
SMALL = {
    "imdb_prefix_split": {"num_reviews": 2, "length": 3, "train_length": 2, "vocab_size": 9},
    "imdb_continuation": {
        **{"num_reviews": 2, "num_valid": 1, "length": 3, "train_length": 2, "vocab_size": 9},
    },
    "wikitext2_passages": {"passage_length": 10, "min_length": 2},
    "msnbc_sequences": {"num_train": 3, "num_valid": 2, "num_test": 2, "min_len": 1},
}


@pytest.fixture
def every_data(tmp_path):
    for loader in LOADERS:
        write(tmp_path, loader)
    rows = [review(id=i, text=f"some words {chr(97 + i)} of a film") for i in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    for part in ("valid", "test"):
        text = (tmp_path / "wiki.train.tokens").read_bytes()
        (tmp_path / f"wiki.{part}.tokens").write_bytes(text)
    return tmp_path


@pytest.mark.filterwarnings("ignore::pyro_ssl.datasets.UnknownWordsWarning")
@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, names in NUMBERS.items() for name in names]
)
def test_numbers(every_data, call, name):
    load = EVERY[call][0]
    for wrong in (2.5, NAN, INF, "2", [2], True, 1j):
        with nothing_changes(every_data), pytest.raises((TypeError, ValueError), match=WHOLE) as e:
            load(every_data, **SMALL.get(call, {}) | {name: wrong})
        assert name.removeprefix("vocab_") in str(e.value)
    settings = SMALL.get(call, {})
    right = settings.get(name, 50 if name == "num_train_tokens" else 5)
    results = [
        repr(load(every_data, **settings | {name: value}))
        for value in (right, float(right), np.int32(right), torch.tensor(right))
    ]
    assert len(set(results)) == 1


def test_no_columns(every_data):
    for wrong in ([], [2.5], ["a"], [3, 25], [True]):
        with nothing_changes(every_data), pytest.raises((TypeError, ValueError)):
            load_sml2010(every_data, columns=wrong)
    one = load_sml2010(every_data, columns=np.array([5]), target=4.0)
    assert one.names == load_sml2010(every_data, columns=5, target=4).names


@pytest.mark.filterwarnings("ignore::pyro_ssl.datasets.UnknownWordsWarning")
def test_parts_without_a_passage(every_data):
    with nothing_changes(every_data), pytest.raises(ValueError, match="found no passage of 999"):
        wikitext2_passages(every_data, num_train_tokens=None, passage_length=9999, min_length=999)
    with pytest.raises(ValueError, match="found 0 passages"):
        load_python_docs(passage_length=10**7, min_length=10**7)


# --------------------------------------------------------------------------- text and batches

vocabulary = Vocabulary([UNKNOWN, "cat", "dog"])
batch = batchify([["cat", "dog"], ["dog"]], vocabulary)

TEXT = {
    "words that are no strings": (lambda: Vocabulary([UNKNOWN, 3]), "found 3 at id 1"),
    "no words at all": (lambda: Vocabulary([]), r"found \(\) at id 0"),
    "ids in place of words": (lambda: vocabulary.encode([1, 2]), "found 1 among words"),
    "bytes in place of words": (lambda: vocabulary.encode([b"cat"]), "found b'cat' among words"),
    "no word": (lambda: vocabulary.encode([None]), "found None among words"),
    "texts of numbers": (lambda: batchify([[1, 2]], vocabulary), "found 1 among words"),
    "no texts": (lambda: batchify([None], vocabulary), "found None among words"),
    "a number of texts": (lambda: batchify(3, vocabulary), "found 3 among words"),
    "no vocabulary": (lambda: batchify([["cat"]], ["cat"]), "found list, expected a Vocabulary"),
    "max_len": (lambda: batchify([["cat"]], vocabulary, max_len=1.5), "max_len=1.5"),
    "size": (lambda: Vocabulary.build([["cat"]], 2.5), "size=2.5"),
    "size as text": (lambda: Vocabulary.build([["cat"]], "2"), "size='2'"),
    "length": (lambda: split_passages(["cat"], 2.5), "length=2.5"),
    "tokens": (lambda: split_passages([1, 2], 2), "found 1 among words"),
    "an id with a fraction": (lambda: vocabulary.decode([1.7]), "found 1.7, expected whole"),
    "an id below zero": (lambda: vocabulary.decode(torch.tensor([-0.5])), "found -0.5"),
    "an id that is no number": (lambda: vocabulary.decode([NAN]), "found nan"),
    "an id without end": (lambda: vocabulary.decode([INF]), "found inf"),
    "an id beyond int64": (lambda: vocabulary.decode([2**70]), "found 1.18059e"),
    "an id of 2^63": (lambda: vocabulary.decode(np.array([2**63], np.uint64)), "92233720368547758"),
    "a word as an id": (lambda: vocabulary.decode(["cat"]), "expected numbers"),
    "ids of two texts": (lambda: vocabulary.decode([[1], [2]]), r"found ids of shape \(2, 1\)"),
    "bools as ids": (lambda: vocabulary.decode([True]), "found torch.bool"),
    "an id of V": (lambda: vocabulary.decode([3]), "found id 3, expected 0 to 2"),
    "a column of B": (lambda: batch.select([2]), "found 2 to 2, expected -2 to 1"),
    "a column with a fraction": (lambda: batch.select([0.5]), "found 0.5, expected whole"),
    "a mask of another length": (
        lambda: batch.select([True]),
        r"expected places \(N,\), or a bool",
    ),
    "columns in a table": (lambda: batch.select([[0], [1]]), r"shape \(2, 1\)"),
    "symbols with a fraction": (
        lambda: TextBatch(torch.full((2, 1), 1.7), [2], [0], [0]),
        "TextBatch.words: found 1.7",
    ),
    "batch first": (
        lambda: TextBatch(torch.ones(3, 2), [2, 2, 2], [0, 1, 2], [0, 0, 0]),
        "time first",
    ),
    "one text": (lambda: TextBatch([1, 2], [2], [0], [0]), "time first"),
    "complex": (lambda: TextBatch(torch.ones(1, 1) * 1j, [1], [0], [0]), "complex"),
}


@pytest.mark.parametrize("fault", TEXT)
def test_texts(fault):
    call, message = TEXT[fault]
    with nothing_changes(), pytest.raises((TypeError, ValueError, IndexError), match=message):
        call()


# ------------------------------------------------------------------------------- time series


def series(rows, names=("a", "b"), **more):
    return TimeSeries("test", names, rows, **{"inputs": names, "targets": "a"} | more)


ROWS = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
GOOD = series(ROWS)
WINDOWS = make_windows(GOOD, 5, difference=True)


def with_value(value, at=(7, 1)):
    rows = ROWS.clone()
    rows[at] = value
    return rows


SERIES = {
    "an infinite value": (lambda: series(with_value(INF)), "found inf in row 7 of 'b'"),
    "minus infinity": (lambda: series([ROWS, with_value(-INF)]), "piece 1: found -inf in row 7"),
    "overflow": (lambda: series(with_value(1e38) * 1e9), "found (-)?inf"),
    "more columns": (lambda: series(torch.ones(5, 3)), r"shape \(5, 3\), expected \(rows, 2\)"),
    "fewer columns": (lambda: series(torch.ones(5, 1)), r"expected \(rows, 2\)"),
    "one line of two columns": (lambda: series(torch.ones(5)), r"found shape \(5,\)"),
    "a cube": (lambda: series(torch.ones(2, 5, 2)), r"found shape \(2, 5, 2\)"),
    "a number": (lambda: series(3.0), r"found shape \(\)"),
    "ragged rows": (lambda: series(np.array([[1, 2], [3]], dtype=object)), "rows of the same"),
    "words": (lambda: series([["a", "b"], ["c", "d"]]), "expected numbers"),
    "objects": (lambda: series(np.array([[object(), 1]])), "expected numbers"),
    "dates": (lambda: series(np.array([["2012-03-13", "2012-03-14"]], "M8[D]")), "expected numb"),
    "complex": (lambda: series(ROWS * 1j), "complex"),
    "complex arrays": (lambda: series(ROWS.numpy() * 1j), "complex"),
    "no data": (lambda: series(None), "found|shape"),
    "two dtypes": (lambda: series([ROWS.float(), ROWS.double()]), "expected one dtype"),
    "a name twice": (lambda: series(ROWS, ("a", "a")), "every name once"),
    "a name that is none": (lambda: series(ROWS, ("a", 2)), "found the name 2"),
    "no names": (lambda: series(ROWS, None), "found the name None"),
    "no such input": (lambda: make_windows(series(ROWS, inputs="c")), "found no column 'c'"),
    "no such target": (lambda: make_windows(series(ROWS, targets="c")), "found no column 'c'"),
    "no inputs": (lambda: make_windows(series(ROWS, inputs=())), "found no name among inputs"),
    "no targets": (lambda: make_windows(series(ROWS, targets=())), "found no name among inputs"),
    "no rows": (lambda: make_windows(series(torch.ones(0, 2))), "of 0 rows"),
    "no pieces": (lambda: make_windows(series(())), "of 0 rows"),
    "a tensor": (lambda: make_windows(ROWS), "found Tensor, expected a TimeSeries"),
    "an array": (lambda: make_windows(ROWS.numpy()), "found ndarray, expected a TimeSeries"),
    "window, half": (lambda: make_windows(GOOD, 2.5), "window=2.5"),
    "window, none": (lambda: make_windows(GOOD, 0), "expected 1 or more of each"),
    "window, long": (lambda: make_windows(GOOD, 60), "found no window in the training part"),
    "horizon, half": (lambda: make_windows(GOOD, 5, horizon=0.5), "horizon=0.5"),
    "horizon, none": (lambda: make_windows(GOOD, 5, horizon=-1), "expected 1 or more of each"),
    "split, one": (lambda: make_windows(GOOD, 5, split=(0.6,)), "expected two shares"),
    "split, a number": (lambda: make_windows(GOOD, 5, split=0.6), "expected two shares"),
    "split, three": (lambda: make_windows(GOOD, 5, split=(0.6, 0.2, 0.2)), "expected two"),
    "split, nan": (lambda: make_windows(GOOD, 5, split=(NAN, 0.2)), "expected two shares"),
    "split, inf": (lambda: make_windows(GOOD, 5, split=(0.6, INF)), "expected two shares"),
    "split, text": (lambda: make_windows(GOOD, 5, split="ab"), "expected two shares"),
    "split, below": (lambda: make_windows(GOOD, 5, split=(-0.5, 0.9)), "expected two shares"),
    "nothing measured": (
        lambda: make_windows(series(with_value(NAN, (slice(0, 30), 1))), 5),
        "found no value of 'b' in the training part",
    ),
    "no target measured": (
        lambda: make_windows(series(with_value(NAN, (slice(None), 0))), 5),
        "found no value of 'a' in the training part",
    ),
    "a window of M": (lambda: WINDOWS.test.select([10]), "found 10 to 10, expected -10 to 9"),
    "a window with a fraction": (lambda: WINDOWS.test.select([0.5]), "found 0.5, expected whole"),
    "a mask of others": (lambda: WINDOWS.test.select(np.ones(3, bool)), r"bool mask \(10,\)"),
    "fewer targets": (lambda: Windows(torch.ones(4, 3, 2), torch.ones(3)), "expected .M, T, N"),
    "windows of one row": (lambda: Windows(torch.ones(4, 2), torch.ones(4)), "expected .M, T, N"),
    "a mask of windows": (
        lambda: Windows(torch.ones(4, 3, 2), torch.ones(4), torch.ones(4, 3)),
        "expected .M, T, N",
    ),
    "a mask of shares": (
        lambda: Windows(torch.ones(1, 1, 1), torch.ones(1), torch.full((1, 1, 1), 0.5)),
        "found other numbers than 0 and 1",
    ),
    "no last values": (lambda: WINDOWS.scaling.inverse_target(WINDOWS.test.y), "split.test.last"),
    "last of others": (
        lambda: WINDOWS.scaling.inverse_target(WINDOWS.test.y, WINDOWS.train.last),
        r"found last of shape \(25, 1\)",
    ),
    "y of others": (
        lambda: WINDOWS.scaling.inverse_target(torch.ones(3, 2), torch.ones(3, 1)),
        r"found y of shape \(3, 2\)",
    ),
    "changes of no column": (lambda: GOOD.with_changes("c"), "found no column 'c'"),
    "changes twice": (lambda: GOOD.with_changes("a").with_changes("a"), "every name once"),
}


@pytest.mark.parametrize("fault", SERIES)
def test_series(fault):
    call, message = SERIES[fault]
    with nothing_changes(), pytest.raises((TypeError, ValueError, IndexError), match=message):
        call()


# ----------------------------------------------------------------------------- synthetic data

DRAWN = {
    "noisy_curve": (noisy_curve, {"kind": "circle"}, ["num_steps", "num_sequences", "seed"]),
    "noisy_rotation": (noisy_rotation, {"num_steps": 3}, ["num_steps", "num_sequences", "seed"]),
    "planted_memory": (
        planted_memory,
        {"num_sequences": 2, "num_steps": 3},
        ["num_sequences", "num_steps", "num_identities", "num_fillers", "seed"],
    ),
    "planted_variables": (
        planted_variables,
        {"num_rows": 20, "num_variables": 3, "lags": (1,), "weights": (1.0,)},
        ["num_rows", "num_variables", "lags", "seed"],
    ),
}
REALS = {
    "noisy_curve": ["noise"],
    "noisy_rotation": ["angle", "damping", "scale", "noise"],
    "planted_memory": ["cue_probability", "repeat", "noise", "slip", "follow"],
    "planted_variables": ["weights", "noise", "autocorrelation", "shares"],
}


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, (*_, names) in DRAWN.items() for name in names]
)
def test_sizes_of_drawn_data(call, name):
    draw, settings, _ = DRAWN[call]
    for wrong in (2.5, NAN, "2", -7 if name != "seed" else [1, 2], 1j):
        with nothing_changes(), pytest.raises((TypeError, ValueError), match="found") as caught:
            draw(**settings | {name: wrong})
        assert name in str(caught.value) or "identities" in str(caught.value)
    assert draw(**settings | {name: 3.0})[0] is not None


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, names in REALS.items() for name in names]
)
def test_numbers_of_drawn_data(call, name):
    draw, settings, _ = DRAWN[call]
    for wrong in (NAN, INF, "0.5", None if name != "shares" else "x", 1j):
        with nothing_changes(), pytest.raises((TypeError, ValueError), match="found"):
            draw(**settings | {name: wrong})
    assert draw(**settings | {name: np.float32(0.5)})[0] is not None


def test_other_words_than_those_planted():
    data = planted_memory(2, 3)
    for wrong in (torch.tensor([[4]]), torch.tensor([[-1]]), torch.tensor([[0.5]]), ["a"]):
        with nothing_changes(), pytest.raises((TypeError, ValueError), match="log_emission"):
            data.log_emission(wrong)
    assert data.log_emission(data.words.double()).equal(data.log_emission())
    with pytest.raises(ValueError, match="num_identities=2.5"):
        PlantedTransition(2.5, 1)
