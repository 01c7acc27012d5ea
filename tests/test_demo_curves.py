"""The demonstration of the four curves prints what it measured, and draws it."""

import re
from functools import partialmethod

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from pyro_ssl.demo import curves
from pyro_ssl.demo.curves import draw, follow, main
from pyro_ssl.models import GaussianSSL

pytestmark = pytest.mark.stage("system")

TRAIN, HORIZON = 20, 8


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(curves, "TRAIN", TRAIN)
    monkeypatch.setattr(curves, "HORIZON", HORIZON)
    monkeypatch.setattr(GaussianSSL, "fit", partialmethod(GaussianSSL.fit, num_paths=1))
    for name in ("filter", "forecast"):
        few = partialmethod(getattr(GaussianSSL, name), num_particles=20)
        monkeypatch.setattr(GaussianSSL, name, few)
    smooth = GaussianSSL.smooth
    monkeypatch.setattr(
        GaussianSSL, "smooth", lambda self, x, **_: smooth(self, x, num_samples=3, warmup_steps=1)
    )


def test_demo_prints_a_table_and_writes_a_picture(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(curves, "CURVES", ("line", "swiss roll"))
    out = tmp_path / "new" / "curves.png"
    main(["--epochs=1", f"--out={out}", "--dpi=30", "--seed=3"])
    printed = capsys.readouterr().out
    number = r" +\d+\.\d{3}"
    for kind in curves.CURVES:
        row = rf"^{kind}{number * 4} +\d+% +\d+%{number} +\d+\.\d$"
        assert re.search(row, printed, re.MULTILINE), row
    assert str(out) in printed
    assert out.read_bytes().startswith(b"\x89PNG")


def test_what_is_drawn_and_scored_is_what_the_model_said(quick):
    stages = []
    found = follow("circle", seed=0, num_epochs=2, callback=stages.append)
    assert stages == ["fit", "fit", "smooth"]
    curve, smoothed = found.curve, found.smoothed
    assert curve.x.shape == (TRAIN + HORIZON, 1, 2) and smoothed.mean.shape == (TRAIN, 1, 2)
    mean, covariance = found.forecast
    assert mean.shape == (HORIZON, 2) and covariance.shape == (HORIZON, 2, 2)
    off = (smoothed.mean - curve.z[:TRAIN]).square().mean().sqrt()
    assert found.scores["smoothed"] == pytest.approx(float(off))
    off = (mean - curve.z[TRAIN:, 0]).square().mean().sqrt()
    assert found.scores["forecast"] == pytest.approx(float(off))
    assert 0 <= found.scores["covered"] <= 1 and 0 <= found.scores["beyond"] <= 1

    figure = draw({"circle": found, "again": found})
    assert [ax.get_title() for ax in figure.axes] == ["circle", "again"]
    for ax in figure.axes:
        drawn = {line.get_label(): torch.tensor(line.get_xydata().tolist()) for line in ax.lines}
        assert torch.equal(drawn["held out"], curve.x[TRAIN:, 0])
        torch.testing.assert_close(drawn["forecast"][1:], mean)
    (legend,) = figure.legends
    assert len(legend.texts) == 6


def test_defaults_are_what_the_help_says(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "(default: curves.png)" in said and "(default: 60)" in said
    assert curves.TRAIN + curves.HORIZON == 140
