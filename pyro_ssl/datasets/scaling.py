"""Means and standard deviations of the training part, the same at any origin and in any unit.

What is scaled does not depend on where zero is or what one is: of numbers whose level is up to 10^6
times their spread in float64, or 10^3 times in float32, and in units from 10^-12 to 10^12.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .arguments import as_floats

__all__ = ["Scaling", "fill", "moments", "scale_by"]


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
        :raises ValueError: if y is a difference and ``last`` is missing, or a shape is another.
        """
        y = _of_targets(y, "y", self.target_mean)
        level = y * self.target_scale + self.target_mean
        if not self.difference:
            return level
        if last is None:
            raise ValueError(
                "Scaling.inverse_target: found no last values, expected them, for the targets are "
                "differences. Write split.scaling.inverse_target(y, split.test.last)."
            )
        last = _of_targets(last, "last", self.target_mean)
        if last.shape != y.shape[-last.dim() :]:
            raise ValueError(
                f"Scaling.inverse_target: found last of shape {tuple(last.shape)} for y of shape "
                f"{tuple(y.shape)}, expected (M, Y) of the same windows. Write "
                "split.scaling.inverse_target(y, split.test.last)."
            )
        return level + last

    def to(self, device: str | torch.device) -> Scaling:
        """Move it to a device."""
        mean, scale, target_mean, target_scale = (part.to(device) for part in self[:4])
        return Scaling(mean, scale, target_mean, target_scale, self.difference)


def moments(
    rows: Tensor, names: tuple[str, ...], size: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what is there; 1 in place of a deviation of 0.

    :param size: ``(columns,)``, of the numbers that the rows were computed from; by default of the
        rows themselves.
    """
    seen = rows.isfinite()
    count = seen.sum(0)
    if not bool(count.all()):
        raise ValueError(
            f"make_windows: found no value of {names[int(count.argmin())]!r} in the training part, "
            "expected one at least. Leave it out of inputs=, or write a larger split=."
        )
    # Far from zero a sum of rows rounds off what their deviations are; from a row of theirs it does
    # not, and float64 has room for the squares of any unit.
    origin = rows.gather(0, seen.int().argmax(0, keepdim=True))
    offset = torch.where(seen, rows.double() - origin.double(), 0.0)
    mean = offset.sum(0) / count
    scale = (torch.where(seen, offset - mean, 0.0).square().sum(0) / count).sqrt()
    if size is None:
        size = torch.where(seen, rows, 0.0).abs().amax(0)
    rounding = 4.0 * torch.finfo(rows.dtype).eps * size  # how far equal numbers may lie apart
    scale = torch.where(scale > rounding, scale, 1.0)
    return (mean + origin.squeeze(0).double()).to(rows.dtype), scale.to(rows.dtype)


def scale_by(rows: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Take off the mean and divide by the scale, in float64."""
    return ((rows.double() - mean.double()) / scale.double()).to(rows.dtype)


def fill(rows: Tensor, first: Tensor) -> Tensor:
    """Carry the newest value forward; ``first``, ``(columns,)``, where there is none yet."""
    steps = torch.arange(len(rows), device=rows.device).unsqueeze(-1)
    newest = torch.where(rows.isfinite(), steps, -1).cummax(0).values
    return torch.where(newest < 0, first, rows.gather(0, newest.clamp(min=0)))


def _of_targets(values: Any, name: str, like: Tensor) -> Tensor:
    tensor = as_floats(values, f"Scaling.inverse_target: {name}").to(like.device)
    if tensor.shape[-1:] != like.shape:
        raise ValueError(
            f"Scaling.inverse_target: found {name} of shape {tuple(tensor.shape)}, expected "
            f"(..., M, {len(like)}), as the y of the windows."
        )
    return tensor
