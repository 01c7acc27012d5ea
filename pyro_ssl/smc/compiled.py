"""Where the compiled sweep of ``kernels`` can stand in for the one in ``sweep.py``.

Both take the same random numbers, so that they give the same draws, up to the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cells import LSTMState
from ..kernels import library, on_gpu
from ..kernels.plain import all_plain
from ..kernels.states import sweep_states
from ..kernels.sweeps import SweepSettings, Swept, trace_back
from ..kernels.vectors import MAX_DIM, sweep_vectors
from ..kernels.weights import weights_of_states, weights_of_vectors
from ..transitions import ReadState
from .emissions import QuadraticEmission, TableEmission
from .particles import Particles, SweepArguments
from .randomness import ANCESTORS, LATENTS, REDRAWS

__all__ = ["compiled_sweep", "compiled_trace_back"]


class _Kind(NamedTuple):
    """A sweep over one kind of latent, ready to run."""

    #: all that it reads
    reads: Iterable[Tensor | None]
    #: runs it; returns the state as well, or ``None`` where torch has to
    run: Callable[[SweepSettings], tuple[Swept, Any] | None]


def compiled_sweep(given: SweepArguments) -> Particles | None:
    """Run a sweep compiled; ``None`` where it has to be run by torch."""
    T, B = given.drawn_by.shape
    kind = (_over_states(given) or _over_vectors(given)) if T * B else None
    optional = (given.scale, given.inputs, given.lengths, given.reference)
    on = given.transition.like.device.type
    if kind is None or not all_plain(*optional, *kind.reads, kind=on):
        return None
    draw, double = given.randomness.uniform, torch.float64
    settings = SweepSettings(
        given.resampling == "systematic",
        given.redraw_at,
        given.lag,
        *optional,
        u_ancestors=draw(ANCESTORS, T, given.uniforms_per_step, double),
        u_redraws=draw(REDRAWS, T, 2, double) if given.redraw_at else None,
    )
    found = kind.run(settings)
    if found is None:
        return None
    swept, state = found
    particles = (swept.z, swept.ancestors, swept.log_likelihood)
    return Particles(*particles, state, swept.chosen_by, swept.weights)


def _over_states(given: SweepArguments) -> _Kind | None:
    if not isinstance(given.drawn_by, TableEmission):
        return None
    gpu, found = on_gpu(given.transition.like.device), _library_of(given)
    weights = weights_of_states(given.transition) if gpu or found else None
    if weights is None:
        return None
    cell, table, P = weights, given.drawn_by.table, given.num_particles
    if gpu is not None and not gpu.fits(P, table.shape[-1], cell.recurrent.shape[-1]):
        return None
    sweep = partial(sweep_states, found) if gpu is None else gpu.sweep_states
    twist = given.twist.table if isinstance(given.twist, TableEmission) else None

    def run(settings: SweepSettings) -> tuple[Swept, Any] | None:
        u_z = given.randomness.uniform(LATENTS, len(table), P, table.dtype)
        swept = sweep(cell, table, twist, u_z, settings)
        return None if swept is None else (swept, LSTMState(swept.h, swept.c))

    return _Kind((table, twist, *cell[1:]), run)


def _library_of(given: SweepArguments) -> Any:
    return library() if given.transition.like.device.type == "cpu" else None


def _over_vectors(given: SweepArguments) -> _Kind | None:
    found = _library_of(given)
    if found is None or not isinstance(given.drawn_by, QuadraticEmission):
        return None
    emission, P = given.drawn_by.function, given.num_particles
    T, B, D = emission.center.shape
    found_weights = weights_of_vectors(given.transition) if D <= MAX_DIM else None
    if found_weights is None:
        return None
    weights = found_weights
    cell, *of_head = weights
    twist = given.twist.function if isinstance(given.twist, QuadraticEmission) else None

    def run(settings: SweepSettings) -> tuple[Swept, Any]:
        noise = given.randomness.normal(LATENTS, T, P * D, emission.center.dtype)
        noise = noise.reshape(T, B, P, D)
        swept, last = sweep_vectors(found, weights, emission, twist, noise, settings)
        return swept, ReadState(LSTMState(swept.h, swept.c), last)

    return _Kind((*emission, *(twist or ()), *cell[1:], *of_head), run)


def compiled_trace_back(ancestors: Tensor, slot: Tensor) -> Tensor | None:
    """Return the particles ``(T, B)`` of a final slot's path; ``None`` where torch has to."""
    kind = ancestors.device.type
    if not (ancestors.numel() and all_plain(ancestors, slot, kind=kind)):
        return None
    gpu, found = on_gpu(ancestors.device), library() if kind == "cpu" else None
    if gpu is not None:
        return gpu.trace_back(ancestors, slot)
    return None if found is None else trace_back(found, ancestors, slot)
