"""Where the compiled sweep of ``kernels`` can stand in for the one in ``sweep.py``.

It draws the same random numbers in the same order, so that both give the same draws, up to the
rounding of float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ..cells import LSTMState
from ..kernels import library
from ..kernels.states import SweepNumbers, sweep_states, trace_back
from ..kernels.weights import weights_of_states
from ..transitions import Transition
from .ancestors import schedule
from .emissions import Emission, TableEmission
from .particles import Particles

__all__ = ["compiled_sweep", "compiled_trace_back"]


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
    """Run a sweep over states compiled; ``None`` where it has to be run by torch.

    Parameters as for :func:`~pyro_ssl.smc.conditional_smc`, checked.
    """
    found, P = library(), num_particles
    if found is None or not isinstance(emission, TableEmission):
        return None
    cell = weights_of_states(transition)
    log_twist = None
    if twist is not None:
        emission = emission.times(twist)
        log_twist = twist.table if isinstance(twist, TableEmission) else None
    table = emission.table
    given = (table, log_twist, scale, inputs, lengths, reference)
    if cell is None or not (table.numel() and _all_plain(*given, *cell[1:])):
        return None
    T, B, _ = table.shape
    u_z = torch.rand(T, B, P, dtype=table.dtype, device=table.device)
    redraw_at = range(0) if reference is None else schedule(T, every)
    double: dict[str, Any] = {"dtype": torch.float64, "device": table.device}
    u_ancestors = torch.rand(T, B, P, **double)
    numbers = SweepNumbers(u_z, u_ancestors, torch.rand(len(redraw_at), 2, B, **double))
    swept = sweep_states(
        found,
        cell,
        table,
        numbers,
        redraw_at=redraw_at,
        lag=lag,
        systematic=resampling == "systematic",
        twist=log_twist,
        scale=scale,
        inputs=inputs,
        lengths=lengths,
        reference=reference,
    )
    state = LSTMState(swept.h, swept.c)
    particles = (swept.z, swept.ancestors, swept.log_likelihood)
    return Particles(*particles, state, swept.chosen_by, swept.weights)


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
