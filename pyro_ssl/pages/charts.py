"""Curves as inline SVG, which take the colours of the page that they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

__all__ = ["forecast_chart", "line_chart", "nice_ticks"]

# As wide as a phone, so that its letters are nowhere smaller than they are written here.
_WIDTH, _HEIGHT = 340, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 12, 28
_MOST_SPOTS = 200


def line_chart(
    values: Sequence[float],
    *,
    name: str,
    first: int = 1,
    levels: Mapping[str, float] | None = None,
    mark: int | None = None,
    percent: bool = False,
) -> str:
    """Draw one curve.

    :param values: by epoch; what is not finite leaves a gap.
    :param str name: what they are, for who cannot see them and for the spots' tips.
    :param int first: epoch of the first value.
    :param levels: other values by name, as dashed lines.
    :param int mark: an epoch whose value has a dot.
    :param bool percent: the values are shares.
    :returns: an ``<svg>``, or an empty string where no value is finite.

    Example::

        >>> svg = line_chart([3.0, 2.0], name="loss", levels={"HMM": 2.5}, mark=2)
        >>> svg.count('class="curve"'), svg.count('class="mark"'), "HMM" in svg
        (1, 1, True)
        >>> line_chart([float("nan")], name="loss")
        ''
    """
    points = [(first + i, y) for i, y in enumerate(values) if math.isfinite(y)]
    shown = {label: y for label, y in (levels or {}).items() if math.isfinite(y)}
    if not points:
        return ""
    heights = [y for _, y in points] + [*shown.values()]
    ticks = nice_ticks(min(heights), max(heights))
    axes = _Axes(first, max(first + len(values) - 1, first + 1), ticks[0], ticks[-1])
    step = ticks[1] - ticks[0]
    parts = [_grid(axes, ticks, _label_of(step, percent)), _steps(axes)]
    parts += [_level(axes, label, y) for label, y in shown.items()]
    parts += [_curve(axes, run) for run in _runs(points)]
    told = _label_of(step / 100, percent)
    if len(points) <= _MOST_SPOTS:
        parts += [
            f'<circle class="spot" cx="{axes.x(e):.1f}" cy="{axes.y(y):.1f}" r="6"><title>epoch '
            f"{e}: {escape(name)} {told(y)}</title></circle>"
            for e, y in points
        ]
    marked = dict(points).get(mark) if mark is not None else None
    if mark is not None and marked is not None:
        place = f'cx="{axes.x(mark):.1f}" cy="{axes.y(marked):.1f}"'
        parts.append(f'<circle class="mark" {place} r="5"/>')
    (start, begun), (end, came_to) = points[0], points[-1]
    label = f"{name}: {told(begun)} at epoch {start}, {told(came_to)} at epoch {end}"
    return _svg(label, parts)


def forecast_chart(
    seen: Sequence[float], ahead: Sequence[Sequence[float]], *, name: str, first: int = 1
) -> str:
    """Draw a series as points, and what comes after it as a curve in a band.

    :param seen: by step; what is not finite was not observed.
    :param ahead: mean and both ends of an interval at each later step.
    :param str name: what it is.
    :param int first: number of the first step.

    Example::

        >>> svg = forecast_chart([1.0, 2.0], [(2.5, 2.0, 3.0), (3.0, 2.0, 4.0)], name="x")
        >>> svg.count('class="point"'), svg.count('class="band"'), svg.count('class="curve"')
        (2, 1, 1)
    """
    points = [(first + i, y) for i, y in enumerate(seen) if math.isfinite(y)]
    later = [(first + len(seen) + i, *three) for i, three in enumerate(ahead)]
    heights = [y for _, y in points] + [y for _, *three in later for y in three]
    ticks = nice_ticks(min(heights), max(heights))
    axes = _Axes(first, max(first + len(seen) + len(ahead) - 1, first + 1), ticks[0], ticks[-1])
    lows = [f"{axes.x(t):.1f} {axes.y(low):.1f}" for t, _, low, _ in later]
    highs = [f"{axes.x(t):.1f} {axes.y(high):.1f}" for t, _, _, high in later]
    parts = [_grid(axes, ticks, _label_of(ticks[1] - ticks[0], False)), _steps(axes)]
    parts.append(f'<path class="band" d="M{"L".join(lows + highs[::-1])}Z"/>')
    parts.append(_curve(axes, [(first + len(seen) + i, three[0]) for i, three in enumerate(ahead)]))
    parts += [
        f'<circle class="point" cx="{axes.x(t):.1f}" cy="{axes.y(y):.1f}" r="1.6"/>'
        for t, y in points
    ]
    told = _label_of((ticks[1] - ticks[0]) / 100, False)
    _, mean, low, high = later[-1]
    label = f"{name}: {told(mean)} at step {later[-1][0]}, from {told(low)} to {told(high)}"
    return _svg(label, parts)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers, evenly spaced, that enclose an interval.

    Example::

        >>> nice_ticks(0.3, 2.2)
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    # Where values differ by rounding alone, or not at all, there is still a scale around them.
    room = max(high - low, 1e-9 * max(abs(low), abs(high))) or 1.0
    step = 10.0 ** math.floor(math.log10(room / (most - 1)))
    for factor in (1, 2, 2.5, 5, 10, 20):
        each = step * factor
        first, last = math.floor(low / each + 1e-6), math.ceil(high / each - 1e-6)
        if last - first < most:
            break
    last = max(last, first + 1)
    return [float(f"{i * each:.12g}") for i in range(first, last + 1)]


def _svg(label: str, parts: Sequence[str]) -> str:
    inner = "".join(parts)
    size = f"0 0 {_WIDTH} {_HEIGHT}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(label)}">{inner}</svg>'


class _Axes:
    """From steps and values to places."""

    def __init__(self, first: int, last: int, low: float, high: float) -> None:
        self.first, self.last, self.low, self.high = first, last, low, high

    def x(self, epoch: float) -> float:
        width = _WIDTH - _LEFT - _RIGHT
        return _LEFT + width * (epoch - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        return _HEIGHT - _BOTTOM - height * (value - self.low) / (self.high - self.low)


def _grid(axes: _Axes, ticks: Sequence[float], label: Callable[[float], str]) -> str:
    lines = []
    for tick in ticks:
        y = axes.y(tick)
        lines.append(
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label(tick)}</text>'
        )
    return "".join(lines)


def _steps(axes: _Axes) -> str:
    ticks = sorted({round(t) for t in nice_ticks(axes.first, axes.last)} | {axes.first})
    inside = [t for t in ticks if axes.first <= t <= axes.last]
    # The first epoch is 1, and the next round number may stand too close to it.
    apart = [t for t in inside if t == axes.first or axes.x(t) - axes.x(axes.first) > 24]
    y = _HEIGHT - 8
    texts = [f'<text x="{axes.x(t):.1f}" y="{y}" text-anchor="middle">{t}</text>' for t in apart]
    return "".join(texts)


def _level(axes: _Axes, label: str, value: float) -> str:
    y = axes.y(value)
    above = y - 5 if y > _TOP + 14 else y + 14
    return (
        f'<path class="level" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="level" x="{_WIDTH - _RIGHT}" y="{above:.1f}" text-anchor="end">'
        f"{escape(label)}</text>"
    )


def _curve(axes: _Axes, run: Sequence[tuple[int, float]]) -> str:
    if len(run) == 1:
        (epoch, value), *_ = run
        return f'<circle class="mark" cx="{axes.x(epoch):.1f}" cy="{axes.y(value):.1f}" r="3"/>'
    path = "L".join(f"{axes.x(e):.1f} {axes.y(y):.1f}" for e, y in run)
    return f'<path class="curve" d="M{path}"/>'


def _runs(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Points with no gap between them."""
    runs: list[list[tuple[int, float]]] = []
    for epoch, value in points:
        if not runs or runs[-1][-1][0] != epoch - 1:
            runs.append([])
        runs[-1].append((epoch, value))
    return runs


def _label_of(step: float, percent: bool) -> Callable[[float], str]:
    """How to write numbers that are so far apart."""
    scale, sign = (100.0, " %") if percent else (1.0, "")
    digits = max(0, -math.floor(math.log10(step * scale) + 1e-9))
    # 2.5 has a digit more than its power of ten.
    shown = step * scale * 10**digits
    digits += abs(shown - round(shown)) > 1e-6

    def label(value: float) -> str:
        return f"{value * scale:,.{digits}f}{sign}".replace("-", "\N{MINUS SIGN}")

    return label
