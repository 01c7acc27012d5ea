"""The pictures hold what they should, and are legible: nothing overlaps, nothing is cut off."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba

from pyro_ssl.models import Topic
from pyro_ssl.plotting import (
    OTHER,
    PALETTE,
    plot_perplexity,
    plot_topic_path,
    plot_topics,
    topic_colors,
)

TOPICS = [Topic(k, ["price", "in", f"$x_{k}$"], [0.5, 0.3, 0.1], 0.5 - 0.1 * k) for k in range(4)]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def _texts(ax):
    return [text.get_text() for text in ax.texts]


def _overlaps(ax):
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    return [
        (ax.texts[i].get_text(), ax.texts[j].get_text())
        for i in range(len(boxes))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]


def test_topic_colors_go_to_the_topics_used_most():
    usage = torch.arange(50.0)
    colors = topic_colors(usage)
    assert colors[49] == PALETTE[0] and len(set(colors[42:])) == len(PALETTE) == 8
    assert set(colors[:42]) == {OTHER}
    assert topic_colors(torch.eye(3)[[1, 1, 0]]) == [PALETTE[1], PALETTE[0], OTHER]
    assert topic_colors(usage, num_colors=1).count(OTHER) == 49


def test_plot_topics():
    ax = plot_topics(TOPICS, num_columns=3)
    texts = _texts(ax)
    assert len(ax.patches) == 4 * 3
    assert texts.count("price") == 4 and texts.count("50.0") == 4
    assert "topic 3" in texts and "20.0% of words" in texts and r"\$x_0\$" in texts
    assert not _overlaps(ax)


def test_plot_topics_takes_axes_and_colors():
    ax = plt.figure().add_subplot()
    colors = topic_colors(torch.tensor([0.0, 0.1, 0.0, 0.9]))
    assert plot_topics(TOPICS, colors=colors, ax=ax) is ax
    assert ax.patches[-1].get_facecolor() == to_rgba(PALETTE[0])


def test_plot_topic_path():
    words = "the $ price of a rather long sentence that needs more than a line".split()
    probs = torch.full((len(words) + 2, 4), 0.1)  # two steps of padding, too
    probs[torch.arange(len(probs)), torch.arange(len(probs)) % 3] = 0.7
    ax = plot_topic_path(words, probs, topics=TOPICS, line_width=30)
    texts = _texts(ax)
    assert [text for text in texts if text in words or text == r"\$"] == [
        r"\$" if word == "$" else word for word in words
    ]
    boxes = ax.patches[: len(words)]
    assert [box.get_alpha() for box in boxes] == pytest.approx([0.7] * len(words))
    assert len({box.get_facecolor()[:3] for box in boxes}) == 3
    assert len(ax.patches) == len(words) + 3  # the legend
    assert not _overlaps(ax)
    frame = ax.figure.bbox
    assert all(frame.containsx(t.get_window_extent().x1) for t in ax.texts)


def test_plot_topic_path_fits_given_axes():
    ax = plt.figure(figsize=(4, 1.5)).add_subplot()
    words = ["word"] * 40
    assert plot_topic_path(words, torch.eye(12)[torch.arange(40) % 12], ax=ax) is ax
    assert not _overlaps(ax)
    assert any("4 other topics" in text for text in _texts(ax))


def test_plot_perplexity():
    curves = {"test": [30.0, 25.0, 26.0], "validation": [31.0, 26.0, 27.0]}
    ax = plot_perplexity(curves, {"unigram": 60.0, "HMM": 25.4}, kept=2)
    assert sorted(_texts(ax)) == ["HMM  25.4", "test  25.0", "unigram  60.0", "validation  26.0"]
    assert len(ax.lines) == 2 + 2 * 2  # baselines, curves, dots
    assert not _overlaps(ax)
    given = plt.figure().add_subplot()
    assert plot_perplexity({"test": [3.0]}, bottom=0.0, ax=given) is given
    assert given.get_ylim()[0] == 0.0
