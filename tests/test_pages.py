"""Charts and pieces of pages."""

import re

import pytest

from pyro_ssl.models import Topic
from pyro_ssl.pages import document, forecast_chart, line_chart, table, topic_cards
from pyro_ssl.pages.charts import nice_ticks

NAN = float("nan")


@pytest.mark.parametrize(
    "low, high, ticks",
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (1, 1, None),
        (-0.03, 0.02, [-0.03, -0.02, -0.01, 0, 0.01, 0.02]),
        (198.3, 204.7, [198, 200, 202, 204, 206]),
        (5e8, 9e8, [5e8, 6e8, 7e8, 8e8, 9e8]),
        (0, 0, None),
    ],
)
def test_ticks_enclose_and_are_few(low, high, ticks):
    found = nice_ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 6
    assert found == sorted({*found})
    if ticks is not None:
        assert found == pytest.approx(ticks)


def places(svg):
    (path,) = re.findall(r'class="curve" d="M([^"]+)"', svg)
    return [tuple(map(float, point.split())) for point in path.split("L")]


def test_a_curve_is_where_it_should_be():
    svg = line_chart([0.0, 10.0, 5.0], name="loss", mark=3, levels={"H<M": 5.0})
    (x1, low), (x2, high), (x3, middle) = places(svg)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11) and x1 < x2
    assert middle == pytest.approx((low + high) / 2, abs=0.11) and high < low  # SVG counts down
    assert f'cx="{x3}" cy="{middle}" r="5"' in svg
    assert f'class="level" d="M50 {middle}H' in svg and "H&lt;M" in svg
    assert svg.count('class="spot"') == 3 and "epoch 2: loss 10.00" in svg
    assert 'aria-label="loss: 0.00 at epoch 1, 5.00 at epoch 3"' in svg


def test_a_forecast_goes_on_where_the_series_ends():
    svg = forecast_chart([0.0, NAN, 4.0], [(2.0, 1.0, 3.0), (2.0, 0.0, 4.0)], name="x", first=7)
    points = re.findall(r'class="point" cx="([\d.]+)" cy="([\d.]+)"', svg)
    (x7, y0), (x9, y4) = [tuple(map(float, point)) for point in points]
    (x10, y2), (x11, _) = places(svg)
    assert (x9 - x7) / 2 == pytest.approx(x10 - x9, abs=0.11) == pytest.approx(x11 - x10, abs=0.11)
    assert y2 == pytest.approx((y0 + y4) / 2, abs=0.11) and y4 < y0
    (band,) = re.findall(r'class="band" d="M([^Z]+)Z"', svg)
    corners = [tuple(map(float, point.split())) for point in band.split("L")]
    assert [x for x, _ in corners] == [x10, x11, x11, x10]
    assert (corners[1][1], corners[2][1]) == (y0, y4)
    assert "x: 2.00 at step 11, from 0.00 to 4.00" in svg


def test_gaps_and_single_values():
    svg = line_chart([NAN, 1.0, 2.0, NAN, 3.0], name="score")
    assert svg.count('class="curve"') == 1 and svg.count('class="mark"') == 1
    assert svg.count('class="spot"') == 3
    assert line_chart([7.0], name="score").count('class="mark"') == 1
    assert line_chart([], name="score") == ""
    many = line_chart([1.0 / (i + 1) for i in range(1000)], name="score")
    assert "spot" not in many and len(places(many)) == 1000


@pytest.mark.parametrize(
    "values, percent, shown",
    [
        ([0.1, 0.2], True, ["10 %", "12 %", "20 %"]),
        ([1000.0, 6000.0], False, ["1,000", "6,000"]),
        ([-0.5, 0.5], False, ["\N{MINUS SIGN}0.50", "0.25"]),
        ([5.55, 5.65], False, ["5.550", "5.575"]),
    ],
)
def test_labels(values, percent, shown):
    labels = re.findall(
        r'text-anchor="end">([^<]*)<', line_chart(values, name="x", percent=percent)
    )
    assert {*shown} <= {*labels}, labels
    assert len({*labels}) == len(labels)


def test_pieces_are_text():
    assert "&lt;b&gt;" in table(["<b>"], []) and "&amp;" in table([], [["&"]])
    cards = topic_cards([Topic(1, ["<i>", "<unk>"], [0.0, 0.0], 0.5)], ["", "#fff"], [[], ["<u>"]])
    assert "&lt;i&gt;" in cards and "&lt;u&gt;" in cards and "\N{WHITE SQUARE}" in cards
    assert "&lt;unk&gt;" not in cards


def test_a_page_of_its_own():
    page = document("<t>", "$x", style=".y { }")
    assert "<title>&lt;t&gt;</title>" in page and "$x" in page and ".y { }" in page
    assert "refresh" not in page and "prefers-color-scheme: dark" in page
    assert "http" not in page.replace("http-equiv", "")
