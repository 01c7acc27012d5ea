"""Series as a Gaussian SSL reads them: checked, and what was observed, sensor by sensor.

Next file to read: ``gaussian.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .door import active_cells, flags, floats, lengths_of
from .frames import Labels, from_tables, inputs_from_tables

__all__ = [
    "Series",
    "observed",
    "seen_sensors",
    "take_emission",
    "take_inputs",
    "take_series",
    "take_valid",
]


class Series(NamedTuple):
    """Data of a fit, checked: ``x`` ``(T, B, E)``, and what goes with them, or ``None``.

    ``lengths`` ``(B,)``; ``mask`` bool ``(T, B)`` or ``(T, B, E)``; ``inputs`` ``(T, B, U)``;
    ``labels``: names, where there are any.
    """

    x: Tensor
    lengths: Tensor | None = None
    mask: Tensor | None = None
    inputs: Tensor | None = None
    labels: Labels | None = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Those of ``GaussianSSL.model``, of one path each."""
        return self.x, self.lengths, self.mask, 1, self.inputs

    @property
    def seen(self) -> Tensor:
        """What was observed within the lengths, sensor by sensor: bool ``(T, B, E)``."""
        return seen_sensors(self.x, self.lengths, self.mask)

    @property
    def ends(self) -> Tensor:
        """Where each series ends, ``(B,)``."""
        T, B = self.x.shape[:2]
        whole = torch.full((B,), T, device=self.x.device, dtype=torch.long)
        return whole if self.lengths is None else self.lengths

    @property
    def within(self) -> Tensor:
        """Which steps there are, bool ``(T, B)``."""
        return active_cells(self.x, self.lengths)

    @property
    def is_whole(self) -> bool:
        """Whether all sensors were observed at all steps that there are."""
        return bool(self.seen[self.within].all())

    @property
    def num_seen(self) -> int:
        """Steps at which a sensor was observed."""
        return int(self.seen.any(-1).sum())

    def select(self, index: Tensor, num_steps: int, num_later: int = 0) -> Series:
        """Return the first steps of some sequences, and inputs of so many steps more."""
        x, lengths, mask, inputs, _ = self
        return Series(
            x[:num_steps, index],
            None if lengths is None else lengths[index].clamp(max=num_steps),
            None if mask is None else mask[:num_steps, index],
            None if inputs is None else inputs[: num_steps + num_later, index],
        )


def observed(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Data with 0 where nothing was observed, and where something was, bool ``(T, B, E)``."""
    there = x.isfinite()
    if mask is not None:
        there = there & (mask if mask.dim() == 3 else mask.unsqueeze(-1))
    return torch.where(there, x, 0.0), there


def seen_sensors(x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> Tensor:
    """What was observed within the lengths, bool ``(T, B, E)``."""
    return observed(x, mask)[1] & active_cells(x, lengths).unsqueeze(-1)


def take_series(
    where: str,
    x: Any,
    lengths: Any,
    mask: Any,
    like: Tensor,
    num_sensors: int | None = None,
    *,
    inputs: Any = None,
    input_size: int = 0,
    horizon: int = 0,
    sensors: Sequence[str] | None = None,
) -> Series:
    """Return data as tensors of the model's dtype, on its device.

    Tables with named columns are taken too, one or a list of them.

    :param str where: who asks, for the messages.
    :param Tensor like: a weight of the model.
    :param int num_sensors: E, where the model is fitted.
    :param int input_size: U, how many inputs the model reads.
    :param int horizon: how many steps after the data have inputs too.
    :param sensors: names of the sensors, where there are any.
    :raises ValueError: if they do not fit one another, or the model.
    """
    x, lengths, labels = from_tables(where, x, lengths, sensors)
    x = floats(f"{where}: x", x, like)
    if x.dim() != 3 or x.numel() == 0:
        write = {
            1: "x[:, None, None] for one series of one sensor",
            2: "x[:, None] for one series of E sensors, or x[..., None] for B series of one sensor",
        }.get(x.dim(), "x[:, None] for one series of E sensors, and leave out what is empty")
        raise ValueError(
            f"{where}: x has shape {tuple(x.shape)}, expected (T, B, E), steps by series by "
            f"sensors, one of each at least; write {write}."
        )
    if num_sensors not in (None, x.shape[2]):
        raise ValueError(
            f"{where}: x has shape {tuple(x.shape)}, expected (T, B, {num_sensors}), the sensors "
            f"of the fit; write x[..., :{num_sensors}], or fit the model anew."
        )
    lengths = lengths_of(where, lengths, len(x), x.shape[1], like.device)
    if mask is not None:
        mask = flags(f"{where}: mask", mask, like.device)
        if mask.shape not in (x.shape[:2], x.shape):
            raise ValueError(
                f"{where}: mask has shape {tuple(mask.shape)}, expected {tuple(x.shape[:2])}, true "
                f"where x_t was observed, or {tuple(x.shape)}, sensor by sensor; write "
                "mask=~x.isnan()."
            )
    size = (len(x) + horizon, x.shape[1], input_size)
    inputs = take_inputs(where, inputs_from_tables(inputs), like, size)
    return Series(x, lengths, mask, inputs, labels)


def take_inputs(
    where: str, inputs: Any, like: Tensor, shape: tuple[int, int, int]
) -> Tensor | None:
    """Return exogenous inputs of all steps, ``(T, B, U)``.

    :raises ValueError: if they do not fit, or are not finite.
    """
    T, B, size = shape
    if (inputs is None) == bool(size):
        raise ValueError(
            f"{where}: the model reads {size} inputs, but inputs "
            f"{'were not' if inputs is None else 'were'} given; write "
            "GaussianSSL(..., input_size=u.shape[-1]) and inputs=u, or neither."
        )
    if inputs is None:
        return None
    inputs = floats(f"{where}: inputs", inputs, like)
    if inputs.shape == (T, size):
        inputs = inputs.unsqueeze(1).expand(T, B, size)
    if inputs.shape != shape:
        raise ValueError(
            f"{where}: inputs have shape {tuple(inputs.shape)}, expected {shape}, or {(T, size)} "
            "for inputs that all series share: those of all steps, of later ones in a forecast "
            "too; write inputs=torch.cat([past, future])."
        )
    if not bool(inputs.isfinite().all()):
        raise ValueError(
            f"{where}: inputs hold NaN or inf, expected finite numbers at every step; write "
            "inputs.nan_to_num(), or make what may be missing a sensor of x."
        )
    return inputs


def take_valid(
    where: str,
    valid: Any,
    like: Tensor,
    num_sensors: int,
    input_size: int = 0,
    sensors: Sequence[str] | None = None,
) -> Series | None:
    """Return validation data as :func:`take_series` does.

    :param valid: ``(x, lengths)``, or ``(x, lengths, inputs)``.
    :raises ValueError: if it is something else, or nothing was observed.
    """
    if valid is None:
        return None
    if not isinstance(valid, tuple | list) or len(valid) not in (1, 2, 3):
        raise ValueError(
            f"{where}: valid is a {type(valid).__name__}, expected (x, lengths); write "
            "valid=(x, None) where all series are of one length, with NaN where a step is masked, "
            "and valid=(x, lengths, inputs) where there are inputs."
        )
    where += "(valid=)"
    x, lengths, inputs = (*valid, None, None)[:3]
    more: dict[str, Any] = {"inputs": inputs, "input_size": input_size, "sensors": sensors}
    found = take_series(where, x, lengths, None, like, num_sensors, **more)
    if not found.num_seen:
        raise ValueError(
            f"{where}: no step was observed in x of shape {tuple(found.x.shape)}, expected one at "
            "least; write valid=None to keep the last epoch."
        )
    return found


def take_emission(
    where: str, loading: Any, offset: Any, num_sensors: int, dim: int, like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return C and b as tensors, where they are given.

    :raises ValueError: if they do not fit, or are not finite.
    """
    found = []
    shapes = {"loading": (loading, (num_sensors, dim)), "offset": (offset, (num_sensors,))}
    for name, (value, shape) in shapes.items():
        if value is not None:
            value = floats(f"{where}: {name}", value, like)
            if value.shape != shape or not bool(value.isfinite().all()):
                raise ValueError(
                    f"{where}: {name} has shape {tuple(value.shape)}, expected {shape}, finite; "
                    f"write {name}=torch.zeros{shape} and fill it, or leave it out."
                )
        found.append(value)
    return found[0], found[1]
