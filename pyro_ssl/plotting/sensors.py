"""Sensors over time: holes filled, series made by a model, and how good forecasts are by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .tracks import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_imputed", "plot_scores", "plot_simulated"]

_SEEN, _FILLED, _MADE, _BAND_OF = "#666666", "#EE7733", "#0077BB", 0.25


def plot_imputed(
    x: Tensor,
    imputed: Any,
    *,
    series: int = 0,
    level: float = 0.9,
    names: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Draw what was observed, and in its holes the mean and the interval of what is not known.

    :param Tensor x: ``(T, B, E)``, NaN where nothing was observed.
    :param imputed: what ``GaussianSSL.impute`` returned for it.
    :param int series: b.
    :param names: of the sensors; by default those of the table that was given.
    :param axes: where to draw, one for each sensor; by default a new figure.
    :returns: the Axes.
    :raises ValueError: on shapes that do not fit.

    **Example**::

        >>> from pyro_ssl.models import Imputed
        >>> x = torch.randn(20, 1, 2)
        >>> x[5:9, 0, 1] = torch.nan
        >>> samples = x.expand(30, 20, 1, 2).nan_to_num(0.0) + 0.1 * torch.randn(30, 20, 1, 2)
        >>> axes = plot_imputed(x, Imputed(x.nan_to_num(0.0), samples))
    """
    x = torch.as_tensor(x).detach().cpu()
    if x.shape != imputed.x.shape:
        raise ValueError(
            f"plot_imputed: x has shape {tuple(x.shape)}, expected {tuple(imputed.x.shape)}, that "
            "of what was imputed; write plot_imputed(x, ssl.impute(x))."
        )
    axes = _axes("plot_imputed", axes, _names(names, imputed.labels, x.shape[-1]))
    filled = imputed.x[:, series].cpu()
    low, high = (end[:, series].cpu() for end in imputed.interval(level))
    steps = torch.arange(1, len(x) + 1)
    for e, ax in enumerate(axes):
        seen = x[:, series, e]
        hole = seen.isnan()
        below, above = (torch.where(hole, end[:, e], torch.nan).tolist() for end in (low, high))
        ax.fill_between(steps.tolist(), below, above, color=_FILLED, alpha=_BAND_OF, linewidth=0)
        inside = torch.where(hole, filled[:, e], torch.nan)
        ax.plot(steps.tolist(), inside.tolist(), color=_FILLED, linewidth=1.6, label="filled")
        ax.plot(steps.tolist(), seen.tolist(), ".", color=_SEEN, markersize=4, label="observed")
    return axes


def plot_simulated(
    x: Tensor,
    simulated: Any,
    *,
    names: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Draw all series of the data beside as many that a model makes, in the same axes.

    :param Tensor x: ``(T, B, E)``.
    :param simulated: what ``GaussianSSL.simulate`` returned.
    :returns: the Axes, one for each sensor. Other parameters as of :func:`plot_imputed`.
    :raises ValueError: if they are of other sensors.

    **Example**::

        >>> from pyro_ssl.models import Simulated
        >>> made = Simulated(torch.randn(20, 3, 2), torch.randn(20, 3, 1))
        >>> axes = plot_simulated(torch.randn(20, 3, 2), made)
    """
    x = torch.as_tensor(x).detach().cpu()
    if x.shape[-1] != simulated.x.shape[-1]:
        raise ValueError(
            f"plot_simulated: x has {x.shape[-1]} sensors, expected {simulated.x.shape[-1]}, those "
            "of the model; write plot_simulated(x, ssl.simulate(len(x), x.shape[1]))."
        )
    axes = _axes("plot_simulated", axes, _names(names, simulated.labels, x.shape[-1]))
    for e, ax in enumerate(axes):
        for values, color, name in ((x, _SEEN, "data"), (simulated.x.cpu(), _MADE, "simulated")):
            for b in range(values.shape[1]):
                at = list(range(1, len(values) + 1))
                label = name if b == 0 else None
                ax.plot(at, values[:, b, e].tolist(), color=color, linewidth=0.9, label=label)
    return axes


def plot_scores(scores: Any, *, names: Sequence[str] | None = None, axes: Any = None) -> Any:
    """Draw CRPS and coverage of forecasts by step ahead, a line for each sensor.

    :param scores: what ``GaussianSSL.score`` returned.
    :param axes: two, by default of a new figure.
    :returns: the Axes.

    **Example**::

        >>> from pyro_ssl.models import Scores
        >>> one = torch.rand(6, 2)
        >>> axes = plot_scores(Scores(-one, one, one, one, one))
    """
    if axes is None:
        axes = new_figure((8.4, 3.2)).subplots(1, 2).tolist()
    if len(axes) != 2:
        raise ValueError(f"plot_scores: found {len(axes)} axes, expected 2, of CRPS and coverage.")
    steps = list(range(1, len(scores.crps) + 1))
    for e, name in enumerate(_names(names, scores.labels, scores.crps.shape[1])):
        for ax, values in zip(axes, (scores.crps, scores.coverage), strict=True):
            ax.plot(steps, values[:, e].tolist(), linewidth=1.4, label=name)
    axes[1].axhline(scores.level, color=_SEEN, linestyle="--", linewidth=1.0, label="level")
    axes[1].set_ylim(0.0, 1.02)
    for ax, title in zip(axes, ("CRPS", f"in {scores.level:.0%} intervals"), strict=True):
        ax.set_xlabel("steps ahead")
        ax.set_title(title)
        ax.spines[["top", "right"]].set_visible(False)
    return axes


def _names(names: Sequence[str] | None, labels: Any, num_sensors: int) -> list[str]:
    if names is None and labels is not None:
        names = labels.sensors
    return [f"sensor {e}" for e in range(num_sensors)] if names is None else list(names)


def _axes(caller: str, axes: Sequence[Axes] | None, names: list[str]) -> Sequence[Axes]:
    """One for each sensor, with its name."""
    if axes is None:
        figure = new_figure((8.4, 0.9 + 1.3 * len(names)))
        axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0].tolist()
    if len(axes) < len(names):
        raise ValueError(
            f"{caller}: found {len(axes)} axes, expected one for each of {len(names)}."
        )
    for ax, name in zip(axes, names, strict=False):
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
    return axes[: len(names)]
