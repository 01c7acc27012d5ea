"""How importances change with the horizon, and how sure several seeds make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .curves import LINE_COLORS, label_right
from .importance import _axes, _check, _clean, _literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..models import SeededImportance

__all__ = ["plot_importance_ahead"]


def plot_importance_ahead(
    importance: torch.Tensor | SeededImportance,
    names: Sequence[str],
    *,
    num_variables: int = 5,
    level: float = 0.9,
    ax: Axes | None = None,
) -> Axes:
    """Draw the importance of each variable against the steps ahead.

    :param importance: ``(N, Y)`` of Y steps ahead, as :meth:`IMVLSTM.importance` of a model with
        ``by_target`` returns it; or what :func:`~pyro_ssl.models.importance_over_seeds` found: then
        a line is the mean over seeds, in a band, its interval.
    :param names: of the N variables.
    :param int num_variables: as many as are drawn, at most, the most important on average first.
    :param float level: of the band.
    :param ax: where to draw; by default a new figure.
    :raises ValueError: if there is no importance of each target, or no name of each variable.
    """
    band: tuple[torch.Tensor, torch.Tensor] | None = None
    if isinstance(importance, torch.Tensor):
        mean = importance.detach().cpu()
    else:
        mean = importance.mean.cpu()
        if len(importance.importance) > 1:
            low, high = importance.interval(level)
            band = low.cpu(), high.cpu()
    if mean.dim() != 2:
        raise ValueError(
            f"plot_importance_ahead: found importances of shape {tuple(mean.shape)}, expected "
            "(N, Y), one for each step ahead; write IMVLSTM(..., num_targets=Y, by_target=True), "
            "or plot_importance."
        )
    _check(mean, names, 0, "plot_importance_ahead")
    ax = _axes(ax, (6.8, 4.0))
    steps = list(range(1, mean.shape[1] + 1))
    order = mean.mean(1).argsort(descending=True, stable=True)[
        : min(num_variables, len(LINE_COLORS))
    ]
    labels = []
    for n, color in zip(order.tolist(), LINE_COLORS, strict=False):
        ax.plot(steps, mean[n].tolist(), "o-", color=color, ms=3.5, linewidth=1.6)
        if band is not None:
            low, high = (end[n] for end in band)
            ax.fill_between(
                steps, low.tolist(), high.tolist(), color=color, alpha=0.18, linewidth=0
            )
        labels.append((float(mean[n, -1]), _literal(names[n]), color))
    ax.set(xlabel="steps ahead", ylabel="importance I")
    ax.set_xticks(steps[:: max(1, -(-len(steps) // 12))])
    ax.set_ylim(bottom=0.0)
    _clean(ax)
    label_right(ax, labels)
    return ax
