"""Where the compiled sweep of ``kernels`` can stand in for the one in ``sweep.py``.

Both take the same random numbers, so that they give the same draws, up to the rounding of float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from ..cells import LSTMState
from ..kernels import library
from ..kernels.states import SweepNumbers, sweep_states, trace_back
from ..kernels.weights import weights_of_states
from .emissions import TableEmission
from .particles import Particles, SweepArguments
from .randomness import ANCESTORS, LATENTS, REDRAWS

__all__ = ["compiled_sweep", "compiled_trace_back"]


def compiled_sweep(given: SweepArguments) -> Particles | None:
    """Run a sweep over states compiled; ``None`` where it has to be run by torch."""
    found, drawn_by, twist = library(), given.drawn_by, given.twist
    if found is None or not isinstance(drawn_by, TableEmission):
        return None
    cell = weights_of_states(given.transition)
    optional = {
        "twist": twist.table if isinstance(twist, TableEmission) else None,
        "scale": given.scale,
        "inputs": given.inputs,
        "lengths": given.lengths,
        "reference": given.reference,
    }
    table = drawn_by.table
    if cell is None or not (table.numel() and _all_plain(table, *optional.values(), *cell[1:])):
        return None
    T, draw, double = len(table), given.randomness.uniform, torch.float64
    numbers = SweepNumbers(
        draw(LATENTS, T, given.num_particles, table.dtype),
        draw(ANCESTORS, T, given.uniforms_per_step, double),
        draw(REDRAWS, T, 2, double) if given.redraw_at else None,
    )
    swept = sweep_states(
        found,
        cell,
        table,
        numbers,
        redraw_at=given.redraw_at,
        lag=given.lag,
        systematic=given.resampling == "systematic",
        **optional,
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
