"""A point that moves in the plane: observations, smoothed path and forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_coordinates", "plot_track"]

_PAST, _FUTURE = "#0077BB", "#EE7733"  # Paul Tol's "vibrant"
_TRUTH, _POINTS, _INK = "#666666", "#999999", "#222222"
_LABELS = {"smoothed": _PAST, "forecast": _FUTURE, "true path": _TRUTH}
_CORNERS = 72  # of an ellipse
# drawing order
_BELOW, _BAND, _LINE, _ABOVE = 1.0, 1.5, 2.0, 3.0
_SEEN: dict[str, Any] = {"marker": ".", "ms": 5.5, "mew": 0.0, "color": _POINTS}
_HELD_OUT: dict[str, Any] = {"marker": "o", "ms": 3.2, "mew": 0.8, "color": _POINTS, "mfc": "none"}
_RING: dict[str, Any] = {"marker": "o", "ms": 7, "mew": 1.5, "mfc": "white", "mec": _INK, "ls": ""}

#: an estimate of a path: its mean and its spread
Band = tuple[Tensor, Tensor]


class _Track(NamedTuple):
    """What both forms draw, without a batch dimension; spreads are covariances."""

    x: Tensor  # (T + any, E)
    past: Band  # (T, E), (T, E, E)
    future: Band | None
    truth: Tensor | None


def plot_track(
    x: Tensor,
    smoothed: Band,
    forecast: Band | None = None,
    *,
    truth: Tensor | None = None,
    level: float = 0.9,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a path in the plane: points, the smoothed path and its forecast, each in a tube.

    A tube is the union of the ellipses of all steps, each of which holds the path at its step with
    probability ``level``, and of the convex hulls of neighbouring ones. Axes fit points and paths;
    tubes may be cut off. A ring marks the last smoothed step, from which the forecast starts.

    :param Tensor x: ``(T, 2)`` or ``(T, 1, 2)``, what was observed, NaN where nothing was. Points
        after the smoothed steps are drawn hollow: the forecast has not seen them.
    :param smoothed: mean, shaped as ``x``, and spread: standard deviations of that shape, or
        covariances ``(T, 2, 2)``. What ``GaussianSSL.smooth`` and ``filter`` return fits.
    :param forecast: likewise, of the steps that follow.
    :param Tensor truth: the true path, shaped as ``x``, of any number of steps.
    :param float level: of the tubes, were the spreads Gaussian.
    :param bool legend: name the parts above the axes. ``ax.get_legend_handles_labels()`` gives the
        names for one legend of several panels.
    :param ax: where to draw; by default a new figure.
    :raises ValueError: on shapes that do not fit, or a level outside (0, 1).

    **Example**::

        >>> import torch
        >>> angle = torch.arange(30) / 5
        >>> path = torch.stack([angle.cos(), angle.sin()], -1)
        >>> x = path + 0.2 * torch.randn(30, 2)
        >>> ax = plot_track(x, (path[:20], torch.full((20, 2), 0.1)), truth=path)
    """
    caller = "plot_track"
    track = _read(caller, x, smoothed, forecast, truth)
    if track.x.shape[-1] != 2:
        raise ValueError(
            f"{caller}: found points of {track.x.shape[-1]} coordinates, expected 2; write "
            "plot_coordinates(...) for another number."
        )
    # Of a Gaussian in the plane the squared radius is exponential.
    squared_radius = -2.0 * math.log(1.0 - _checked_level(caller, level))
    if ax is None:
        ax = new_figure((5.2, 5.4)).add_subplot()
    T = len(track.past[0])
    _draw_points(ax, track.x[:T].T, track.x[T:].T)
    if track.truth is not None:
        _draw_truth(ax, *_lists(track.truth))
    for mean, covariance, color, name in _parts(track):
        ax.add_artist(_tube(mean, squared_radius * covariance, color))
        if name == "forecast":  # starts where the past ends
            mean = torch.cat([track.past[0][-1:], mean])
        ax.plot(*_lists(mean), color=color, linewidth=1.9, zorder=_ABOVE, label=name)
    if track.future is not None:
        last = _lists(track.past[0][-1:])
        ax.plot(*last, zorder=_ABOVE + 1, label="forecast starts", **_RING)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.06)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        _legend(ax, columns=3)
    return ax


def plot_coordinates(
    x: Tensor,
    smoothed: Band,
    forecast: Band | None = None,
    *,
    truth: Tensor | None = None,
    level: float = 0.9,
    legend: bool = True,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Draw each coordinate of a path over time, with its bands; see :func:`plot_track`.

    :param Tensor x: ``(T, E)`` or ``(T, 1, E)``, of any number of coordinates E.
    :param axes: where to draw, one for each coordinate; by default a new figure.
    :returns: the Axes.
    :raises ValueError: as :func:`plot_track`, or if there are fewer axes than coordinates.

    Other parameters as there. For bands that should hold later points, give spreads that include
    the noise.
    """
    caller = "plot_coordinates"
    track = _read(caller, x, smoothed, forecast, truth)
    T, E = track.past[0].shape
    reach = NormalDist().inv_cdf(0.5 + 0.5 * _checked_level(caller, level))
    if axes is None:
        figure = new_figure((8.4, 0.9 + 1.9 * E))
        axes = figure.subplots(E, 1, sharex=True, squeeze=False)[:, 0].tolist()
    if len(axes) < E:
        raise ValueError(f"{caller}: found {len(axes)} axes, expected one for each of {E}.")
    steps = list(range(1, max(len(track.x), T) + 1))
    for e, ax in enumerate(axes[:E]):
        points = torch.stack([torch.arange(1.0, len(track.x) + 1), track.x[:, e]])
        _draw_points(ax, points[:, :T], points[:, T:])
        if track.truth is not None:
            values = track.truth[:, e].tolist()
            _draw_truth(ax, list(range(1, len(values) + 1)), values)
        start = 1
        for mean, covariance, color, name in _parts(track):
            at = list(range(start, start + len(mean)))
            middle, half = mean[:, e], reach * covariance[:, e, e].sqrt()
            ends = (middle - half).tolist(), (middle + half).tolist()
            ax.fill_between(at, *ends, color=color, alpha=0.25, linewidth=0, zorder=_BAND)
            ax.plot(at, middle.tolist(), color=color, linewidth=1.9, zorder=_ABOVE, label=name)
            start += len(mean)
        if track.future is not None:
            ax.axvline(T + 0.5, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=_BELOW)
        ax.set_xlim(steps[0] - 0.5, max(steps[-1], start - 1) + 0.5)
        ax.set_ylabel(f"coordinate {e + 1}")
        ax.spines[["top", "right"]].set_visible(False)
    axes[E - 1].set_xlabel("step t")
    if legend:
        _legend(axes[0], columns=5)
    return axes


def _read(
    caller: str, x: Tensor, smoothed: Band, forecast: Band | None, truth: Tensor | None
) -> _Track:
    points = _flat(caller, "x", x)
    past = _band(caller, "smoothed", smoothed, points.shape[-1])
    future = None if forecast is None else _band(caller, "forecast", forecast, points.shape[-1])
    return _Track(points, past, future, None if truth is None else _flat(caller, "truth", truth))


def _flat(caller: str, name: str, values: Tensor) -> Tensor:
    """``(T, E)`` of ``(T, E)`` or ``(T, 1, E)``."""
    values = values.detach().cpu().double()
    flat = values.squeeze(1) if values.dim() == 3 else values
    if flat.dim() != 2:
        raise ValueError(
            f"{caller}: {name} has shape {tuple(values.shape)}, expected (T, E) or (T, 1, E), one "
            f"sequence; write {name}[:, b] for sequence b."
        )
    return flat


def _band(caller: str, name: str, band: Band, E: int) -> Band:
    """Mean ``(T, E)`` and covariance ``(T, E, E)``."""
    mean, spread = _flat(caller, name, band[0]), band[1].detach().cpu().double()
    if spread.shape != (len(mean), E, E) or spread.shape == band[0].shape:
        spread = _flat(caller, name, spread)
        if not spread.shape == mean.shape == (len(mean), E):
            raise ValueError(
                f"{caller}: {name} has mean {tuple(mean.shape)} and spread {tuple(spread.shape)}, "
                f"expected ({len(mean)}, {E}) both, or covariances ({len(mean)}, {E}, {E})."
            )
        spread = torch.diag_embed(spread.square())
    return mean, spread


def _checked_level(caller: str, level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"{caller}: level is {level}, expected a probability between 0 and 1.")
    return level


def _parts(track: _Track) -> list[tuple[Tensor, Tensor, str, str]]:
    """Mean, covariance, colour and name of the smoothed path, then of the forecast."""
    past = (*track.past, _PAST, "smoothed")
    return [past] if track.future is None else [past, (*track.future, _FUTURE, "forecast")]


def _draw_points(ax: Axes, seen: Tensor, later: Tensor) -> None:
    """Draw ``(2, steps)`` each."""
    ax.plot(*seen.tolist(), ls="", zorder=_BELOW, label="observed", **_SEEN)
    if later.shape[-1]:
        ax.plot(*later.tolist(), ls="", zorder=_BELOW, label="held out", **_HELD_OUT)


def _draw_truth(ax: Axes, across: Sequence[float], up: Sequence[float]) -> None:
    ax.plot(across, up, color=_TRUTH, linewidth=1.1, zorder=_LINE, label="true path")


def _tube(mean: Tensor, shape: Tensor, color: str) -> Any:
    """The union of the ellipses (z - m) S^{-1} (z - m) = 1, and of the hulls of neighbours.

    The hull of two convex sets has, in each direction, the furthest point of the one that reaches
    further. All outlines run the same way round, so that filling them as one path gives the union,
    without seams where they overlap.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    angle = 2.0 * math.pi / _CORNERS * torch.arange(_CORNERS, dtype=mean.dtype)
    way = torch.stack([angle.cos(), angle.sin()], -1)  # (corners, 2)
    pushed = way @ shape  # (T, corners, 2)
    half = (pushed * way).sum(-1).clamp(min=1e-12).sqrt()  # from the centre to the tangent
    corner = mean.unsqueeze(1) + pushed / half.unsqueeze(-1)
    reach = mean @ way.T + half
    follow = torch.cat([torch.arange(1, len(mean)), torch.tensor([len(mean) - 1])])
    hull = torch.where((reach >= reach[follow]).unsqueeze(-1), corner, corner[follow])
    outline = Path.make_compound_path(*(Path(one.numpy()) for one in hull))
    return PathPatch(outline, facecolor=color, edgecolor="none", alpha=0.25, zorder=_BAND)


def _legend(ax: Axes, columns: int) -> None:
    """Write the names in rows above the axes, those of paths in their colours."""
    handles, names = ax.get_legend_handles_labels()
    ax.legend(
        handles,
        names,
        frameon=False,
        labelcolor=[_LABELS.get(name, _INK) for name in names],
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
        columnspacing=1.4,
        handlelength=1.4,
    )


def _lists(points: Tensor) -> list[list[float]]:
    """Horizontal and vertical places of ``(N, 2)``."""
    return points.T.tolist()


def new_figure(size: tuple[float, float]) -> Any:
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, layout="constrained")
