"""Windows against a slow loop over the raw rows, and what must not leak into them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_ssl.datasets import TimeSeries, Windows, make_windows

NAN = math.nan


def series_of(*pieces, inputs=("a", "b"), targets=("a",)):
    return TimeSeries("test", ("a", "b", "c"), pieces, inputs, targets)


@pytest.fixture
def holes():
    """Two pieces of random rows, a tenth of them missing, the second with a hole at its start."""
    pieces = [torch.randn(60, 3), torch.randn(45, 3)]
    for piece in pieces:
        piece[torch.rand(piece.shape) < 0.1] = NAN
    pieces[1][:3, 0] = NAN
    return series_of(*pieces, inputs=("a", "c"), targets=("b", "a"))


def slow(series, T, horizon, bounds, difference):
    """Every window by itself, in plain numbers and in the targets' own unit."""
    inputs, targets = series.columns(series.inputs), series.columns(series.targets)
    rows = [row.tolist() for piece in series.pieces for row in piece]
    learned = [
        [row[c] for row in rows[: bounds[0]] if not math.isnan(row[c])] for c in range(len(rows[0]))
    ]
    mean = [sum(v) / len(v) for v in learned]
    sd = [
        math.sqrt(sum((a - m) ** 2 for a in v) / len(v)) for v, m in zip(learned, mean, strict=True)
    ]
    parts, start = ([], [], []), 0
    for piece in series.pieces:
        here = rows[start : start + len(piece)]

        def newest(i, c, here=here):
            seen = [row[c] for row in here[: i + 1] if not math.isnan(row[c])]
            return seen[-1] if seen else mean[c]

        for i in range(T, len(here) - horizon + 1):
            x = [[(newest(j, c) - mean[c]) / sd[c] for c in inputs] for j in range(i - T, i)]
            mask = [[not math.isnan(here[j][c]) for c in inputs] for j in range(i - T, i)]
            y = [here[i + k][c] for c in targets for k in range(horizon)]
            last = [newest(i - 1, c) for c in targets for _ in range(horizon)]
            near, far = start + i, start + i + horizon - 1
            belongs = [far < bounds[0], bounds[0] <= near and far < bounds[1], bounds[1] <= near]
            if any(belongs) and not any(map(math.isnan, y)):
                parts[belongs.index(True)].append((x, y, mask, last))
        start += len(piece)
    return parts


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("split", [(0.6, 0.2), (63, 21), (50, 15)])
def test_every_window(holes, horizon, split, difference):
    split_rows = [int(105 * s) if isinstance(s, float) else s for s in split]
    bounds = (split_rows[0], sum(split_rows))
    found = make_windows(holes, 4, horizon=horizon, split=split, difference=difference)
    expected = slow(holes, 4, horizon, bounds, difference)
    for part, windows in zip((found.train, found.valid, found.test), expected, strict=True):
        x, y, mask, last = map(torch.tensor, zip(*windows, strict=True))
        torch.testing.assert_close(part.x, x)
        torch.testing.assert_close(found.scaling.inverse_target(part.y, part.last), y)
        torch.testing.assert_close(part.last, last)
        assert torch.equal(part.mask, mask)
    y = found.train.y
    torch.testing.assert_close(y.mean(0), torch.zeros(2 * horizon), atol=1e-12, rtol=0.0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(2 * horizon))


def test_parts_start_where_the_split_says():
    rows = torch.arange(100.0)[:, None].expand(-1, 3)
    found = make_windows(series_of(rows), 10)
    levels = [
        found.scaling.inverse_target(part.y).squeeze(-1)
        for part in (found.train, found.valid, found.test)
    ]
    expected = [torch.arange(10.0, 60), torch.arange(60.0, 80), torch.arange(80.0, 100)]
    for level, right in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, right)


def test_no_window_crosses_a_gap():
    first, second = torch.randn(30, 3), 1000.0 + torch.randn(40, 3)
    found = make_windows(series_of(first, second), 5, split=(50, 10))
    means, scales = found.scaling.mean, found.scaling.scale
    for part in (found.train, found.valid, found.test):
        is_second = part.x * scales + means > 500.0
        assert torch.equal(is_second.all(-1).all(-1), is_second.any(-1).any(-1))
    assert found.train.num_windows == (30 - 5) + (20 - 5)


def test_training_windows_know_nothing_of_later_rows():
    rows = torch.randn(100, 3)
    changed = torch.cat([rows[:60], 50.0 + 9.0 * torch.randn(40, 3)])
    one, other = (make_windows(series_of(r), 6, difference=True) for r in (rows, changed))
    for a, b in zip((*one.train, *one.scaling), (*other.train, *other.scaling), strict=True):
        assert a is b or torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@pytest.mark.parametrize("missing", [False, True])
def test_inputs_know_nothing_of_the_rows_they_predict(missing):
    rows = torch.randn(100, 3)
    if missing:
        rows[84:88] = NAN
    changed = rows.clone()
    changed[90:] += 7.0
    one, other = (make_windows(series_of(r), 6).test for r in (rows, changed))
    before = 90 - 80 + 1 - (4 if missing else 0)  # the last of these predicts row 90
    assert torch.equal(one.x[:before], other.x[:before])
    assert torch.equal(one.last[:before], other.last[:before])
    assert not torch.equal(one.x[before], other.x[before])


def test_a_trend_leaves_the_range_of_levels_but_not_of_changes():
    ramp = torch.arange(200.0) + torch.randn(200)
    rows = torch.stack([ramp, torch.randn(200), torch.randn(200)], -1)
    level, change = (make_windows(series_of(rows), difference=d) for d in (False, True))
    assert level.test.y.min() > level.train.y.max()
    assert change.test.y.abs().max() < 2.0 * change.train.y.abs().max()
    actual = rows[160:, :1]
    for found in (level, change):
        restored = found.scaling.inverse_target(found.test.y, found.test.last)
        torch.testing.assert_close(restored, actual)
    torch.testing.assert_close(change.test.last, rows[159:-1, :1])


def test_forecasts_of_any_leading_shape_are_brought_back():
    found = make_windows(series_of(torch.randn(100, 3)), difference=True)
    y, last = found.test.y, found.test.last
    both = found.scaling.inverse_target(torch.stack([y, y + 1.0]), last)
    torch.testing.assert_close(both[1] - both[0], found.scaling.target_scale.expand_as(y))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 / 3.0])
def test_a_constant_column_is_not_divided_by_its_deviation(value):
    rows = torch.randn(100, 3)
    rows[:80, 1] = value
    rows[80:, 1] = value + 2.0
    found = make_windows(series_of(rows))
    assert found.scaling.scale[1] == 1.0
    torch.testing.assert_close(found.test.x[-1, :, 1], torch.full((10,), 2.0), atol=1e-5, rtol=0.0)


@given(
    st.sampled_from([(torch.float64, 1e6, 1e-7), (torch.float32, 1e3, 2e-3)]),
    st.floats(-1.0, 1.0),
    st.floats(-12.0, 12.0),
    st.booleans(),
    st.integers(1, 3),
)
def test_neither_origin_nor_unit_matters(precision, place, unit, difference, horizon):
    """Levels of up to 10^6 times the spread, or 10^3 in float32, and any unit: the same windows."""
    dtype, most, tolerance = precision
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    rows[:, 1] = rows[:, 1].cumsum(0) / 5.0
    rows[:, 2] = 0.3  # a sensor that never moves
    rows[::7, 3] = NAN
    rows[:36:35, 4] = rows[1:36, 4] = NAN
    rows[5, 4] = 0.7  # a sensor that was seen once
    names = ("noise", "walk", "constant", "holes", "once")
    moved = ((rows + place * most) * 10.0**unit).to(dtype)
    found, expected = (
        make_windows(
            TimeSeries("test", names, data, names, ("walk", "noise")),
            4,
            difference=difference,
            horizon=horizon,
        )
        for data in (moved, rows.to(dtype))
    )
    inputs = [0, 1, 2, 3]  # what was seen once has no spread to divide by
    for part, right in zip(found[3:6], expected[3:6], strict=True):
        torch.testing.assert_close(
            part.x[..., inputs], right.x[..., inputs], atol=tolerance, rtol=0.0
        )
        torch.testing.assert_close(part.y, right.y, atol=2 * tolerance, rtol=0.0)
        assert torch.equal(part.mask, right.mask)
        assert not part.x[..., 2].any()
    assert not found.train.x[..., 4].any()
    y = found.scaling.inverse_target(found.test.y, found.test.last)
    actual = torch.stack([moved[48 + h : 60 - horizon + 1 + h, 1] for h in range(horizon)], -1)
    torch.testing.assert_close(
        y[:, :horizon] / 10.0**unit, actual / 10.0**unit, atol=tolerance, rtol=1e-6
    )


@pytest.mark.parametrize("level", [0.0, 1e3, 1e6])
def test_a_ramp_is_constant_in_its_changes(level):
    """Rounding far from zero is not taken for a spread."""
    rows = (level + 0.1 * torch.arange(100.0))[:, None].expand(-1, 3)
    found = make_windows(series_of(rows), difference=True)
    assert found.scaling.target_scale.item() == 1.0
    torch.testing.assert_close(found.scaling.target_mean, torch.tensor([0.1]))
    assert found.test.y.abs().max() < 1e-8


def test_newest_known_values_are_those_on_file():
    rows = 1e6 + torch.randn(100, 3)
    assert torch.equal(make_windows(series_of(rows)).test.last, rows[79:-1, :1])


def test_with_changes():
    first, second = torch.randn(30, 3), torch.randn(40, 3)
    first[7, 2] = NAN
    series = series_of(first, second, targets=("c", "a"))
    assert series.with_changes(("b",)).inputs == ("a", "b", "Δ b")
    found = series.with_changes()
    assert found.inputs == ("a", "b", "Δ c", "Δ a") and found.targets == series.targets
    for piece, before in zip(found.pieces, (first, second), strict=True):
        torch.testing.assert_close(piece[:, :3], before, equal_nan=True)
        assert piece[0, 3:].isnan().all()
        torch.testing.assert_close(piece[1:, 3:], before.diff(dim=0)[:, [2, 0]], equal_nan=True)
    assert found.pieces[0][7:9, 3].isnan().all() and found.pieces[0][9:, 3].isfinite().all()


def test_no_mask_where_all_was_measured():
    found = make_windows(series_of(torch.randn(100, 3)))
    assert found.train.mask is found.test.mask is None


def test_an_input_may_be_missing_at_first():
    rows = torch.randn(100, 3)
    rows[:7, 1] = NAN
    train = make_windows(series_of(rows), 5).train
    assert torch.equal(train.x[0, :, 1], torch.zeros(5))  # the training mean
    assert not train.mask[0, :, 1].any()
    assert train.mask[:, :, 0].all()


def test_select_and_to():
    windows = make_windows(series_of(torch.randn(100, 3))).test
    some = windows.select(slice(3, 5)).to("cpu")
    assert isinstance(some, Windows) and some.num_windows == 2
    assert torch.equal(some.y, windows.y[3:5]) and some.mask is None


def test_split_to_and_describe():
    found = make_windows(series_of(torch.randn(100, 3)), difference=True)
    moved = found.to("cpu")
    assert torch.equal(moved.test.x, found.test.x) and moved.scaling.difference
    assert found.describe() == (
        "test: 50 train, 20 valid, 20 test windows of 10 steps of 2 variables"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_of_the_rows(dtype):
    found = make_windows(series_of(torch.randn(100, 3, dtype=dtype)))
    assert {t.dtype for t in (*found.test, *found.scaling[:4]) if t is not None} == {dtype}


class TestErrorsTeach:
    def test_columns(self):
        with pytest.raises(ValueError, match="found no column 'd', expected one of a, b, c"):
            make_windows(series_of(torch.randn(100, 3), targets=("d",)))

    @pytest.mark.parametrize("arguments", [{"window": 0}, {"horizon": 0}])
    def test_lengths(self, arguments):
        with pytest.raises(ValueError, match=r"expected 1 or more of each"):
            make_windows(series_of(torch.randn(100, 3)), **arguments)

    @pytest.mark.parametrize("split", [(0.8, 0.2), (0.6, 0.0), (0.0, 0.5), (90, 10), (0.5, 3.0)])
    def test_split(self, split):
        with pytest.raises(ValueError, match=r"expected two shares that leave a rest"):
            make_windows(series_of(torch.randn(100, 3)), split=split)

    @pytest.mark.parametrize(
        ("split", "part"), [((8, 50), "training"), ((50, 2), "validation"), ((50, 48), "test")]
    )
    def test_no_window(self, split, part):
        with pytest.raises(ValueError, match=f"found no window in the {part} part of 'test'"):
            make_windows(series_of(torch.randn(100, 3)), 10, horizon=3, split=split)

    def test_nothing_measured(self):
        rows = torch.randn(100, 3)
        rows[:60, 1] = NAN
        with pytest.raises(ValueError, match="found no value of 'b' in the training part"):
            make_windows(series_of(rows))

    def test_differences_need_the_last_values(self):
        found = make_windows(series_of(torch.randn(100, 3)), difference=True)
        with pytest.raises(ValueError, match=r"inverse_target\(y, split.test.last\)"):
            found.scaling.inverse_target(found.test.y)
