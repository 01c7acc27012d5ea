"""Time series cut into windows: inputs of the last T steps, targets of the next ones.

Three parts follow each other in time: to learn from, to choose by, to report. Whatever is fitted to
data here (means and scales) is fitted to the rows of the first part alone, and a gap is filled
from the past alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .arguments import as_floats, as_indices, as_mask, integer
from .scaling import Scaling, fill, moments, scale_by
from .series import TimeSeries

__all__ = ["WindowedSplit", "Windows", "make_windows"]


class _Fields(NamedTuple):
    x: Tensor
    y: Tensor
    mask: Tensor | None = None
    last: Tensor | None = None


class Windows(_Fields):
    """M windows of T steps, in scaled units.

    Arrays and lists are taken as tensors, y of one column as ``(M,)`` too, a mask as 0 and 1 too.

    :param Tensor x: ``(M, T, N)``, oldest step first; without NaN.
    :param Tensor y: ``(M, Y)``, Y = targets × horizon: all steps of the first target first.
    :param mask: bool ``(M, T, N)``, true where x was measured and not filled in; ``None``: all was.
    :param last: ``(M, Y)``, the newest known value of each target in its own unit: the forecast of
        persistence, and what a difference is added to.
    :raises ValueError: if the shapes do not fit one another.
    """

    def __new__(cls, x: Any, y: Any, mask: Any = None, last: Any = None) -> Windows:
        """Take data as they come; see the class."""
        x, y = as_floats(x, "Windows: x"), as_floats(y, "Windows: y")
        mask = None if mask is None else as_mask(mask, "Windows: mask")
        last = None if last is None else as_floats(last, "Windows: last")
        y, last = (t.unsqueeze(-1) if t is not None and t.dim() == 1 else t for t in (y, last))
        shapes = [None if t is None else tuple(t.shape) for t in (x, y, mask, last)]
        if (
            (x.dim(), y.dim(), len(y)) != (3, 2, len(x))
            or shapes[2] not in (None, shapes[0])
            or shapes[3] not in (None, shapes[1])
        ):
            raise ValueError(
                f"Windows: found x, y, mask and last of shapes {shapes}, expected (M, T, N), "
                "(M, Y), and the same again. Write Windows(x, y), x oldest step first."
            )
        return super().__new__(cls, x, y, mask, last)

    @property
    def num_windows(self) -> int:
        """M."""
        return len(self.x)

    def select(self, index: Tensor | Sequence[int] | slice) -> Windows:
        """Return some of the windows.

        :raises IndexError: if there is no such window.
        """
        if not isinstance(index, slice):
            index = as_indices(index, len(self.x), "Windows.select", self.x.device)
        return self._each(lambda part: part[index])

    def to(self, device: str | torch.device) -> Windows:
        """Move them to a device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Windows:
        mask, last = (None if part is None else change(part) for part in (self.mask, self.last))
        return Windows(change(self.x), change(self.y), mask, last)


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
    :raises TypeError: if it is not a :class:`TimeSeries`.
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
    if not isinstance(series, TimeSeries):
        raise TypeError(
            f"make_windows: found {type(series).__name__}, expected a TimeSeries. Write "
            "TimeSeries(name, names, rows, inputs=names, targets=names[:1])."
        )
    window, horizon = _lengths(window, horizon)
    first, second = _bounds(series.num_rows, split)
    inputs, targets = series.columns(series.inputs), series.columns(series.targets)
    learned = torch.cat(series.pieces)[:first]
    mean, scale = moments(learned[:, inputs], series.inputs)
    level = moments(learned[:, targets], series.targets)[0]
    parts: list[list[tuple[Tensor, ...]]] = [[], [], []]
    start = 0  # the piece's first row among all rows
    for piece in series.pieces:
        M = len(piece) - window - horizon + 1
        if M > 0:
            x, y = scale_by(piece[:, inputs], mean, scale), piece[:, targets]
            cut = fill(x, torch.zeros_like(mean)).unfold(0, window, 1)[:M].transpose(1, 2)
            seen = x.isfinite().unfold(0, window, 1)[:M].transpose(1, 2)  # (M, T, N), as cut
            ahead = y[window:].unfold(0, horizon, 1).flatten(1)  # (M, Y)
            last = fill(y, level)[window - 1 : window - 1 + M].repeat_interleave(horizon, -1)
            near = start + window + torch.arange(M, device=piece.device)  # first row predicted
            far = near + horizon - 1
            whole = ahead.isfinite().all(-1)
            inside = (far < first, (near >= first) & (far < second), near >= second)
            for part, here in zip(parts, inside, strict=True):
                part.append(tuple(t[here & whole] for t in (cut, ahead, seen, last)))
        start += len(piece)
    return _scaled(series, parts, (mean, scale), difference, learned[:, targets])


def _scaled(
    series: TimeSeries,
    parts: list[list[tuple[Tensor, ...]]],
    of_inputs: tuple[Tensor, Tensor],
    difference: bool,
    learned: Tensor,
) -> WindowedSplit:
    """Join the pieces of each part, and scale the targets by the first one."""
    joined = []
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        windows = sum(len(piece[0]) for piece in part)
        if windows == 0:
            raise ValueError(
                f"make_windows: found no window in the {name} part of {series.name!r}, expected "
                "one at least. Write another split=, or a smaller window=."
            )
        x, y, seen, last = map(torch.cat, zip(*part, strict=True))
        joined.append((x, y - last if difference else y, seen, last))
    y = joined[0][1]
    size = learned.nan_to_num().abs().amax(0).repeat_interleave(y.shape[-1] // learned.shape[-1])
    target_mean, target_scale = moments(y, tuple(map(str, range(y.shape[-1]))), size)
    train, valid, test = (
        Windows(x, scale_by(y, target_mean, target_scale), None if bool(seen.all()) else seen, last)
        for x, y, seen, last in joined
    )
    scaling = Scaling(*of_inputs, target_mean, target_scale, difference)
    return WindowedSplit(series.name, series.inputs, series.unit, train, valid, test, scaling)


def _lengths(window: int, horizon: int) -> tuple[int, int]:
    window = integer(window, "window", "make_windows", least=None)
    horizon = integer(horizon, "horizon", "make_windows", least=None)
    if window < 1 or horizon < 1:
        raise ValueError(
            f"make_windows: found window={window} and horizon={horizon}, expected 1 or more of "
            "each. Write make_windows(series, window=10, horizon=1)."
        )
    return window, horizon


def _bounds(num_rows: int, split: tuple[float, float]) -> tuple[int, int]:
    """First rows of the validation and of the test part."""
    try:
        train, valid = split
        shares = all(isinstance(part, (float, np.floating)) for part in split)
        bounds = [
            int(num_rows * part + 1e-6) if shares else int(part) for part in (train, train + valid)
        ]
    except (TypeError, ValueError, OverflowError):
        bounds = [0, 0]
    if not 0 < bounds[0] < bounds[1] < num_rows:
        raise ValueError(
            f"make_windows: found split={split} of {num_rows:,} rows, expected two shares that "
            "leave a rest, as split=(0.6, 0.2), or two numbers of rows, as split=(3200, 400)."
        )
    return bounds[0], bounds[1]
