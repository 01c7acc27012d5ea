"""Where the compiled sweep of ``kernels`` can stand in for the one in ``sweep.py``.

It draws the same random numbers in the same order, so that both give the same draws, up to the
rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from ..cells import LSTMState
from ..kernels import library
from ..kernels.states import sweep_states
from ..kernels.sweeps import SweepSettings, Swept, trace_back
from ..kernels.vectors import MAX_DIM, sweep_vectors
from ..kernels.weights import weights_of_states, weights_of_vectors
from ..transitions import ReadState, Transition
from .ancestors import schedule
from .emissions import Emission, QuadraticEmission, TableEmission
from .particles import Particles

__all__ = ["compiled_sweep", "compiled_trace_back"]


class _Kind(NamedTuple):
    """A sweep over one kind of latent, ready to run."""

    #: all that it reads
    given: Iterable[Tensor | None]
    #: the random numbers that draw z_t, of P particles
    numbers: Callable[[int], Tensor]
    #: runs it with these numbers; returns the state as well
    run: Callable[[Any, Tensor, SweepSettings], tuple[Swept, Any]]


def compiled_sweep(
    transition: Transition,
    emission: Emission,
    num_particles: int,
    reference: Tensor | None,
    *,
    lengths: Tensor | None,
    inputs: Tensor | None,
    resampling: str,
    every: int,
    lag: int,
    scale: Tensor | None,
    twist: Emission | None,
) -> Particles | None:
    """Run a sweep compiled; ``None`` where it has to be run by torch.

    Parameters as for :func:`~pyro_ssl.smc.conditional_smc`, checked.
    """
    found, P, (T, B) = library(), num_particles, emission.shape
    if found is None or not T * B:
        return None
    kind = _over_states(transition, emission, twist) or _over_vectors(transition, emission, twist)
    if kind is None or not _all_plain(scale, inputs, lengths, reference, *kind.given):
        return None
    numbers = kind.numbers(P)
    redraw_at = range(0) if reference is None else schedule(T, every)
    double: dict[str, Any] = {"dtype": torch.float64, "device": numbers.device}
    settings = SweepSettings(
        resampling == "systematic",
        redraw_at,
        lag,
        *(scale, inputs, lengths, reference),
        u_ancestors=torch.rand(T, B, P, **double),
        u_redraws=torch.rand(len(redraw_at), 2, B, **double),
    )
    swept, state = kind.run(found, numbers, settings)
    particles = (swept.z, swept.ancestors, swept.log_likelihood)
    return Particles(*particles, state, swept.chosen_by, swept.weights)


def _over_states(
    transition: Transition, emission: Emission, twist: Emission | None
) -> _Kind | None:
    if not isinstance(emission, TableEmission):
        return None
    weights = weights_of_states(transition)
    if weights is None:
        return None
    cell, log_twist = weights, None
    if twist is not None:
        emission = emission.times(twist)
        assert isinstance(twist, TableEmission)
        log_twist = twist.table
    table, (T, B) = emission.table, emission.shape

    def numbers(P: int) -> Tensor:
        return torch.rand(T, B, P, dtype=table.dtype, device=table.device)

    def run(found: Any, u_z: Tensor, settings: SweepSettings) -> tuple[Swept, Any]:
        swept = sweep_states(found, cell, table, log_twist, u_z, settings)
        return swept, LSTMState(swept.h, swept.c)

    return _Kind((table, log_twist, *cell[1:]), numbers, run)


def _over_vectors(
    transition: Transition, emission: Emission, twist: Emission | None
) -> _Kind | None:
    if not isinstance(emission, QuadraticEmission):
        return None
    D = emission.function.center.shape[-1]
    weights = weights_of_vectors(transition) if D <= MAX_DIM else None
    if weights is None:
        return None
    cell, *of_head = weights
    log_twist = None
    if twist is not None:
        emission = emission.times(twist)
        assert isinstance(twist, QuadraticEmission)
        log_twist = twist.function
    function, (T, B) = emission.function, emission.shape

    def numbers(P: int) -> Tensor:
        center = function.center
        return torch.randn(T, B * P, D, dtype=center.dtype, device=center.device)

    def run(found: Any, noise: Tensor, settings: SweepSettings) -> tuple[Swept, Any]:
        swept, last = sweep_vectors(found, weights, function, log_twist, noise, settings)
        return swept, ReadState(LSTMState(swept.h, swept.c), last)

    return _Kind((*function, *(log_twist or ()), *cell[1:], *of_head), numbers, run)


def compiled_trace_back(ancestors: Tensor, slot: Tensor) -> Tensor | None:
    """Return the particles ``(T, B)`` of a final slot's path; ``None`` where torch has to."""
    found = library()
    if found is None or not (ancestors.numel() and _all_plain(ancestors, slot)):
        return None
    return trace_back(found, ancestors, slot)


def _all_plain(*values: Tensor | None) -> bool:
    """Whether all are dense tensors of the CPU, float32 where they are no indices."""
    return all(value is None or _is_plain(value) for value in values)


def _is_plain(value: Tensor) -> bool:
    return (
        type(value) in (Tensor, Parameter)
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and value.dtype in (torch.float32, torch.int64)
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    )
