"""Charts and pieces of pages."""

import re

import pytest
import torch

from pyro_ssl.models.topics import list_topics
from pyro_ssl.pages import (
    document,
    forecast_chart,
    grouped_bars,
    line_chart,
    readable_topics,
    shown_word,
    table,
    topic_section,
)
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
    assert shown_word("<i>") == "&lt;i&gt;" and shown_word("<unk>") == "\N{WHITE SQUARE}"


def test_bars_are_as_long_as_their_shares():
    html = grouped_bars(["A&B", "C"], [("<b>one</b>", [0.5, 0.125]), ("two", [0.25, 0.0])])
    widths = re.findall(r"width:calc\(([\d.]+)% ", html)
    assert widths == ["100.0", "25.0", "50.0", "0.0"]
    assert re.findall(r"<em>(\d+%)</em>", html) == ["50%", "12%", "25%", "0%"]
    assert "A&amp;B" in html and "A&B" not in html and "<b>one</b>" in html
    assert "width:calc(0.0% " in grouped_bars(["A"], [("none", [0.0])])
    assert grouped_bars(["A"], []).count("<li>") == 0


VOCABULARY = ["<unk>", "the", "of", "<list>", "dict", "loop"]
PHI = torch.tensor(
    [
        [0.30, 0.05, 0.05, 0.40, 0.20, 0.00],  # content
        [0.60, 0.20, 0.15, 0.05, 0.00, 0.00],  # glue: .35 of the .40 that is known
        [0.00, 0.25, 0.20, 0.05, 0.25, 0.25],  # content, by a little
    ]
)
OCCUPANCY = torch.tensor([0.2, 0.5, 0.3])


def test_content_stands_apart_from_glue():
    content, glue, likeliest = readable_topics(PHI, OCCUPANCY, VOCABULARY)
    assert [topic.index for topic in content] == [2, 0]  # by falling share
    assert [topic.index for topic in glue] == [1]
    assert {*content[0].words} == {*content[1].words} == {"<list>", "dict", "loop"}
    assert glue[0].words[:3] == ["the", "of", "<list>"] and "<unk>" not in glue[0].words
    names = readable_topics(PHI, OCCUPANCY, VOCABULARY).names(1)
    assert names == {0: "<list>", 1: "the", 2: "the"}  # the likeliest, of both kinds
    assert [topic.index for topic in likeliest] == [1, 2, 0]


def test_a_topic_is_glue_from_half_function_words_on():
    phi = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.2, 0.3]], dtype=torch.float64)
    found = readable_topics(phi, torch.tensor([0.5, 0.5]), ["<unk>", "the", "list"])
    assert [t.index for t in found.glue] == [0] and [t.index for t in found.content] == [1]


def test_topics_by_each_order_and_without_the_unknown_word():
    coherence = torch.tensor([-0.125, 0.5, float("nan")], dtype=torch.float64)
    html = topic_section(PHI, OCCUPANCY, VOCABULARY, ["#111111", "#222222", "#333333"], coherence)
    cards = re.findall(r'<section class="topic">.*?</section>', html, re.S)
    assert [re.findall(r'class="chip"[^>]*>(\d)<', card) for card in cards] == [["2"], ["0"]]
    assert "#333333" in cards[0] and "#111111" in cards[1] and "#222222" not in html
    assert "NPMI \N{MINUS SIGN}0.12" in cards[1] and "NPMI" not in cards[0]
    for order, relevance in enumerate((0.6, 1.0, 0.0)):
        left = {"<unk>", "the", "of"}
        listed = list_topics(PHI, OCCUPANCY, VOCABULARY, 8, relevance, left)
        (words,) = re.findall(rf'<ol class="order{order}">(.*?)</ol>', cards[1])
        expected = next(t for t in listed if t.index == 0)
        found = re.findall(r"<b>([^<]*)</b><em>([\d.]+)", words)
        assert [word for word, _ in found] == [shown_word(word) for word in expected.words]
        assert [p for _, p in found] == [f"{100 * p:.1f}" for p in expected.probs]
        assert f'id="order{order}"' in html and f'for="order{order}"' in html
    assert html.count(" checked") == 1
    assert re.findall(r"([a-z]+)&nbsp;<small>([\d.]+)", cards[0]) == [
        ("the", "25.0"),
        ("of", "20.0"),
    ]
    (glue,) = re.findall(r'<ul class="glue">.*</ul>', html, re.S)
    assert "the of &lt;list&gt;" in glue and "50.0%" in glue and "50% of the text" in html
    assert "&lt;unk&gt;" not in html and "\N{WHITE SQUARE}" not in html and "<list>" not in html


def test_topics_of_one_kind_alone():
    colors = ["#111111"] * 3
    all_glue = topic_section(PHI[1:2], torch.ones(1), VOCABULARY, colors)
    assert 'class="topics"' not in all_glue and "<input" not in all_glue
    no_glue = topic_section(PHI[:1], torch.ones(1), VOCABULARY, colors)
    assert 'class="glue"' not in no_glue and "Glue" not in no_glue


def test_a_page_of_its_own():
    page = document("<t>", "$x", style=".y { }")
    assert "<title>&lt;t&gt;</title>" in page and "$x" in page and ".y { }" in page
    assert "refresh" not in page and "prefers-color-scheme: dark" in page
    assert "http" not in page.replace("http-equiv", "")
