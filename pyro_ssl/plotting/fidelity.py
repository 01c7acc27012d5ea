"""A network compared with a hidden Markov model: gate and filter, fidelity, beliefs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from .curves import _BASELINE, _INK, LINE_COLORS, label_right

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..belief import Fidelity, LinearGap

__all__ = ["plot_beliefs", "plot_fidelity", "plot_linear_gap"]

_TRUE, _FOUND = LINE_COLORS[:2]
_ARROW = {"arrowstyle": "<->", "color": _INK, "shrinkA": 0, "shrinkB": 0}


def plot_linear_gap(gap: LinearGap, *, ax: Axes | None = None) -> Axes:
    """Draw a gate's prior log-odds, linear in its belief, beside the exact filter's.

    :param gap: what :func:`~pyro_ssl.belief.linear_gap` returns; where it was given sequences, the
        title has the divergence of the gate's belief from the filter's along them.
    :param ax: where to draw; by default a new figure.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        ax = plt.figure(figsize=(6.4, 4.2), layout="constrained").add_subplot()
    h, exact, linear = (values.tolist() for values in (gap.belief, gap.exact, gap.linear))
    ax.fill_between(h, exact, linear, color=_BASELINE, alpha=0.18, linewidth=0)
    ax.plot(h, exact, color=_TRUE, linewidth=2.0, label="exact filter")
    ax.plot(h, linear, color=_FOUND, linewidth=2.0, label="gate: linear in h")
    ax.plot([0.0, 1.0], [exact[0], exact[-1]], "o", color=_INK, markersize=5, zorder=3)
    worst = int(gap.gap.abs().argmax())
    size = float(gap.gap[worst])
    ax.annotate("", (h[worst], linear[worst]), (h[worst], exact[worst]), arrowprops=_ARROW)
    rising = linear[-1] > linear[0]
    ax.annotate(  # outside the area between the curves
        f"gap {abs(size):.2f}",
        (h[worst], linear[worst]),
        xytext=(6 if rising == (size < 0) else -6, 12 if size > 0 else -12),
        textcoords="offset points",
        ha="left" if rising == (size < 0) else "right",
        va="center",
        size=9,
        color=_INK,
    )
    # The corner without curves and without the label of the gap.
    side: Literal["upper left", "lower right", "upper right", "lower left"]
    if rising:
        side = "upper left" if size < 0 else "lower right"
    else:
        side = "upper right" if size < 0 else "lower left"
    ax.legend(loc=side, frameon=False, labelcolor="linecolor")
    title = "exact where the last state is known (dots)"
    if gap.exact_path is not None:
        title += (
            f"\nKL(filter ‖ gate) along the sequences: {float(gap.path_kl.mean()):.2g} nats a step"
        )
    ax.set_title(title, size=10, color=_INK)
    ax.set(xlabel="belief h = p(last state = 1)", ylabel="prior log-odds of the next state = 1")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_fidelity(
    curves: Mapping[str, Sequence[Fidelity]],
    baselines: Mapping[str, float] | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw the surrogates' KL against their number of states, on logarithmic axes.

    :param curves: what :func:`~pyro_ssl.belief.fidelity` found, by the name of the extraction. Bars
        are two standard errors.
    :param baselines: KL of other surrogates by name, such as the true HMM.
    :param ax: where to draw; by default a new figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator

    if ax is None:
        ax = plt.figure(figsize=(7.2, 4.2), layout="constrained").add_subplot()
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    labels: list[tuple[float, str, str]] = []
    for name, value in (baselines or {}).items():
        ax.axhline(value, color=_BASELINE, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        labels.append((value, f"{name}  {value:.2g}", _INK))
    ticks: set[int] = set()
    for (name, found), color in zip(curves.items(), LINE_COLORS * len(curves), strict=False):
        states, kl = [f.num_states for f in found], [f.kl for f in found]
        errors = [2 * f.kl_error for f in found]
        ax.errorbar(states, kl, errors, color=color, linewidth=2.0, marker="o", markersize=5)
        labels.append((kl[-1], f"{name}  {kl[-1]:.2g}", color))
        ticks |= set(states)
    ax.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="states of the HMM", ylabel="KL(network ‖ HMM), nats a symbol")
    ax.spines[["top", "right"]].set_visible(False)
    label_right(ax, labels)
    return ax


def plot_beliefs(
    true: Tensor,
    found: Tensor | None = None,
    *,
    states: Tensor | None = None,
    names: tuple[str, str] = ("true filter", "read off the network"),
    ax: Axes | None = None,
) -> Axes:
    """Draw beliefs over time, a band for each state: the true belief as area, another as line.

    :param Tensor true: p(s_t = k | x_{1:t}), ``(T, K)``.
    :param Tensor found: another belief of the same shape.
    :param Tensor states: int64 ``(T,)``, the true states, each drawn as a bar above its band.
    :param names: of the two beliefs, for the legend.
    :param ax: where to draw; by default a new figure that fits.
    """
    import matplotlib.pyplot as plt

    T, K = true.shape
    if ax is None:
        ax = plt.figure(figsize=(8.0, 0.8 * K + 1.0), layout="constrained").add_subplot()
    steps = list(range(1, T + 1))
    for k in range(K):
        base = float(K - 1 - k)
        area = [base + 0.8 * p for p in true[:, k].tolist()]
        ax.axhline(base, color=_BASELINE, linewidth=0.6, zorder=0)
        ax.fill_between(steps, base, area, color=_TRUE, alpha=0.35, linewidth=0,
                        label=names[0] if k == 0 else None)  # fmt: skip
        if found is not None:
            line = [base + 0.8 * p for p in found[:, k].tolist()]
            label = names[1] if k == 0 else None
            ax.plot(steps, line, color=_FOUND, linewidth=1.3, label=label)
        if states is not None:
            there = (states == k).tolist()
            spans = [(t - 0.5, 1.0) for t, here in zip(steps, there, strict=True) if here]
            label = "state that there was" if k == 0 else None
            ax.broken_barh(spans, (base + 0.85, 0.07), color=_INK, linewidth=0, label=label)
    ax.set_yticks([K - 1 - k + 0.4 for k in range(K)], [f"state {k}" for k in range(K)])
    ax.set(xlabel="step", xlim=(0.5, T + 0.5), ylim=(-0.05, K))
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)
    return ax
