"""Pictures of a path in the plane and over time: what is drawn is what was given."""

import math

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch

from pyro_ssl.models import Tracked
from pyro_ssl.plotting import plot_coordinates, plot_track

PAST, FUTURE = to_rgb("#0077BB"), to_rgb("#EE7733")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def walk(num_steps):
    angle = torch.arange(num_steps) / 5
    return torch.stack([angle.cos(), angle.sin()], -1)


def tubes(ax):
    return {to_rgb(p.get_facecolor()): p for p in ax.patches if isinstance(p, PathPatch)}


def lines(ax):
    return {line.get_label(): torch.tensor(line.get_xydata().tolist()) for line in ax.lines}


def pieces(patch):
    """A tube's convex polygons."""
    outline = patch.get_path()
    outline.should_simplify = False  # it would be, by the size of pixels that there are none of yet
    return outline.to_polygons()


def holds(patch, points):
    """Which points are in which of a tube's pieces, ``(pieces, points)``."""
    outlines = [matplotlib.path.Path(piece) for piece in pieces(patch)]
    return torch.tensor([outline.contains_points(points.tolist()).tolist() for outline in outlines])


def test_track_draws_points_paths_and_where_the_forecast_starts():
    path = walk(30)
    x = path + 0.1 * torch.randn(30, 2)
    band = torch.full((30, 2), 0.1)
    past, future = (path[:20], band[:20]), (path[20:], band[20:])
    ax = plot_track(x, past, future, truth=path)
    drawn = lines(ax)
    assert torch.equal(drawn["observed"], x[:20])
    assert torch.equal(drawn["held out"], x[20:])
    assert torch.equal(drawn["true path"], path)
    assert torch.equal(drawn["smoothed"], path[:20])
    assert torch.equal(drawn["forecast"], path[19:])  # no gap
    assert torch.equal(drawn["forecast starts"], path[19:20])
    assert set(tubes(ax)) == {PAST, FUTURE}
    named = [text.get_text() for text in ax.get_legend().texts]
    assert named == list(drawn) and len(named) == 6


def test_track_without_forecast_or_truth_and_in_given_axes():
    _, ax = plt.subplots()
    path = walk(10)
    found = plot_track(path, (path, torch.ones(10, 2)), legend=False, ax=ax)
    assert found is ax and ax.get_legend() is None
    assert set(lines(ax)) == {"observed", "smoothed"} and set(tubes(ax)) == {PAST}


def test_a_tube_of_one_step_is_the_ellipse_of_that_level():
    covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]])
    mean = torch.tensor([[1.0, -2.0]])
    ax = plot_track(mean, (mean, covariance), level=0.9)
    (ellipse,) = pieces(tubes(ax)[PAST])
    away = torch.tensor(ellipse) - mean
    radius = (away @ covariance[0].inverse() * away).sum(-1)
    torch.testing.assert_close(radius, torch.full_like(radius, -2 * math.log(0.1)))  # chi², 2 d.f.
    draws = torch.distributions.MultivariateNormal(mean[0], covariance[0]).sample((2000,))
    # The polygon's area is that of the ellipse but for .13 %. Binomial, 5 s.e.: false alarms 6e-7.
    share = holds(tubes(ax)[PAST], draws).double().mean()
    assert abs(float(share) - 0.9) < 5 * math.sqrt(0.09 / 2000) + 0.002


def test_a_tube_has_no_gap_between_steps_and_is_their_hull_alone():
    mean = torch.tensor([[0.0, 0.0], [4.0, 1.0]])
    scale = torch.tensor([[0.1, 0.2], [0.4, 0.3]])
    tube = tubes(plot_track(mean, (mean, scale)))[PAST]
    between, last = pieces(tube)
    share = torch.linspace(0.0, 1.0, 20).unsqueeze(-1)
    assert holds(tube, (1 - share) * mean[0] + share * mean[1]).any(0).all()
    radius = math.sqrt(-2 * math.log(0.1))
    # The hull reaches as far in each direction as the ellipse of the two that goes further.
    way = torch.randn(50, 2)
    reach = torch.tensor(between) @ way.T
    expected = (mean @ way.T + radius * (scale.unsqueeze(1) * way).norm(dim=-1)).amax(0)
    torch.testing.assert_close(reach.amax(0), expected, rtol=5e-3, atol=5e-3)
    assert torch.tensor(last)[:, 0].min() > 2.5  # the last step's ellipse alone


def test_tubes_that_overlap_have_one_shade():
    """All pieces run the same way round, so that the nonzero rule fills their union."""
    path = walk(40)  # more than once around
    tube = tubes(plot_track(path, (path, torch.full((40, 2), 0.2))))[PAST]
    for piece in pieces(tube):
        x, y = torch.tensor(piece).T
        assert float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) > 0  # counterclockwise


def test_limits_fit_the_paths_and_not_the_tubes():
    path = walk(30)
    ax = plot_track(path, (path, torch.full((30, 2), 50.0)))
    ax.figure.draw_without_rendering()
    assert max(map(abs, (*ax.get_xlim(), *ax.get_ylim()))) < 2


@pytest.mark.parametrize("batch", [False, True])
def test_standard_deviations_and_covariances_are_the_same(batch):
    path, scale = walk(12), 0.1 + torch.rand(12, 2)
    covariance = torch.diag_embed(scale.square())
    if batch:
        path, scale = path.unsqueeze(1), scale.unsqueeze(1)
    shapes = [
        tubes(plot_track(path, Tracked(path, spread)))[PAST].get_path().vertices
        for spread in (scale, covariance)
    ]
    torch.testing.assert_close(*map(torch.tensor, shapes))


def test_missing_points_are_left_out_and_a_certain_path_has_a_tube_of_no_width():
    path = walk(10)
    x = path.clone()
    x[3] = math.nan
    ax = plot_track(x, (path, torch.zeros(10, 2)))
    ax.figure.draw_without_rendering()
    assert all(map(math.isfinite, ax.get_xlim()))
    corners = torch.tensor(pieces(tubes(ax)[PAST])[0])
    assert (corners[:, None] - path).norm(dim=-1).amin(1).max() < 1e-5


def test_coordinates_draw_bands_of_their_level():
    path, scale = walk(30), 0.1 + torch.rand(30, 2)
    x = path + 0.1
    past, future = (path[:20], scale[:20]), (path[20:], torch.diag_embed(scale[20:].square()))
    axes = plot_coordinates(x, past, future, truth=path, level=0.9)
    assert len(axes) == 2
    for e, ax in enumerate(axes):
        drawn = lines(ax)
        steps = torch.arange(1.0, 31)
        assert torch.equal(drawn["observed"], torch.stack([steps, x[:, e]], -1)[:20])
        assert torch.equal(drawn["held out"], torch.stack([steps, x[:, e]], -1)[20:])
        assert torch.equal(drawn["smoothed"], torch.stack([steps, path[:, e]], -1)[:20])
        assert torch.equal(drawn["forecast"], torch.stack([steps, path[:, e]], -1)[20:])
        assert ax.get_ylabel() == f"coordinate {e + 1}"
        bands = {to_rgb(band.get_facecolor()[0]): band for band in ax.collections}
        for color, part in ((PAST, slice(0, 20)), (FUTURE, slice(20, 30))):
            corners = torch.tensor(bands[color].get_paths()[0].vertices)
            for t, middle, half in zip(
                steps[part], path[part, e], 1.6449 * scale[part, e], strict=True
            ):
                at = corners[corners[:, 0] == t, 1]
                assert float(at.max()) == pytest.approx(float(middle + half), abs=1e-4)
                assert float(at.min()) == pytest.approx(float(middle - half), abs=1e-4)
    assert axes[0].get_legend() is not None and axes[1].get_legend() is None


def test_coordinates_of_one_number_in_given_axes():
    _, ax = plt.subplots()
    x = torch.randn(8, 1, 1)
    assert plot_coordinates(x, (x, torch.ones(8, 1, 1)), legend=False, axes=[ax]) == [ax]
    assert ax.get_legend() is None and set(lines(ax)) == {"observed", "smoothed"}


def test_what_does_not_fit_is_told():
    path = walk(10)
    band = path, torch.ones(10, 2)
    with pytest.raises(ValueError, match=r"x\[:, b\] for sequence b"):
        plot_track(path.unsqueeze(1).expand(-1, 3, -1), band)
    with pytest.raises(ValueError, match=r"plot_coordinates\(...\) for another number"):
        plot_track(torch.randn(10, 3), (torch.randn(10, 3), torch.ones(10, 3)))
    with pytest.raises(ValueError, match=r"smoothed has mean \(10, 2\) and spread \(9, 2\)"):
        plot_track(path, (path, torch.ones(9, 2)))
    with pytest.raises(ValueError, match=r"forecast has mean \(5, 1\)"):
        plot_track(path, band, (torch.ones(5, 1), torch.ones(5, 1)))
    with pytest.raises(ValueError, match="level is 90"):
        plot_track(path, band, level=90)
    with pytest.raises(ValueError, match="found 1 axes, expected one for each of 2"):
        plot_coordinates(path, band, axes=[plt.subplots()[1]])
