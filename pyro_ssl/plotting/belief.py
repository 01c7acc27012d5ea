"""A recurrent network's dependences among units, and its memory by lag."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .curves import _BASELINE, _INK, LINE_COLORS, label_right

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..belief import DependencyGraph, MemoryHorizon

__all__ = ["plot_dependency_graph", "plot_memory_horizon"]

_NAMED = 24  # units that have room for a name each


def plot_dependency_graph(graph: DependencyGraph, *, ax: Axes | None = None) -> Axes:
    """Draw which unit reads which, the blocks one after the other along the diagonal.

    The larger a weight, the darker its cell. Weights up to the threshold are crossed out, or left
    white where there is no room. Blocks of two units or more are framed.

    :param graph: what :func:`~pyro_ssl.belief.dependency_graph` returns.
    :param ax: where to draw; by default a new figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    H, order = len(graph.strength), graph.order
    if ax is None:
        side = min(max(2.8 + 0.14 * H, 3.6), 8.0)
        ax = plt.figure(figsize=(side + 0.8, side), layout="constrained").add_subplot()
    strength = graph.strength[order][:, order].cpu()
    kept = graph.adjacency[order][:, order].cpu()
    greatest = float(strength.max()) or 1.0
    shown = strength.where(kept, strength.new_tensor(0.0)).tolist()
    image = ax.imshow(shown, cmap="Blues", vmin=0.0, vmax=greatest, interpolation="nearest")
    below = ((strength > 0) & ~kept).nonzero().tolist()
    if below and H <= _NAMED:
        rows, columns = zip(*below, strict=True)
        ax.plot(columns, rows, "x", color=_BASELINE, markersize=3, markeredgewidth=0.7)
    start = 0
    for block in graph.blocks():
        if len(block) > 1:
            corner, size = (start - 0.5, start - 0.5), len(block)
            frame = Rectangle(
                corner, size, size, fill=False, edgecolor=LINE_COLORS[1], linewidth=1.6
            )
            frame.set_clip_on(False)
            ax.add_patch(frame)
        start += len(block)
    if H <= _NAMED:
        names = [str(unit) for unit in order.tolist()]
        ax.set_xticks(range(H), names, size=8 if H <= 16 else 6.5)
        ax.set_yticks(range(H), names, size=8 if H <= 16 else 6.5)
    else:
        ax.set_xticks([])
        ax.set_yticks([])
    ax.tick_params(length=0)
    ax.set(xlabel="unit that is read, at t − 1", ylabel="unit that reads, at t")
    count = len(graph.blocks())
    title = f"{H} unit{'s' * (H != 1)} in {count} block{'s' * (count != 1)}"
    ax.set_title(title, size=10, color=_INK)
    ax.spines[:].set_color("#CCCCCC")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=30)
    bar.set_label("size of the weight")
    bar.outline.set_visible(False)
    if 0.0 < float(graph.threshold) < greatest:
        bar.ax.axhline(float(graph.threshold), color=LINE_COLORS[1], linewidth=1.6)
    return ax


def plot_memory_horizon(
    curves: MemoryHorizon | Mapping[str, MemoryHorizon],
    *,
    floor: float = 1e-4,
    ax: Axes | None = None,
) -> Axes:
    """Draw how much a changed latent moves the prediction, by lag, with two standard errors.

    The horizon, the last lag above the threshold (dashed), has a ring and stands beside the name.

    :param curves: what :func:`~pyro_ssl.belief.memory_horizon` returns, one or several by name.
    :param float floor: where the logarithmic axis starts; smaller values are drawn there.
    :param ax: where to draw; by default a new figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        ax = plt.figure(figsize=(7.2, 4.2), layout="constrained").add_subplot()
    ax.set_yscale("log")
    ax.set_ylim(floor, 1.15)
    named: Mapping[str, MemoryHorizon] = curves if isinstance(curves, Mapping) else {"": curves}
    labels: list[tuple[float, str, str]] = []
    for (name, found), color in zip(named.items(), LINE_COLORS * len(named), strict=False):
        lags = found.lags.tolist()
        tv = found.tv.clamp(min=floor).tolist()
        error = 2.0 * found.standard_error.nan_to_num(0.0)
        low, high = ((found.tv + sign * error).clamp(min=floor).tolist() for sign in (-1, 1))
        ax.fill_between(lags, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(lags, tv, color=color, linewidth=1.8, marker="o", markersize=3.5, clip_on=False)
        at = found.horizon
        if at:
            ax.plot([at], [tv[at - 1]], "o", color=color, markersize=9, fillstyle="none")
        label = f"horizon {'≥ ' if at == lags[-1] else ''}{at}"
        labels.append((tv[-1], f"{name}, {label}" if name else label, color))
    for threshold in {found.threshold for found in named.values()}:
        ax.axhline(threshold, color=_BASELINE, linewidth=1.0, linestyle=(0, (5, 3)), zorder=0)
    decades = [10.0**k for k in range(math.ceil(math.log10(floor) - 1e-9), 1)]
    ax.set_yticks([floor, *(d for d in decades if d > 1.5 * floor)])
    ax.yaxis.set_major_formatter(lambda y, _: f"{'≤ ' if y <= floor * 1.001 else ''}{y:.3g}")
    last = max(int(found.lags[-1]) for found in named.values())
    ax.set_xlim(0.6, last + 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(
        xlabel="lag l", ylabel="total variation of $p(z_t\\,|\\,\\cdot)$\nwhen $z_{t-l}$ is changed"
    )
    ax.spines[["top", "right"]].set_visible(False)
    label_right(ax, labels)
    return ax
