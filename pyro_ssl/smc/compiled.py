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
from ..kernels.particles import ancestors_of, normalised
from ..kernels.plain import all_plain
from ..kernels.states import sweep_states
from ..kernels.step import CompiledStep
from ..kernels.sweeps import SweepSettings, Swept, trace_back
from ..kernels.vectors import MAX_DIM, sweep_vectors
from ..kernels.weights import weights_of_states, weights_of_vectors
from ..transitions import LinearGaussianTransition, ReadState, RecurrentGaussianTransition
from ..transitions.gaussian import GaussianStepper, Moments
from .emissions import QuadraticEmission, TableEmission
from .particles import Particles, Standing, SweepArguments
from .randomness import LATENTS, REDRAWS

__all__ = [
    "compiled_normalised",
    "compiled_resampling",
    "compiled_stepper",
    "compiled_sweep",
    "compiled_trace_back",
]


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
        u_ancestors=given.draw_ancestors(given.randomness, T),
        u_redraws=draw(REDRAWS, T, 2, double) if given.redraw_at else None,
        **_start(given.start),
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


def _start(start: Standing | None) -> dict[str, Tensor | None]:
    """Particles that a sweep goes on from, by their names in the settings."""
    if start is None:
        return {}
    cell = start.state.cell if isinstance(start.state, ReadState) else start.state
    return {"z_start": start.z, "h_start": cell.h, "c_start": cell.c, "w_start": start.weights}


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
    around, drift = getattr(given.transition, "around", None), None
    if around is not None:
        drift = _drift(around, given.inputs).expand(T, B, D)

    def run(settings: SweepSettings) -> tuple[Swept, Any]:
        noise = given.randomness.normal(LATENTS, T, P * D, emission.center.dtype)
        noise = noise.reshape(T, B, P, D)
        last = None if given.start is None else given.start.state.last
        swept, last = sweep_vectors(found, weights, emission, twist, noise, drift, settings, last)
        return swept, ReadState(LSTMState(swept.h, swept.c), last)

    return _Kind((*emission, *(twist or ()), *cell[1:], *of_head, drift), run)


@torch.no_grad()
def _drift(chain: LinearGaussianTransition, inputs: Tensor | None) -> Tensor:
    """b + G u_t, input by input: a product's rounding would depend on the batch."""
    drift = chain.offset
    if inputs is not None and chain.input_matrix is not None:
        for i, column in enumerate(chain.input_matrix.unbind(1)):
            drift = drift + inputs[..., i, None] * column
    return drift


def compiled_trace_back(ancestors: Tensor, slot: Tensor) -> Tensor | None:
    """Return the particles ``(T, B)`` of a final slot's path; ``None`` where torch has to."""
    kind = ancestors.device.type
    if not (ancestors.numel() and all_plain(ancestors, slot, kind=kind)):
        return None
    gpu, found = on_gpu(ancestors.device), library() if kind == "cpu" else None
    if gpu is not None:
        return gpu.trace_back(ancestors, slot)
    return None if found is None else trace_back(found, ancestors, slot)


def compiled_resampling(given: SweepArguments) -> Callable[..., Tensor] | None:
    """Return what draws the ancestors of a step; ``None`` where torch has to."""
    found = _library_of(given)
    if found is None or not all_plain(given.transition.like):
        return None
    return partial(ancestors_of, found, given.resampling == "systematic")


def compiled_normalised(log_w: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return weights of mean 1, and the log of the mean they had; ``None`` where torch has to."""
    found = library()
    if found is None or not (log_w.numel() and all_plain(log_w)):
        return None
    return normalised(found, log_w)


def compiled_stepper(given: SweepArguments) -> GaussianStepper | None:
    """Return the transition's stepper over vectors; ``None`` where torch has to step."""
    found, transition = _library_of(given), given.transition
    weights = None if found is None or given.inputs is not None else weights_of_vectors(transition)
    if weights is None or not all_plain(given.reference, *weights.cell[1:]):
        return None
    assert isinstance(transition, RecurrentGaussianTransition)
    ours, run = transition, CompiledStep(found, weights.cell)

    def step(z_prev: Tensor | None, state: ReadState, t: int) -> tuple[Moments, ReadState]:
        read, last = ours._encode_step(z_prev, state.last)
        h, c, out = run(read, state.cell.h, state.cell.c)
        moments = ours._moments(out, z_prev)
        return Moments(*(v.detach() for v in moments)), ReadState(LSTMState(h, c), last)

    return step
