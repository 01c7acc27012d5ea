"""What ``ssl_transition`` is given beside its transition, checked, and laid out batch first."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from .steps import steps_within
from .transitions import Transition

__all__ = ["check_inputs", "check_lengths", "check_tensor"]


def check_tensor(name: str, what: str, value: Any, device: torch.device) -> None:
    """Check that a value that is given is a tensor on a device."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(
            f'Site "{name}": {what} are a {type(value).__name__}, expected a tensor; write '
            f"{what}=torch.as_tensor({what})."
        )
    if value.device != device:
        raise ValueError(
            f'Site "{name}": {what} are on {value.device}, but the transition is on '
            f'{device}; expected one device: write {what}={what}.to("{device}").'
        )


def check_inputs(
    name: str,
    transition: Transition,
    inputs: Tensor | None,
    lengths: Tensor | None,
    time_first: tuple[int, ...],
) -> Tensor | None:
    """Return exogenous inputs ``batch_shape + (T, input_size)``, 0 past the lengths.

    :param Tensor lengths: ``batch_shape``.
    :param time_first: ``(T,) + batch_shape``.
    :raises ValueError: if they are missing, do not fit, or hold NaN or inf.
    """
    if (inputs is not None) != bool(transition.input_size):
        raise ValueError(
            f'Site "{name}": the transition reads input_size={transition.input_size} inputs, but '
            f"inputs {'were' if inputs is not None else 'were not'} given; write "
            f'ssl_transition("{name}", transition, T, inputs=u) with u of shape (T, B, input_size) '
            "and LSTMTransition(..., input_size=input_size)."
        )
    if inputs is None:
        return None
    dtype = transition.like.dtype
    if inputs.dtype != dtype:
        raise ValueError(
            f'Site "{name}": inputs are {inputs.dtype}, but the transition has {dtype} parameters; '
            f"expected one dtype: write inputs=inputs.to({dtype})."
        )
    T, expected = time_first[0], (*time_first, transition.input_size)
    if inputs.dim() == 2 and inputs.shape == (T, transition.input_size):
        inputs = inputs.reshape((T,) + (1,) * (len(time_first) - 1) + (-1,))
    try:
        inputs = inputs.expand(expected)
    except RuntimeError:
        raise ValueError(
            f'Site "{name}": inputs have shape {tuple(inputs.shape)}, expected {expected}, '
            "time first (or (T, input_size), shared by all sequences)."
        ) from None
    if lengths is not None:  # padding may be NaN, and a gradient of 0 times NaN is none
        inputs = torch.where(steps_within(lengths, T).unsqueeze(-1), inputs, 0.0)
    if is_validation_enabled() and not bool(inputs.isfinite().all()):
        t, *b, d = (~inputs.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f'Site "{name}": input {d} at step {t} of sequence {tuple(b)} is '
            f"{inputs[(t, *b, d)].item()}, expected finite numbers; fill in what is missing, for "
            "instance with inputs=inputs.nan_to_num() and one more input that says where."
        )
    return inputs.movedim(0, -2)


def check_lengths(name: str, lengths: Tensor | None, T: int, shape: torch.Size) -> Tensor | None:
    """Return the lengths of sequences, expanded to ``batch_shape``.

    :raises ValueError: if they are no integers, do not fit, or are out of range.
    """
    if lengths is None:
        return None
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise ValueError(
            f'Site "{name}": lengths have dtype {lengths.dtype}, expected integers, one per '
            "sequence; write lengths=lengths.long()."
        )
    try:
        lengths = lengths.expand(shape)
    except RuntimeError:
        raise ValueError(
            f'Site "{name}": lengths have shape {tuple(lengths.shape)}, expected {tuple(shape)}, '
            "one per sequence of the plates around the loop."
        ) from None
    if is_validation_enabled() and lengths.numel():
        low, high = (int(v) for v in torch.aminmax(lengths))
        if low < 0 or high > T:
            raise ValueError(
                f'Site "{name}": lengths run from {low} to {high}, expected 0 to num_steps={T}; '
                "write lengths=lengths.clamp(max=len(x)) if the data were truncated."
            )
    return lengths
