"""Passages on the colours of their topics."""

import re

import pytest
import torch

from pyro_ssl.demo.marked import Palette, Passage, legend, marked
from pyro_ssl.models import Topic
from pyro_ssl.pages import ReadableTopics
from pyro_ssl.plotting import OTHER, PALETTE


@pytest.fixture
def topics():
    """Ten topics of content words, 0 to 9, and one of glue, 10."""
    content = [Topic(k, [f"w{k}", "<b>"], [0.5, 0.25], 0.05) for k in range(10)]
    glue = [Topic(10, ["the", "of"], [0.5, 0.25], 0.5)]
    return ReadableTopics(content, glue, [*glue, *content])


USAGE = torch.tensor([1.0, 9.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.5, 99.0])


def test_colours_are_for_content_words(topics):
    palette = Palette.of(topics, USAGE)
    assert palette.colors[1] == PALETTE[0] and palette.colors[8] == PALETTE[1]
    assert [k for k in range(11) if palette.colors[k] == OTHER] == [0, 9, 10]
    assert palette.plain == {10} and palette.names[10] == "the of"
    assert "plain" in palette.chip(10) and "plain" not in palette.chip(0)
    assert palette == Palette.of(topics, USAGE.expand(2, 3, 11))
    assert float(USAGE[10]) == 99.0  # what was given is not changed


def test_a_passage_is_marked_word_by_word(topics):
    palette = Palette.of(topics, USAGE)
    probs = torch.zeros(3, 11)
    probs[0, 1], probs[0, 0], probs[1, 10], probs[2, 9] = 0.75, 0.25, 1.0, 1.0
    html = marked(Passage(['"<x>"', "the", "<unk>"], probs), palette)
    first, glue, other = re.findall(r"<span .*?</span>", html)
    red, green, blue = (int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5))
    assert f"--c:{red} {green} {blue};--p:0.75" in first and "<sub>1</sub>" in first
    assert "&quot;&lt;x&gt;&quot;<sub>" in first and "topic 1, 75% sure: w1 &lt;b&gt;" in first
    assert "style" not in glue and "<sub>" not in glue and "topic 10, 100% sure: the of" in glue
    assert "--c:221 221 221;--p:1.00" in other and "\N{WHITE SQUARE}<sub>9</sub>" in other
    numbered = marked(Passage(["the"], probs[1:2]), palette, number_all=True)
    assert "<sub>10</sub>" in numbered and "style" not in numbered


def test_the_legend_names_the_colours_that_are_used_most_first(topics):
    html = legend(Palette.of(topics, USAGE), topics, USAGE)
    assert re.findall(r">(\d+)</b>", html) == ["1", "8", "7", "6", "5", "4", "3", "2"]
    assert "w1 &lt;b&gt;" in html and "<b>" not in html.replace('<b class="chip', "")
    assert "another topic of content words" in html and "no colour: glue" in html
