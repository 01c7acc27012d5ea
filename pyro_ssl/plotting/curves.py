"""How well held-out text is predicted, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LINE_COLORS", "label_right", "plot_perplexity"]

#: Paul Tol's "vibrant" scheme, for lines on white
LINE_COLORS = ("#0077BB", "#EE7733", "#009988", "#CC3311", "#33BBEE", "#EE3377")
_BASELINE, _INK = "#888888", "#444444"


def plot_perplexity(
    curves: Mapping[str, Sequence[float]],
    baselines: Mapping[str, float] | None = None,
    *,
    kept: int | None = None,
    bottom: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw perplexity per epoch, with horizontal lines to compare with, all labelled directly.

    :param curves: perplexities of epochs 1, 2, … by name, as ``{"test": [...]}``.
    :param baselines: perplexities of other models by name.
    :param int kept: the epoch that was kept; marked on every curve.
    :param float bottom: where the vertical axis starts; by default a little below the lowest.
    :param ax: where to draw; by default a new figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        ax = plt.figure(figsize=(7.2, 4.2), layout="constrained").add_subplot()
    labels: list[tuple[float, str, str]] = []
    for name, value in (baselines or {}).items():
        ax.axhline(value, color=_BASELINE, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        labels.append((value, f"{name}  {value:.1f}", _INK))
    for (name, values), color in zip(curves.items(), LINE_COLORS * len(curves), strict=False):
        epochs = range(1, len(values) + 1)
        ax.plot(epochs, values, color=color, linewidth=2.0, zorder=2)
        at = kept or len(values)
        ax.plot([at], [values[at - 1]], "o", color=color, markersize=6, zorder=3)
        labels.append((values[-1], f"{name}  {values[at - 1]:.1f}", color))
    ax.margins(x=0.02, y=0.08)
    ax.set_ylim(bottom=bottom)
    ax.set(xlabel="epoch", ylabel="perplexity per word")
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_right(ax, labels)
    return ax


def label_right(ax: Axes, labels: Sequence[tuple[float, str, str]], gap: float = 0.06) -> None:
    """Write each label beside the right end of its line, on any vertical scale.

    Labels that would touch are moved apart, within the axes where there is room.
    """
    if not labels:
        return
    ax.get_ylim()  # computes limits that are still pending
    to_fraction = ax.transScale + ax.transLimits
    ordered = sorted(labels)
    places = [float(to_fraction.transform((1.0, value))[1]) for value, *_ in ordered]
    for _ in range(50):  # push neighbours apart until none touch
        for i in range(len(places) - 1):
            overlap = gap - (places[i + 1] - places[i])
            if overlap > 0:
                places[i] -= overlap / 2
                places[i + 1] += overlap / 2
        places[0], places[-1] = max(places[0], 0.0), min(places[-1], 1.0)
    for (_, text, color), place in zip(ordered, places, strict=True):
        ax.annotate(
            text,
            (1.0, place),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=9,
            color=color,
            annotation_clip=False,
        )
