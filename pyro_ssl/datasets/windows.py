"""Time series cut into windows: inputs of the last T steps, targets of the next ones.

Three parts follow each other in time: to learn from, to choose by, to report. Whatever is fitted to
data here (means and scales) is fitted to the rows of the first part alone, and a gap is filled
from the past alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_ssl.datasets.series import TimeSeries

__all__ = ["Scaling", "WindowedSplit", "Windows", "make_windows"]


class Windows(NamedTuple):
    """M windows of T steps, in scaled units.

    :param Tensor x: ``(M, T, N)``, oldest step first; without NaN.
    :param Tensor y: ``(M, Y)``, Y = targets × horizon: all steps of the first target first.
    :param mask: bool ``(M, T, N)``, true where x was measured and not filled in; ``None``: all was.
    :param last: ``(M, Y)``, the newest known value of each target in its own unit: the forecast of
        persistence, and what a difference is added to.
    """

    x: Tensor
    y: Tensor
    mask: Tensor | None = None
    last: Tensor | None = None

    @property
    def num_windows(self) -> int:
        """M."""
        return len(self.x)

    def select(self, index: Tensor | slice) -> Windows:
        """Return some of the windows."""
        return self._each(lambda part: part[index])

    def to(self, device: str | torch.device) -> Windows:
        """Move them to a device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Windows:
        mask, last = (None if part is None else change(part) for part in (self.mask, self.last))
        return Windows(change(self.x), change(self.y), mask, last)


class Scaling(NamedTuple):
    """Means and standard deviations of the training part; 1 in place of a deviation of 0.

    :param Tensor mean: ``(N,)``, of the inputs.
    :param Tensor scale: ``(N,)``.
    :param Tensor target_mean: ``(Y,)``, of the targets, or of their differences.
    :param Tensor target_scale: ``(Y,)``.
    :param bool difference: Whether y is the change from the newest known value.
    """

    mean: Tensor
    scale: Tensor
    target_mean: Tensor
    target_scale: Tensor
    difference: bool

    def inverse_target(self, y: Tensor, last: Tensor | None = None) -> Tensor:
        """Bring targets or forecasts of them back to their own unit.

        :param Tensor y: ``(..., M, Y)``.
        :param Tensor last: ``(M, Y)``, :attr:`Windows.last` of the same windows; read where y is
            a difference.
        :raises ValueError: if y is a difference and ``last`` is missing.
        """
        level = y * self.target_scale + self.target_mean
        if not self.difference:
            return level
        if last is None:
            raise ValueError(
                "Scaling.inverse_target: found no last values, expected them, for the targets are "
                "differences. Write split.scaling.inverse_target(y, split.test.last)."
            )
        return level + last

    def to(self, device: str | torch.device) -> Scaling:
        """Move it to a device."""
        mean, scale, target_mean, target_scale = (part.to(device) for part in self[:4])
        return Scaling(mean, scale, target_mean, target_scale, self.difference)


class WindowedSplit(NamedTuple):
    """Windows in three parts that follow each other in time, and how they were scaled.

    :param str name: What it is.
    :param names: Of the N inputs.
    :param str unit: Of the targets.
    :param Windows train: To learn from.
    :param Windows valid: To choose settings by.
    :param Windows test: To report.
    """

    name: str
    names: tuple[str, ...]
    unit: str
    train: Windows
    valid: Windows
    test: Windows
    scaling: Scaling

    def to(self, device: str | torch.device) -> WindowedSplit:
        """Move the windows and their scaling to a device."""
        moved = {part: getattr(self, part).to(device) for part in ("train", "valid", "test")}
        return self._replace(**moved, scaling=self.scaling.to(device))

    def describe(self) -> str:
        """Say in a line what it holds."""
        counts = ", ".join(
            f"{getattr(self, part).num_windows:,} {part}" for part in ("train", "valid", "test")
        )
        M, T, N = self.train.x.shape
        return f"{self.name}: {counts} windows of {T} steps of {N} variables"


def make_windows(
    series: TimeSeries,
    window: int = 10,
    *,
    horizon: int = 1,
    split: tuple[float, float] = (0.6, 0.2),
    difference: bool = False,
) -> WindowedSplit:
    """Cut a series into windows, and these into three parts by the rows of their targets.

    A window of validation or test may begin in rows of an earlier part: at the time of the forecast
    they are known. One whose targets lie in two parts, or miss a value, is left out. A missing
    input takes the value before it in the same piece, or the training mean where there is none, and
    is marked in the mask.

    A target that leaves the range of the training part asks a network to extrapolate; its change
    from the newest known value seldom does. So ``difference`` suits series that drift.

    :param TimeSeries series: What to cut.
    :param int window: T, steps that are looked at.
    :param int horizon: Steps ahead, 1 to ``horizon``, to predict.
    :param split: Rows of the training and the validation part: shares, which are rounded down, or
        numbers of rows. The rest is for testing.
    :param bool difference: Let y be the target minus its newest known value.
    :raises ValueError: if a part has no window, or a column has no value in the training part.

    **Example**::

        >>> from pyro_ssl.datasets import TimeSeries, make_windows
        >>> rows = torch.arange(100.0)[:, None] ** 2
        >>> series = TimeSeries("squares", ("n",), (rows,), inputs=("n",), targets=("n",))
        >>> parts = make_windows(series, window=5, difference=True)
        >>> parts.train.x.shape, parts.test.y.shape
        (torch.Size([55, 5, 1]), torch.Size([20, 1]))
        >>> parts.scaling.inverse_target(parts.test.y, parts.test.last)[-1].round()
        tensor([9801.])
    """
    first, second = _bounds(series.num_rows, window, horizon, split)
    inputs, targets = series.columns(series.inputs), series.columns(series.targets)
    learned = torch.cat(series.pieces)[:first]
    mean, scale = _moments(learned[:, inputs], series.inputs)
    level = _moments(learned[:, targets], series.targets)[0]
    parts: list[list[tuple[Tensor, ...]]] = [[], [], []]
    start = 0  # the piece's first row among all rows
    for piece in series.pieces:
        M = len(piece) - window - horizon + 1
        if M > 0:
            x, y = (piece[:, inputs] - mean) / scale, piece[:, targets]
            cut = _fill(x).unfold(0, window, 1)[:M].transpose(1, 2)  # (M, T, N)
            seen = x.isfinite().unfold(0, window, 1)[:M].transpose(1, 2)
            ahead = y[window:].unfold(0, horizon, 1).flatten(1)  # (M, Y)
            last = (_fill(y - level) + level)[window - 1 : window - 1 + M]
            last = last.repeat_interleave(horizon, -1)
            near = start + window + torch.arange(M, device=piece.device)  # first row predicted
            far = near + horizon - 1
            whole = ahead.isfinite().all(-1)
            inside = (far < first, (near >= first) & (far < second), near >= second)
            for part, here in zip(parts, inside, strict=True):
                part.append(tuple(t[here & whole] for t in (cut, ahead, seen, last)))
        start += len(piece)
    return _scaled(series, parts, mean, scale, difference)


def _scaled(
    series: TimeSeries,
    parts: list[list[tuple[Tensor, ...]]],
    mean: Tensor,
    scale: Tensor,
    difference: bool,
) -> WindowedSplit:
    """Join the pieces of each part, and scale the targets by the first one."""
    joined = []
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        x, y, seen, last = map(torch.cat, zip(*part, strict=True))
        if len(x) == 0:
            raise ValueError(
                f"make_windows: found no window in the {name} part of {series.name!r}, expected "
                "one at least. Write another split=, or a smaller window=."
            )
        joined.append((x, y - last if difference else y, seen, last))
    y = joined[0][1]
    target_mean, target_scale = _moments(y, tuple(map(str, range(y.shape[-1]))))
    train, valid, test = (
        Windows(x, (y - target_mean) / target_scale, None if bool(seen.all()) else seen, last)
        for x, y, seen, last in joined
    )
    scaling = Scaling(mean, scale, target_mean, target_scale, difference)
    return WindowedSplit(series.name, series.inputs, series.unit, train, valid, test, scaling)


def _bounds(num_rows: int, window: int, horizon: int, split: tuple[float, float]) -> list[int]:
    """First rows of the validation and of the test part."""
    if window < 1 or horizon < 1:
        raise ValueError(
            f"make_windows: found window={window} and horizon={horizon}, expected 1 or more of "
            "each. Write make_windows(series, window=10, horizon=1)."
        )
    shares = all(isinstance(part, float) for part in split)
    sums = (split[0], split[0] + split[1])
    bounds = [int(num_rows * part + 1e-6) if shares else int(part) for part in sums]
    if len(split) != 2 or not 0 < bounds[0] < bounds[1] < num_rows:
        raise ValueError(
            f"make_windows: found split={split} of {num_rows:,} rows, expected two shares that "
            "leave a rest, as split=(0.6, 0.2), or two numbers of rows, as split=(3200, 400)."
        )
    return bounds


def _moments(rows: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what is there; 1 in place of a deviation of 0."""
    seen = rows.isfinite()
    count = seen.sum(0)
    if not bool(count.all()):
        raise ValueError(
            f"make_windows: found no value of {names[int(count.argmin())]!r} in the training part, "
            "expected one at least. Leave it out of inputs=, or write a larger split=."
        )
    mean = torch.where(seen, rows, 0.0).sum(0) / count
    offset = torch.where(seen, rows - mean, 0.0)
    scale = (offset.square().sum(0) / count).sqrt()
    # Rounding leaves a constant column a deviation of some ε of its size.
    rounding = 10.0 * torch.finfo(rows.dtype).eps * mean.abs()
    return mean, torch.where(scale > rounding, scale, 1.0)


def _fill(rows: Tensor) -> Tensor:
    """Carry the newest value forward; 0 where there is none yet."""
    steps = torch.arange(len(rows), device=rows.device).unsqueeze(-1)
    newest = torch.where(rows.isfinite(), steps, -1).cummax(0).values
    return torch.where(newest < 0, 0.0, rows.gather(0, newest.clamp(min=0)))
