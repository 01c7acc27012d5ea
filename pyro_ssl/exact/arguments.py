"""What the exact algorithms ask of their arguments, once per call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments import (
    check_kind,
    check_lengths,
    check_probabilities,
    check_tensor,
    may_read,
)
from ..errors import NonFiniteError
from ..steps import steps_within
from ..transitions import LinearGaussianTransition

__all__ = ["check_chain", "check_emission", "check_kalman"]


def check_emission(where: str, log_emission: Any, lengths: Any) -> Tensor:
    """Check log p(x_t | z_t = k) ``(T, B, K)`` and lengths; return it with 0 past the lengths.

    :raises TypeError: if one is no tensor.
    :raises ValueError: if they do not fit one another, or there is no step or state.
    :raises NonFiniteError: if one within the lengths is NaN or +inf.
    """
    write = "log_emission[:, None] for one sequence (T, K)"
    check_tensor(where, "log_emission", log_emission, ("T", "B", "K"), some="TK", write=write)
    T, B, _ = log_emission.shape
    check_lengths(where, lengths, T, B, log_emission.device)
    if lengths is not None:  # NaN there would reach the gradients of what is within
        within = steps_within(lengths, T).unsqueeze(-1)
        log_emission = torch.where(within, log_emission, 0.0)
    if may_read(log_emission) and not bool((log_emission < torch.inf).all()):
        t, b, k = (~(log_emission < torch.inf)).nonzero()[0].tolist()
        raise NonFiniteError(
            f"{where}: log_emission is {float(log_emission[t, b, k])} at step {t} of sequence {b} "
            f"for state {k}, expected finite numbers or -inf; give lengths= for padding, and 0 for "
            "all states where nothing was observed."
        )
    return log_emission


def check_chain(where: str, initial: Any, matrix: Any, log_emission: Any, lengths: Any) -> Tensor:
    """Check an HMM and its emissions; see :func:`check_emission`.

    :raises ValueError: also if ``initial`` ``(K,)`` or a row of ``matrix`` ``(K, K)`` is no
        distribution.
    """
    log_emission = check_emission(where, log_emission, lengths)
    K = log_emission.shape[-1]
    for name, value, shape in (("initial", initial, (K,)), ("matrix", matrix, (K, K))):
        write = f"{where}(p, A, log_emission) with p (K,), A (K, K), log_emission (T, B, K)"
        check_tensor(where, name, value, shape, like=log_emission, write=write)
        check_probabilities(where, name, value)
    return log_emission


def check_kalman(
    where: str,
    transition: Any,
    emission: Any,
    x: Any,
    mask: Any,
    lengths: Any,
    inputs: Any = None,
) -> Tensor:
    """Check what would broadcast to another model; return what was observed, bool ``(T, B, E)``.

    :raises TypeError: if an argument is of another class.
    :raises ValueError: naming what does not fit.
    :raises NonFiniteError: if an observation is infinite, or an input is not finite.
    """
    check_kind(where, "transition", transition, LinearGaussianTransition, _HOW)
    if not all(isinstance(getattr(emission, name, None), Tensor) for name in _PARTS):
        raise TypeError(
            f"{where}: emission is a {type(emission).__name__}, expected a LinearEmission of "
            f"tensors; write {_HOW}."
        )
    like = transition.offset
    D, E = transition.dim, emission.offset.numel()
    for name, shape in zip(_PARTS, ((E, D), (E,), (E, E)), strict=True):
        value = getattr(emission, name)
        check_tensor(where, f"emission.{name}", value, shape, like=like, write=_HOW)
    write = "x.unsqueeze(1) for one sequence"
    check_tensor(where, "x", x, ("T", "B", E), like=like, some="T", write=write)
    T, B = x.shape[:2]
    check_lengths(where, lengths, T, B, x.device)
    transition._check_has_inputs(where, inputs)
    if inputs is not None:
        _check_inputs(where, inputs, (T, B, transition.input_size), like)
    seen = ~x.isnan()
    if mask is not None:
        seen = seen & _mask(where, mask, (T, B, E), x.device)
    if lengths is not None:
        seen = seen & steps_within(lengths, T).unsqueeze(-1)
    if may_read(x):
        _check_values(where, emission.covariance, x, seen)
    return seen


def _check_inputs(where: str, inputs: Any, shape: tuple[int, int, int], like: Tensor) -> None:
    T, _, size = shape
    shared = isinstance(inputs, Tensor) and inputs.dim() == 2
    write = "u[:, None].expand(-1, B, -1) for inputs (T, U) that all sequences share"
    expected = (T, size) if shared else shape
    check_tensor(where, "inputs", inputs, expected, like=like, write=write)
    if may_read(inputs) and not bool(inputs.isfinite().all()):
        raise NonFiniteError(
            f"{where}: inputs hold NaN or inf, expected finite numbers at every step; write "
            "inputs.nan_to_num(), or make what may be missing a sensor of x."
        )


def _mask(where: str, mask: Any, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        raise ValueError(
            f"{where}: mask has dtype {mask.dtype}, expected bool, true where x_t is observed; "
            "write mask=mask.bool()."
        )
    like, numbers = torch.empty(0, device=device), mask
    by_sensor = isinstance(mask, Tensor) and mask.dim() == 3
    if isinstance(mask, Tensor):
        numbers = mask.long()
    write = "one flag for each x_t, time first, or one for each sensor"
    expected = shape if by_sensor else shape[:2]
    check_tensor(where, "mask", numbers, expected, like=like, integer=True, write=write)
    return mask if by_sensor else mask.unsqueeze(-1)


def _check_values(where: str, covariance: Tensor, x: Tensor, seen: Tensor) -> None:
    symmetric = (covariance - covariance.mT).abs().amax() <= 1e-4 * covariance.abs().amax()
    if not bool(symmetric) or int(torch.linalg.cholesky_ex(covariance.detach()).info):
        raise ValueError(
            f"{where}: emission.covariance is not symmetric and positive definite, expected R of "
            "the noise; write R @ R.mT for a root, or add 1e-6 * torch.eye(len(R))."
        )
    bad = seen & x.isinf()
    if bool(bad.any()):
        t, b, _ = bad.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{where}: x is {x[t, b].tolist()} at step {t} of sequence {b}, expected finite "
            "numbers, or NaN for sensors that were not observed; write mask=x.isfinite()."
        )


_PARTS = ("matrix", "offset", "covariance")
_HOW = (
    "kalman_filter(transition, LinearEmission(C, d, R), x) with C (E, D), d (E,), R (E, E), "
    "x (T, B, E), mask (T, B) or (T, B, E), lengths (B,), inputs (T, B, U)"
)
