"""The page to look into topics: a map that has the distances, words by relevance, and only text."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from pyro_ssl import TopicalSSL
from pyro_ssl.estimators import TextTopics
from pyro_ssl.models.topics import divergences, list_topics
from pyro_ssl.pages import topic_page, write_topic_page
from pyro_ssl.pages.topic_map import RELEVANCES, places, shown_words
from tests.cli.program import SMALL, book, run
from tests.faults.digest import nothing_changes
from tests.html_check import Checked

K, V = 6, 40
NAMES = ["<unk>", "</script>", "<b>&", *(f"w{v}" for v in range(3, V))]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def topics(num_topics=K, seed=0):
    draw = torch.Generator().manual_seed(seed)
    phi = torch.rand(num_topics, V, generator=draw) ** 4
    share = torch.rand(num_topics, generator=draw) + 0.1
    return phi / phi.sum(-1, keepdim=True), share / share.sum()


def fitted():
    ssl = TopicalSSL(K, NAMES, hidden_size=4)
    ssl.phi, ssl.occupancy = topics()
    return ssl


def data_of(page):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found)


def test_divergences_by_hand():
    phi, _ = topics()
    found = divergences(phi)
    for a, b in ((0, 1), (2, 5)):
        m = (phi[a] + phi[b]) / 2
        by_hand = sum(0.5 * (p * (p / m).log2()).sum() for p in (phi[a], phi[b]))
        assert found[a, b] == pytest.approx(float(by_hand)) == pytest.approx(float(found[b, a]))
    assert not found.diagonal().any() and 0 < float(found.max()) < 1


def test_places_have_the_distances_where_two_dimensions_are_enough():
    """Three topics lie in a plane; of more the map has the nearest to their distances."""
    phi, _ = topics(3)
    at, kept = places(phi)
    found = np.linalg.norm(at[:, None] - at, axis=-1) ** 2
    np.testing.assert_allclose(found, divergences(phi).numpy(), atol=1e-12)
    assert kept == pytest.approx(1.0)
    at, kept = places(topics()[0])
    assert 0.3 < kept < 1.0 and np.allclose(at.mean(0), 0.0)
    assert (np.abs(at).max(0) == at.max(0)).all(), "it does not turn over"
    same, kept = places(torch.ones(4, 5) / 5)
    assert not same.any() and kept == 1.0
    assert places(torch.ones(1, 5) / 5)[0].shape == (1, 2)


def test_every_stop_of_the_slider_finds_its_words():
    phi, occupancy = topics()
    left = ["w7", "<unk>"]
    found = shown_words(phi, occupancy, NAMES, 5, left)
    for relevance in RELEVANCES:
        for topic in list_topics(phi, occupancy, NAMES, 5, relevance, left):
            own = found[topic.index]
            score = [
                np.log(p) - (1 - relevance) * np.log(q)
                for p, q in zip(own.probs, own.overall, strict=True)
            ]
            first = [NAMES[own.ids[i]] for i in np.argsort(score)[::-1][:5]]
            assert first == topic.words
    assert not {7, 0} & {v for own in found for v in own.ids}


def test_a_page_is_one_file_of_text():
    page = topic_page(*topics(), NAMES, "A <i> & B", 12)
    tags = Checked(page).tags
    assert page.count("</script>") == 2 and "http" not in page.replace("http-equiv", "")
    assert "<title>A &lt;i&gt; &amp; B</title>" in page and "<b>&" not in page
    shown = data_of(page)
    words = {word for topic in shown["topics"] for word in topic["words"]}
    assert "</script>" in words and "\N{WHITE SQUARE}" in words and "<unk>" not in words
    share = topics()[1].sort(descending=True)
    assert [topic["k"] for topic in shown["topics"]] == share.indices.tolist()
    radii = [float(a["r"]) for tag, a in tags if tag == "circle"]
    assert (np.array(radii) / radii[0]) ** 2 == pytest.approx(
        (share.values / share.values[0]).numpy(), abs=0.01
    )
    for tag, attrs in tags:
        if tag == "circle":
            x, y, r = (float(attrs[name]) for name in ("cx", "cy", "r"))
            assert r < x < 460 - r and r < y < 460 - r
    assert sum(tag == "option" for tag, _ in tags) == K


@pytest.mark.parametrize("num_topics", [1, 2])
def test_few_topics(num_topics):
    page = topic_page(*topics(num_topics), NAMES, "few")
    assert "nan" not in page.split("<script")[0] and page.count("<circle") == num_topics


def test_it_is_written_for_models_and_estimators(tmp_path):
    path = write_topic_page(tmp_path / "a.html", fitted(), num_words=4)
    assert "<unk>" not in path.read_text() and data_of(path.read_text())["count"] == 4
    estimator = TextTopics(K)
    estimator.model_ = fitted()
    again = write_topic_page(str(tmp_path / "b.html"), estimator, num_words=4)
    assert again.read_text() == path.read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_what_is_refused(tmp_path):
    ssl, other = fitted(), TopicalSSL(K, 5, hidden_size=4)
    with nothing_changes(tmp_path):
        with pytest.raises(ValueError, match="num_words is 0, .* write num_words=20"):
            write_topic_page(tmp_path / "a.html", ssl, num_words=0)
        with pytest.raises(ValueError, match="leave_out has 40 words, expected a word to list"):
            write_topic_page(tmp_path / "a.html", ssl, leave_out=NAMES)
        with pytest.raises(RuntimeError, match="not fitted"):
            write_topic_page(tmp_path / "a.html", other)


def test_from_the_command_line(capsys, tmp_path):
    assert run(capsys, "fit", book(tmp_path), "--out", tmp_path / "run", *SMALL).code == 0
    page = tmp_path / "topics.html"
    ran = run(capsys, "topics", tmp_path / "run", "--page", page, "--words", 2)
    assert ran.code == 0 and len(ran.out.splitlines()) == 3
    words = {word for topic in data_of(page.read_text())["topics"] for word in topic["words"]}
    assert "cat" in words and "the" not in words
    assert "Topics of" in page.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
def test_a_browser_lists_the_words(tmp_path):
    """Its script runs: the chosen topic's words at λ = 0.6 are in the page that it shows."""
    phi, occupancy = topics()
    path = write_topic_page(tmp_path / "a.html", fitted(), num_words=6, leave_out=())
    how = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    shown = subprocess.run([*how, path.as_uri()], capture_output=True, text=True, check=True).stdout
    first = list_topics(phi, occupancy, NAMES, 6, 0.6)[0]
    (rows,) = re.findall(r'<ol id="words">(.*?)</ol>', shown, re.S)
    words = re.findall(r'<b title="[^"]*">(.*?)</b>', rows)
    assert words == [word.replace("&", "&amp;").replace("<", "&lt;") for word in first.words]
    assert f"Topic {first.index}, " in shown
    assert len(re.findall(r'<g [^>]*aria-pressed="true"', shown)) == 1
