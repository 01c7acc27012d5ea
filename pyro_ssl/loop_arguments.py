"""What ``ssl_transition`` is given beside its transition, checked, and laid out batch first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from .arguments import may_read
from .steps import steps_within
from .transitions import DiscreteTransition, Transition

__all__ = ["by_chain", "check_inputs", "check_known", "check_lengths", "check_tensor"]


def by_chain(what: str, value: Any, transitions: Mapping[str, Transition]) -> dict[str, Any]:
    """Return what each of several chains is given of an argument, by its name.

    Inputs that are no dict are those of all chains that read any.

    :raises TypeError, ValueError: if it is no dict, or names a chain that is not there.
    """
    some = next(iter(transitions))
    if what.endswith("inputs") and not isinstance(value, Mapping):
        reads = [bool(transition.input_size) for transition in transitions.values()]
        pairs = zip(transitions, reads, strict=True)
        return {name: value if read or not any(reads) else None for name, read in pairs}
    if value is None:
        return dict.fromkeys(transitions)
    if not isinstance(value, Mapping):
        raise TypeError(
            f'Site "{some}": {what} is a {type(value).__name__}, expected a dict by the names of '
            f'the chains, {sorted(transitions)}; write {what}={{"{some}": {what}}}.'
        )
    if unknown := sorted(set(value) - set(transitions), key=str):
        raise ValueError(
            f'Site "{unknown[0]}": named in {what}, but the chains of the loop are '
            f'{sorted(transitions)}, expected one of these; write {what}={{"{some}": ...}}.'
        )
    return {name: value.get(name) for name in transitions}


def check_known(
    name: str,
    transition: Transition,
    given: tuple[Any, Any],
    lengths: Tensor | None,
    time_first: tuple[int, ...],
) -> tuple[Tensor | None, Tensor | None]:
    """Return states that are known, int64 ``(T,) + batch_shape``, -1 elsewhere; and where, or None.

    :param given: ``obs`` and ``obs_mask``.
    :param Tensor lengths: ``batch_shape``.
    :param time_first: ``(T,) + batch_shape``.
    :raises TypeError: if z is a vector, or one is no tensor.
    :raises ValueError: if they do not fit, or hold what is no state.
    """
    obs, obs_mask = given
    if obs is None and obs_mask is None:
        return None, None
    if obs is None:
        raise ValueError(
            f'Site "{name}": obs_mask was given and obs was not, expected both or neither; write '
            f"obs=z with z integers {time_first}, any where the mask is False."
        )
    if not isinstance(transition, DiscreteTransition):
        raise TypeError(
            f'Site "{name}": obs was given, but its transition is a {type(transition).__name__}, '
            "expected a DiscreteTransition: of vectors nothing is known exactly. Observe what is "
            'known of one in the body: pyro.sample("y", dist.Normal(z, 0.01).to_event(1), '
            "obs=y[t])."
        )
    for what, value in (("obs", obs), ("obs_mask", obs_mask)):
        check_tensor(name, what, value, transition.like.device)
        if value is not None and tuple(value.shape) != time_first:
            raise ValueError(
                f'Site "{name}": {what} has shape {tuple(value.shape)}, expected {time_first}, '
                f"time first, as the data; write {what}={what}.T for sequences first."
            )
    if obs.is_floating_point() or obs.is_complex() or obs.dtype == torch.bool:
        raise ValueError(
            f'Site "{name}": obs has dtype {obs.dtype}, expected integers, the states; write '
            "obs=obs.long(), and obs_mask=~obs.isnan() where NaN stands for what is not known."
        )
    if obs_mask is not None and obs_mask.dtype != torch.bool:
        raise ValueError(
            f'Site "{name}": obs_mask has dtype {obs_mask.dtype}, expected bool, True where obs is '
            "known; write obs_mask=obs_mask.bool()."
        )
    seen = torch.ones_like(obs, dtype=torch.bool) if obs_mask is None else obs_mask
    if lengths is not None:
        seen = seen & steps_within(lengths, time_first[0])
    wrong = seen & ((obs < 0) | (obs >= transition.num_states))
    if may_read(obs) and bool(wrong.any()):
        t, *b = wrong.nonzero()[0].tolist()
        raise ValueError(
            f'Site "{name}": obs is {int(obs[(t, *b)])} at step {t} of sequence {tuple(b)}, '
            f"expected a state from 0 to {transition.num_states - 1}; write obs_mask=obs >= 0 "
            "where -1 stands for what is not known."
        )
    return torch.where(seen, obs.long(), -1), None if obs_mask is None else seen


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
