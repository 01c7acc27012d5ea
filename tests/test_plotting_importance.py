"""The pictures of importances and forecasts hold what they should, and are legible."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from pyro_ssl.datasets import PM25_VARIABLES
from pyro_ssl.models import SeededImportance
from pyro_ssl.plotting import (
    plot_explanation,
    plot_forecast,
    plot_importance,
    plot_importance_ahead,
    plot_temporal_importance,
)

NAMES = ["a", "b$x$", "c"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def _overlaps(*axes):
    """Pairs of texts that touch, among ticks, titles, axis labels and annotations of all axes."""
    figure = axes[0].figure
    figure.draw_without_rendering()
    texts = [
        text
        for ax in figure.axes
        for text in [
            *ax.texts,
            *_shown(ax.xaxis),
            *_shown(ax.yaxis),
            ax.xaxis.label,
            ax.yaxis.label,
            ax._left_title,
        ]
        if text.get_visible() and text.get_text()
    ]
    boxes = [text.get_window_extent() for text in texts]
    cut = [t.get_text() for t, box in zip(texts, boxes, strict=True) if not _inside(figure, box)]
    touching = [
        (texts[i].get_text(), texts[j].get_text())
        for i in range(len(texts))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]
    return touching + cut


def _shown(axis):
    """Tick labels that are drawn: matplotlib also keeps some that lie beyond the limits."""
    low, high = sorted(axis.get_view_interval())
    ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=False)  # shared: no labels
    return [label for place, label in ticks if low <= place <= high]


def _inside(figure, box):
    return figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= -1.0


def _ticks(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_plot_importance_orders_bars_and_shows_every_seed():
    runs = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.6, 0.3]])
    ax = plot_importance(runs, NAMES)
    assert _ticks(ax) == ["a", "c", r"b\$x\$"]  # from the bottom
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.15, 0.2, 0.65])
    assert [line.get_xdata() for line in ax.lines] == [
        pytest.approx([0.2, 0.1]),
        pytest.approx([0.1, 0.3]),
        pytest.approx([0.7, 0.6]),
    ]
    assert [text.get_text() for text in ax.texts] == ["0.150", "0.200", "0.650"]
    assert ax.get_xlim()[0] <= 0.0 and not _overlaps(ax)


def test_plot_importance_of_one_run():
    ax = plot_importance(torch.tensor([0.5, 0.0, -0.1]), NAMES, label="increase of the error")
    assert not ax.lines and ax.get_xlabel() == "increase of the error"
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([-0.1, 0.0, 0.5])
    assert not _overlaps(ax)


def test_plot_importance_of_many_variables_is_legible():
    assert not _overlaps(plot_importance(torch.rand(3, 11), PM25_VARIABLES))


def test_plot_temporal_importance():
    temporal = torch.rand(3, 4).softmax(-1)
    ax = plot_temporal_importance(temporal, NAMES)
    assert _ticks(ax) == ["a", r"b\$x\$", "c"]
    torch.testing.assert_close(torch.as_tensor(ax.images[0].get_array().data), temporal)
    shown = [label.get_text() for label in ax.get_xticklabels()]
    assert shown == [f"\N{MINUS SIGN}{i}" for i in (4, 3, 2, 1)]


def test_plot_temporal_importance_by_importance():
    temporal, importance = torch.rand(3, 4), torch.tensor([[0.1, 0.5, 0.3], [0.1, 0.6, 0.4]])
    ax = plot_temporal_importance(temporal, NAMES, importance=importance)
    assert _ticks(ax) == [r"b\$x\$", "c", "a"]
    torch.testing.assert_close(torch.as_tensor(ax.images[0].get_array().data), temporal[[1, 2, 0]])
    assert [text.get_text() for text in ax.texts] == ["importance", "0.550", "0.350", "0.100"]


@pytest.mark.stage("system")
@pytest.mark.parametrize("T", [1, 10, 40])
@pytest.mark.parametrize("given", [False, True])
def test_plot_temporal_importance_is_legible(T, given):
    importance = torch.rand(11) if given else None
    ax = plot_temporal_importance(torch.rand(11, T), PM25_VARIABLES, importance=importance)
    assert not _overlaps(ax)
    assert ax.get_xticklabels()[-1].get_text() == "\N{MINUS SIGN}1"


def test_plot_explanation():
    x, alpha, q = torch.randn(6, 3), torch.rand(3, 6).softmax(-1), torch.tensor([0.2, 0.3, 0.5])
    axes = plot_explanation(x, alpha, q, NAMES, num_variables=2)
    assert [ax._left_title.get_text() for ax in axes] == ["c   q = 0.50", r"b\$x\$   q = 0.30"]
    for ax, n in zip(axes, (2, 1), strict=True):
        (line,) = ax.lines
        assert list(line.get_xdata()) == [-6, -5, -4, -3, -2, -1]
        assert list(line.get_ydata()) == pytest.approx(x[:, n].tolist())
        (image,) = ax.images
        torch.testing.assert_close(torch.as_tensor(image.get_array().data), alpha[n : n + 1])
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim()
    assert not _overlaps(*axes)


def test_plot_explanation_of_a_constant_variable():
    axes = plot_explanation(torch.ones(6, 3), torch.rand(3, 6), torch.rand(3), NAMES)
    assert len(axes) == 3 and axes[0].get_ylim() == pytest.approx((0.5, 1.5))


def test_plot_explanation_takes_axes():
    given = plt.figure(layout="constrained").subplots(3, 1)
    arguments = torch.randn(6, 3), torch.rand(3, 6), torch.rand(3), NAMES
    assert plot_explanation(*arguments, axes=given) is given
    with pytest.raises(ValueError, match="Write num_variables=2"):
        plot_explanation(*arguments, axes=given[:2])


def test_plot_forecast():
    y = torch.tensor([[1.0], [2.0], [-3.0], [9.0]])
    mean = torch.tensor([[1.5], [2.5], [2.5], [2.5]])
    ax = plot_forecast(y, mean, mean - 1.0, mean + 1.0, unit="°C")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "90% band, holds 50%",
        "forecast",
        "actual",
    ]
    forecast, actual = ax.lines
    assert list(forecast.get_ydata()) == [1.5, 2.5, 2.5, 2.5]
    assert list(actual.get_ydata()) == [1.0, 2.0, -3.0, 9.0]
    assert ax.get_ylabel() == "°C" and not _overlaps(ax)


def test_plot_forecast_without_a_band():
    ax = plt.figure().add_subplot()
    assert plot_forecast(torch.rand(5), torch.rand(5), ax=ax) is ax
    assert len(ax.collections) == 0 and len(ax.lines) == 2


def test_functions_take_axes():
    ax = plt.figure().add_subplot()
    assert plot_importance(torch.rand(3), NAMES, ax=ax) is ax
    ax = plt.figure().add_subplot()
    assert plot_temporal_importance(torch.rand(3, 4), NAMES, ax=ax) is ax


class TestErrorsTeach:
    def test_names(self):
        for draw in (
            lambda: plot_importance(torch.rand(4), NAMES),
            lambda: plot_importance(torch.tensor(1.0), NAMES),
            lambda: plot_temporal_importance(torch.rand(4, 3), NAMES),
            lambda: plot_temporal_importance(torch.rand(3, 4), NAMES, importance=torch.rand(4)),
            lambda: plot_explanation(torch.rand(5, 2), torch.rand(3, 5), torch.rand(3), NAMES),
        ):
            with pytest.raises(ValueError, match="3 names, expected one name for each variable"):
                draw()

    def test_half_a_band(self):
        with pytest.raises(ValueError, match="one end of the band"):
            plot_forecast(torch.rand(5), torch.rand(5), low=torch.rand(5))


# ------------------------------------------------------------------------------- steps ahead


def test_importances_of_steps_ahead_are_lines_with_bands():
    runs = torch.rand(4, 3, 6)
    found = SeededImportance(runs, torch.rand(4, 3, 5))
    ax = plot_importance_ahead(found, NAMES, num_variables=2)
    order = runs.mean((0, 2)).argsort(descending=True)[:2].tolist()
    low, high = found.interval(0.9)
    assert [line.get_xdata().tolist() for line in ax.lines] == [[1, 2, 3, 4, 5, 6]] * 2
    for line, band, n in zip(ax.lines, ax.collections, order, strict=True):
        assert line.get_ydata().tolist() == pytest.approx(runs.mean(0)[n].tolist())
        edge = band.get_paths()[0].vertices[:, 1]
        assert edge.min() == pytest.approx(float(low[n].min()))
        assert edge.max() == pytest.approx(float(high[n].max()))
    shown = [text.get_text() for text in ax.texts]
    assert sorted(shown) == sorted(NAMES[n].replace("$", r"\$") for n in order)
    assert not _overlaps(ax)


def test_importances_of_steps_ahead_of_one_fit_have_no_band():
    ax = plot_importance_ahead(torch.rand(3, 40), NAMES)
    assert len(ax.lines) == 3 and not ax.collections
    assert not _overlaps(ax)
    one = SeededImportance(torch.rand(1, 3, 2), torch.rand(1, 3, 5))
    assert not plot_importance_ahead(one, NAMES).collections


def test_refuses_importances_without_steps_ahead():
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(N, Y\).*by_target=True"):
        plot_importance_ahead(torch.rand(3), NAMES)
    with pytest.raises(ValueError, match="one name for each variable"):
        plot_importance_ahead(torch.rand(2, 4), NAMES)
