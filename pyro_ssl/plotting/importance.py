"""Which variable matters, and which step: importances, one forecast explained, forecasts in time.

Variables stand in the order of their importance. Bars start at zero, and shades are those of one
colour, from white at zero to the darkest at the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_explanation", "plot_forecast", "plot_importance", "plot_temporal_importance"]

_BAR, _INK, _FAINT = "#77AADD", "#222222", "#777777"
_ACTUAL, _MEAN, _BAND = "#222222", "#0077BB", "#99CCEE"
_SHADES = "Blues"


def plot_importance(
    importance: Tensor,
    names: Sequence[str],
    *,
    label: str = "importance I",
    ax: Axes | None = None,
) -> Axes:
    """Draw each variable's importance as a bar, the largest first.

    :param Tensor importance: ``(N,)``; or ``(S, N)``, of S seeds: the bar is their mean, and each
        seed is a dot.
    :param names: of the N variables.
    :param str label: of the horizontal axis.
    :param ax: where to draw; by default a new figure that fits.
    """
    runs = _rows(importance, names, "plot_importance")
    mean = runs.mean(0)
    # barh puts the first at the bottom
    order = mean.argsort(descending=True, stable=True).flip(0).tolist()
    ax = _axes(ax, (6.4, 0.8 + 0.3 * len(order)))
    places = list(range(len(order)))
    ax.barh(places, mean[order].tolist(), height=0.72, color=_BAR, zorder=1)
    for place, n in zip(places, order, strict=True):
        if len(runs) > 1:
            ax.plot(runs[:, n].tolist(), [place] * len(runs), "o", color=_INK, ms=3.5, alpha=0.6)
        ax.annotate(
            f"{float(mean[n]):.3f}",
            (max(float(runs[:, n].max()), 0.0), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=_FAINT,
        )
    ax.set_yticks(places, [_literal(names[n]) for n in order])
    ax.set_xlabel(label)
    ax.margins(x=0.12, y=0.02)
    _clean(ax)
    return ax


def plot_temporal_importance(
    temporal: Tensor,
    names: Sequence[str],
    *,
    importance: Tensor | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw T^n, the mean attention to each step of each variable, as a heat map.

    Every row sums to one: shades compare the steps of one variable, not variables.

    :param Tensor temporal: ``(N, T)``, oldest step first.
    :param names: of the N variables.
    :param importance: ``(N,)``; where given, the most important variable comes first, and each
        row has its importance at the right.
    :param ax: where to draw; by default a new figure that fits.
    """
    temporal = temporal.detach().cpu()
    _check(temporal, names, 0, "plot_temporal_importance")
    N, T = temporal.shape
    order, beside = list(range(N)), None
    if importance is not None:
        shares = _rows(importance, names, "plot_temporal_importance").mean(0)
        order = shares.argsort(descending=True, stable=True).tolist()
        beside = [f"{float(shares[n]):.3f}" for n in order]
    ax = _axes(ax, (2.6 + 0.42 * T, 1.0 + 0.3 * N))
    image = _heat(ax, temporal[order], [names[n] for n in order])
    if beside is not None:
        _beside(ax, beside, "importance")
    bar = ax.figure.colorbar(image, ax=ax, pad=0.18 if beside else 0.03, shrink=0.85)
    bar.set_label("share of attention")
    bar.outline.set_visible(False)
    return ax


def plot_explanation(
    x: Tensor,
    alpha: Tensor,
    q: Tensor,
    names: Sequence[str],
    *,
    num_variables: int = 5,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Explain one forecast: the variables that it uses, and the attention to their steps.

    A panel for each of the most important variables of this window has its values as a line, and
    the attention to each step as shades; all panels share one range of shades.

    :param Tensor x: ``(T, N)``, one window, oldest step first.
    :param Tensor alpha: ``(N, T)``, its attention.
    :param Tensor q: ``(N,)``, the posterior of the variable, or the weights of the forecast.
    :param names: of the N variables.
    :param int num_variables: number of panels, at most.
    :param axes: where to draw, one for each panel; by default a new figure.
    :returns: the Axes, the most important variable's first.
    """
    import matplotlib.pyplot as plt

    x, alpha, q = (part.detach().cpu() for part in (x, alpha, q))
    for part, dim in ((x, 1), (alpha, 0), (q, 0)):
        _check(part, names, dim, "plot_explanation")
    order = q.argsort(descending=True, stable=True)[:num_variables].tolist()
    if axes is None:
        size = (6.4, 0.9 + 0.95 * len(order))
        figure = plt.figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(order), 1, sharex=True, squeeze=False)[:, 0].tolist()
    if len(axes) < len(order):
        raise ValueError(
            f"plot_explanation: found {len(axes)} axes, expected one for each of {len(order)} "
            f"variables. Write num_variables={len(axes)}."
        )
    steps = list(range(-len(x), 0))
    most = float(alpha[order].max())
    for ax, n in zip(axes, order, strict=False):
        image = ax.imshow(
            alpha[n : n + 1].numpy(),
            cmap=_SHADES,
            vmin=0.0,
            vmax=1.6 * most,  # so that the line stays legible on the darkest shade
            extent=(steps[0] - 0.5, -0.5, 0.0, 1.0),
            aspect="auto",
            transform=ax.get_xaxis_transform(),
            zorder=0,
        )
        ax.plot(steps, x[:, n].tolist(), "o-", color=_INK, linewidth=1.4, ms=3.5)
        ax.set_xlim(steps[0] - 0.5, -0.5)
        low, high = float(x[:, n].min()), float(x[:, n].max())
        room = 0.15 * (high - low) or 0.5
        ax.set_ylim(low - room, high + room)
        ax.set_title(f"{_literal(names[n])}   q = {float(q[n]):.2f}", size=9, loc="left", pad=3)
        ax.tick_params(labelsize=8)
        _clean(ax)
    last = axes[len(order) - 1]
    _step_ticks(last, steps)
    bar = last.figure.colorbar(image, ax=list(axes[: len(order)]), pad=0.02, shrink=0.6)
    bar.set_label("share of attention")
    bar.ax.set_ylim(0.0, most)
    bar.outline.set_visible(False)
    return axes


def plot_forecast(
    y: Tensor,
    mean: Tensor,
    low: Tensor | None = None,
    high: Tensor | None = None,
    *,
    unit: str = "",
    level: float = 0.9,
    ax: Axes | None = None,
) -> Axes:
    """Draw actual values, their forecasts, and the forecasts' band.

    :param Tensor y: ``(S,)`` or ``(S, 1)``, the actual values of S consecutive steps.
    :param Tensor mean: likewise, the forecasts.
    :param low: likewise, lower ends of the band; given together with ``high``.
    :param high: likewise, upper ends.
    :param str unit: of all of them; labels the vertical axis.
    :param float level: of the band, for the legend.
    :param ax: where to draw; by default a new figure.
    """
    ax = _axes(ax, (8.4, 3.4))
    actual, forecast = (part.detach().cpu().flatten() for part in (y, mean))
    steps = list(range(len(actual)))
    if (low is None) != (high is None):
        raise ValueError(
            "plot_forecast: found one end of the band, expected low and high, or none."
        )
    if low is not None and high is not None:
        lower, upper = (part.detach().cpu().flatten() for part in (low, high))
        covered = float(((actual >= lower) & (actual <= upper)).double().mean())
        ax.fill_between(
            steps,
            lower.tolist(),
            upper.tolist(),
            color=_BAND,
            linewidth=0,
            alpha=0.6,
            label=f"{level:.0%} band, holds {covered:.0%}",
        )
    ax.plot(steps, forecast.tolist(), color=_MEAN, linewidth=1.4, label="forecast")
    ax.plot(steps, actual.tolist(), ".", color=_ACTUAL, ms=3.5, label="actual")
    ax.set(xlabel="step", ylabel=unit)
    ax.margins(x=0.01)
    ax.legend(
        frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2
    )
    _clean(ax)
    return ax


def _heat(ax: Axes, rows: Tensor, names: Sequence[str]) -> Any:
    """Shades of ``(N, T)``, with a white line between the cells."""
    N, T = rows.shape
    image = ax.imshow(rows.numpy(), cmap=_SHADES, vmin=0.0, aspect="auto")
    ax.set_xticks([t - 0.5 for t in range(1, T)], minor=True)
    ax.set_yticks([n - 0.5 for n in range(1, N)], minor=True)
    ax.grid(which="minor", color="white", linewidth=1.2)
    ax.tick_params(which="both", length=0)
    ax.set_yticks(range(N), [_literal(name) for name in names])
    _step_ticks(ax, list(range(-T, 0)), list(range(T)))
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def _step_ticks(ax: Axes, steps: Sequence[int], places: Sequence[float] | None = None) -> None:
    """Number steps from the target, which is 0."""
    every = max(1, -(-len(steps) // 12))
    places = steps if places is None else places
    shown = [i for i, step in enumerate(steps) if step % every == (-1) % every]
    labels = [f"\N{MINUS SIGN}{-steps[i]}" for i in shown]
    ax.set_xticks([places[i] for i in shown], labels)
    ax.set_xlabel("steps from the target")


def _beside(ax: Axes, texts: Sequence[str], title: str) -> None:
    for place, text in [(-0.8, title), *enumerate(texts)]:
        ax.annotate(
            text,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=_FAINT,
            annotation_clip=False,
        )


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    import matplotlib.pyplot as plt

    if ax is not None:
        return ax
    return plt.figure(figsize=size, layout="constrained").add_subplot()


def _clean(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)


def _rows(values: Tensor, names: Sequence[str], caller: str) -> Tensor:
    """``(S, N)`` of ``(N,)`` or ``(S, N)``."""
    values = values.detach().cpu().double()
    _check(values, names, -1, caller)
    return torch.atleast_2d(values)


def _check(values: Tensor, names: Sequence[str], dim: int, caller: str) -> None:
    if values.ndim == 0 or values.shape[dim] != len(names):
        raise ValueError(
            f"{caller}: found values of shape {tuple(values.shape)} and {len(names)} names, "
            "expected one name for each variable."
        )


def _literal(text: str) -> str:
    """Keep matplotlib from reading a dollar sign as mathematics."""
    return text.replace("$", r"\$")
