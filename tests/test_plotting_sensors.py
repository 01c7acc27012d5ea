"""Pictures of sensors: what is drawn is what was found."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from pyro_ssl.models import Imputed, Scores, Simulated
from pyro_ssl.plotting import plot_imputed, plot_scores, plot_simulated

T, B, E = 12, 2, 3


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def drawn(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return torch.tensor([float(y) for y in line.get_ydata()])


def test_holes_are_drawn_with_their_interval_and_nothing_else_is():
    x = torch.randn(T, B, E)
    x[4:7, 1, 2] = torch.nan
    samples = x.nan_to_num(0.0).expand(50, T, B, E) + torch.randn(50, T, B, E)
    imputed = Imputed(torch.where(x.isnan(), 5.0, x), samples)
    axes = plot_imputed(x, imputed, series=1, level=0.5, names=["a", "b", "c"])
    assert [ax.get_ylabel() for ax in axes] == ["a", "b", "c"]
    filled = drawn(axes[2], "filled")
    assert filled[4:7].tolist() == [5.0] * 3 and filled[:4].isnan().all()
    assert torch.equal(drawn(axes[0], "observed"), x[:, 1, 0])
    (band,) = axes[2].collections
    heights = {round(float(y), 6) for y in band.get_paths()[0].vertices[:, 1]}
    low, high = imputed.interval(0.5)
    ends = torch.cat([low[4:7, 1, 2], high[4:7, 1, 2]])
    assert {round(float(y), 6) for y in ends} <= heights
    with pytest.raises(ValueError, match=r"x has shape \(12, 1, 3\), expected \(12, 2, 3\)"):
        plot_imputed(x[:, :1], imputed)
    with pytest.raises(ValueError, match="found 1 axes, expected one for each of 3"):
        plot_imputed(x, imputed, axes=axes[:1])


def test_simulated_series_are_drawn_beside_the_data():
    x, made = torch.randn(T, B, E), Simulated(torch.randn(8, 4, E), torch.randn(8, 4, 1))
    axes = plot_simulated(x, made)
    assert len(axes) == E and len(axes[0].lines) == B + 4
    assert torch.equal(drawn(axes[1], "simulated"), made.x[:, 0, 1])
    assert torch.equal(drawn(axes[1], "data"), x[:, 0, 1])
    with pytest.raises(ValueError, match="x has 2 sensors, expected 3"):
        plot_simulated(x[..., :2], made)


def test_scores_are_drawn_by_step_ahead():
    values = torch.rand(5, E)
    scores = Scores(-values, 2.0 * values, values, values, torch.ones(5, E), level=0.8)
    left, right = plot_scores(scores, names=["a", "b", "c"])
    assert torch.equal(drawn(left, "b"), 2.0 * values[:, 1])
    assert torch.equal(drawn(right, "c"), values[:, 2])
    assert drawn(right, "level").tolist() == [0.8, 0.8]
    with pytest.raises(ValueError, match="found 1 axes, expected 2"):
        plot_scores(scores, axes=[left])
