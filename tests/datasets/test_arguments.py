"""Data as they come: whatever means the same numbers is taken as the same numbers."""

import numpy as np
import pytest
import torch

from pyro_ssl.datasets import (
    UNKNOWN,
    TextBatch,
    TimeSeries,
    Vocabulary,
    Windows,
    batchify,
    make_windows,
    split_passages,
)
from pyro_ssl.datasets.arguments import as_floats, as_ids, as_indices, generator, integer, real

ROWS = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
TABLE = np.array(ROWS)


class Frame:
    """As pandas' own: known by numpy alone."""

    def __len__(self):
        return len(ROWS)

    def __array__(self, dtype=None, copy=None):
        return TABLE.astype(dtype or object)


ARRAYS = {
    "tensor": torch.tensor(ROWS, dtype=torch.float32),
    "integers": torch.tensor(ROWS).long(),
    "lists": ROWS,
    "tuples": tuple(map(tuple, ROWS)),
    "lists of tensors": [torch.tensor(row, dtype=torch.float64) for row in ROWS],
    "lists of arrays": list(TABLE),
    "float64": TABLE,
    "float32": TABLE.astype(np.float32),
    "float16": TABLE.astype(np.float16),
    "bfloat16": torch.tensor(ROWS).bfloat16(),
    "int8": TABLE.astype(np.int8),
    "uint64": TABLE.astype(np.uint64),
    "objects": TABLE.astype(object),
    "big-endian": TABLE.astype(">f8"),
    "columns first": np.asfortranarray(TABLE),
    "backwards": TABLE[::-1].copy()[::-1],
    "read-only": np.broadcast_to(TABLE, (3, 2)),
    "a frame": Frame(),
    "with a gradient": torch.tensor(ROWS, dtype=torch.float32, requires_grad=True),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_floats(kind):
    found = as_floats(ARRAYS[kind], "rows")
    narrow = kind in ("tensor", "with a gradient", "float32", "float16", "bfloat16")
    assert found.dtype == (torch.float32 if narrow else torch.float64)
    assert found.tolist() == ROWS and not found.requires_grad


@pytest.mark.parametrize("kind", ARRAYS)
def test_ids(kind):
    found = as_ids(ARRAYS[kind], "ids")
    assert found.dtype == torch.int64 and found.tolist() == ROWS


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_series(kind):
    rows = [ARRAYS[kind]] if isinstance(ARRAYS[kind], (list, tuple)) else ARRAYS[kind]
    series = TimeSeries("test", ["a", "b"], rows, "a", ["b"])
    (piece,) = series.pieces
    assert piece.tolist() == ROWS
    assert (series.names, series.inputs, series.targets) == (("a", "b"), ("a",), ("b",))


def test_what_numpy_calls_missing_is_nan():
    masked = np.ma.masked_equal(TABLE, 3.0)
    for rows in (masked, [[0.0, 1.0], [2.0, None]], np.ma.masked_equal(TABLE.astype(int), 3)):
        found = as_floats(rows, "rows")
        assert (
            found.isnan().tolist() == [[False, False], [False, True], [False, False]][: len(rows)]
        )


@pytest.mark.parametrize("line", [[1.0, 2.0, 4.0], np.array([1, 2, 4]), torch.tensor([1, 2, 4])])
def test_one_line_is_a_column(line):
    for pieces in (line, [line]):
        series = TimeSeries("test", "a", pieces, "a", "a")
        assert [piece.tolist() for piece in series.pieces] == [[[1.0], [2.0], [4.0]]]
    assert series.with_changes().pieces[0][1:, 1].tolist() == [1.0, 2.0]


def test_two_lines_are_two_pieces():
    series = TimeSeries("test", "a", [[1.0, 2.0], [3.0]], "a", "a")
    assert [piece.tolist() for piece in series.pieces] == [[[1.0], [2.0]], [[3.0]]]


def test_windows_of_an_array():
    rows = np.random.default_rng(0).normal(size=(60, 2))
    split = make_windows(TimeSeries("test", ("a", "b"), rows, ("a", "b"), "a"), np.int64(5))
    chosen = split.test.select(np.array([0, 2]))
    assert torch.equal(chosen.x, split.test.x[[0, 2]])
    mask = np.arange(split.test.num_windows) < 2
    assert torch.equal(split.test.select(mask).y, split.test.y[:2])
    assert torch.equal(split.test.select([-1]).y, split.test.y[-1:])
    y = split.scaling.inverse_target(split.test.y.tolist())
    torch.testing.assert_close(y, split.scaling.inverse_target(split.test.y.numpy()))


def test_windows_of_ones_own():
    x, y = np.zeros((4, 3, 2)), [1, 2, 3, 4]
    windows = Windows(x, y, np.ones((4, 3, 2)), y)
    assert windows.x.dtype == windows.y.dtype == torch.float64
    assert windows.y.tolist() == windows.last.tolist() == [[1.0], [2.0], [3.0], [4.0]]
    assert windows.mask.dtype == torch.bool and bool(windows.mask.all())
    assert windows.select([1, 3]).y.tolist() == [[2.0], [4.0]]


def test_sizes_of_one():
    rows = torch.randn(6, 1)
    split = make_windows(TimeSeries("test", "a", rows, "a", "a"), 1, split=(2, 1))
    assert split.train.x.shape == (1, 1, 1) and split.valid.num_windows == 1
    empty = split.test.select([])
    assert empty.x.shape == (0, 1, 1) and empty.y.shape == (0, 1)


def test_symbols():
    vocabulary = Vocabulary([UNKNOWN, "cat", "dog"])
    for ids in ([1, 2], [1.0, 2.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), range(1, 3)):
        assert vocabulary.decode(ids) == ["cat", "dog"]
    assert vocabulary.decode(np.array([], int)) == vocabulary.decode([]) == []
    words = np.array(["dog", "cow"])
    assert vocabulary.encode(words) == [2, 0]
    assert batchify([words, iter(["cat"])], vocabulary).words.tolist() == [[2, 1], [0, 0]]
    assert split_passages(iter(["a", "b", "c"]), 2.0) == [["a", "b"], ["c"]]
    batch = TextBatch(np.ones((3, 2)), [3.0, 2.0], np.array([0, 1]), torch.zeros(2))
    assert batch.words.dtype == batch.lengths.dtype == batch.kept.dtype == torch.int64
    assert batch.select(np.array([False, True])).lengths.tolist() == [2]


def test_a_vocabulary_is_a_sequence_of_its_words():
    vocabulary = Vocabulary([UNKNOWN, "cat", "dog"])
    assert list(vocabulary) == [UNKNOWN, "cat", "dog"] and vocabulary[1] == "cat"
    assert vocabulary[1:] == ("cat", "dog") and vocabulary.index("dog") == 2
    assert Vocabulary(vocabulary) == vocabulary


def test_places():
    cpu = torch.device("cpu")
    assert as_indices([0, -1], 3, "x", cpu).tolist() == [0, -1]
    assert as_indices([True, False, True], 3, "x", cpu).tolist() == [0, 2]
    assert as_indices([], 3, "x", cpu).dtype == torch.int64
    for wrong in ([3], [-4], [True], [[0]]):
        with pytest.raises(IndexError, match="x: found"):
            as_indices(wrong, 3, "x", cpu)


def test_numbers():
    for value in (3, 3.0, np.int8(3), np.float32(3), torch.tensor(3), torch.tensor([3.0])):
        assert integer(value, "n", "call") == 3 and real(value, "n", "call") == 3.0
    with pytest.raises(ValueError, match="call: found n=0, expected 1 or more"):
        integer(0, "n", "call")
    with pytest.raises(ValueError, match=r"found n=-1.0, expected a finite number, 0.0 or more"):
        real(-1.0, "n", "call", low=0.0)
    draws = [torch.rand(2, generator=generator(seed, "call")).tolist() for seed in (1, 1.0)]
    assert draws[0] == draws[1]
