"""The page of a run: whole at every moment, and with nothing from outside."""

import re

import pytest

from pyro_ssl.cli.folder import RunFolder
from tests.cli.program import SMALL, SMALL_SERIES, book, circle, run
from tests.html_check import Checked


def text_of(page):
    """What is read on a page, which has no script, and no file beside it."""
    checked = Checked(page)
    assert not {"script", "link", "img"} & {tag for tag, _ in checked.tags}
    return " ".join(" ".join(checked.text).split())


@pytest.fixture
def pages(monkeypatch):
    """All pages that a fit writes."""
    found, show = [], RunFolder.show

    def kept(self, page):
        found.append(page)
        show(self, page)

    monkeypatch.setattr(RunFolder, "show", kept)
    monkeypatch.setattr("pyro_ssl.cli.progress._EVERY", 0.0)
    return found


@pytest.mark.stage("system")
def test_of_a_text(pages, capsys, tmp_path):
    path = book(tmp_path).rename(tmp_path / "Q <b> & A.txt")
    assert run(capsys, "fit", path, "--out", tmp_path / "run", *SMALL).code == 0
    assert len(pages) == 1 + 4 + 1
    for number, page in enumerate(pages):
        text = text_of(page)
        assert "Topics of Q <b> & A.txt" in text
        assert ('http-equiv="refresh"' in page) == ("Running." in text) == (number < 5)
        assert f"{min(number, 4)} of 4 epochs" in text
        assert page.count("<svg") == min(3 * number, 3) or number == 1  # none has moved yet
        listed = page.count('class="topic"') + page.count('class="chip plain"')
        assert listed == (3 if number else 0)  # cards of content words, and lines of glue
    assert "under a unigram" in text or "above a unigram" in text
    assert "HMM it began with" in text and 'class="level"' in pages[-1]
    assert page.count('class="mark"') == 1
    assert page == (tmp_path / "run" / "index.html").read_text()
    (rows,) = re.findall(r"<details>.*</details>", page, re.S)
    assert rows.count("<tr>") == 1 + 4
    assert "seed 0" in text and "topics 3" in text


def test_of_series(pages, capsys, tmp_path):
    ran = run(capsys, "fit", circle(tmp_path), "--out", tmp_path / "run", *SMALL_SERIES)
    assert ran.code == 0
    text = text_of(pages[-1])
    assert "A path behind circle.csv" in text
    assert "0 numbers missing" in text and "Held-out" not in text
    assert pages[-1].count('class="curve"') == 2 + 3  # loss, moved, and the columns' forecasts
    assert pages[-1].count('class="point"') == 3 * 12 and pages[-1].count('class="band"') == 3
    assert "The last 12 steps of the first series" in text
    assert "What comes next" not in pages[-2]


@pytest.mark.stage("system")
def test_a_model_is_there_while_the_run_goes_on(pages, capsys, tmp_path, monkeypatch):
    """Whoever asks for topics meanwhile has those of the best epoch so far."""
    from pyro_ssl import TopicalSSL
    from pyro_ssl.cli.progress import Progress, kept_epoch

    seen, after_epoch = [], Progress.after_epoch

    def looks(self, record):
        after_epoch(self, record)
        model = TopicalSSL.load(tmp_path / "run" / "model")
        seen.append(len(model.history))
        assert seen[-1] == kept_epoch(self.history)

    monkeypatch.setattr(Progress, "after_epoch", looks)
    assert run(capsys, "fit", book(tmp_path), "--out", tmp_path / "run", *SMALL).code == 0
    assert len(seen) == 4
