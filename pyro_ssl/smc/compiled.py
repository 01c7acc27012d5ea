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
from ..kernels import library
from ..kernels.particles import ancestors_of, normalised
from ..kernels.plain import all_plain
from ..kernels.states import sweep_states
from ..kernels.step import CompiledStep
from ..kernels.sweeps import SweepSettings, Swept, trace_back
from ..kernels.vectors import MAX_DIM, sweep_vectors
from ..kernels.weights import weights_of_states, weights_of_vectors
from ..transitions import ReadState, RecurrentGaussianTransition
from ..transitions.gaussian import GaussianStepper, Moments
from .emissions import QuadraticEmission, TableEmission
from .particles import Particles, SweepArguments
from .randomness import ANCESTORS, LATENTS, REDRAWS

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
    #: runs it, in a library; returns the state as well
    run: Callable[[Any, SweepSettings], tuple[Swept, Any]]


def compiled_sweep(given: SweepArguments) -> Particles | None:
    """Run a sweep compiled; ``None`` where it has to be run by torch."""
    found, (T, B) = library(), given.drawn_by.shape
    if found is None or not T * B:
        return None
    kind = _over_states(given) or _over_vectors(given)
    optional = (given.scale, given.inputs, given.lengths, given.reference)
    if kind is None or not all_plain(*optional, *kind.reads):
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
    swept, state = kind.run(found, settings)
    particles = (swept.z, swept.ancestors, swept.log_likelihood)
    return Particles(*particles, state, swept.chosen_by, swept.weights)


def _over_states(given: SweepArguments) -> _Kind | None:
    if not isinstance(given.drawn_by, TableEmission):
        return None
    weights, table = weights_of_states(given.transition), given.drawn_by.table
    if weights is None:
        return None
    cell, twist = weights, given.twist.table if isinstance(given.twist, TableEmission) else None

    def run(found: Any, settings: SweepSettings) -> tuple[Swept, Any]:
        u_z = given.randomness.uniform(LATENTS, len(table), given.num_particles, table.dtype)
        swept = sweep_states(found, cell, table, twist, u_z, settings)
        return swept, LSTMState(swept.h, swept.c)

    return _Kind((table, twist, *cell[1:]), run)


def _over_vectors(given: SweepArguments) -> _Kind | None:
    if not isinstance(given.drawn_by, QuadraticEmission):
        return None
    emission, P = given.drawn_by.function, given.num_particles
    T, B, D = emission.center.shape
    found_weights = weights_of_vectors(given.transition) if D <= MAX_DIM else None
    if found_weights is None:
        return None
    weights = found_weights
    cell, *of_head = weights
    twist = given.twist.function if isinstance(given.twist, QuadraticEmission) else None

    def run(found: Any, settings: SweepSettings) -> tuple[Swept, Any]:
        noise = given.randomness.normal(LATENTS, T, P * D, emission.center.dtype)
        noise = noise.reshape(T, B, P, D)
        swept, last = sweep_vectors(found, weights, emission, twist, noise, settings)
        return swept, ReadState(LSTMState(swept.h, swept.c), last)

    return _Kind((*emission, *(twist or ()), *cell[1:], *of_head), run)


def compiled_trace_back(ancestors: Tensor, slot: Tensor) -> Tensor | None:
    """Return the particles ``(T, B)`` of a final slot's path; ``None`` where torch has to."""
    found = library()
    if found is None or not (ancestors.numel() and all_plain(ancestors, slot)):
        return None
    return trace_back(found, ancestors, slot)


def compiled_resampling(given: SweepArguments) -> Callable[..., Tensor] | None:
    """Return what draws the ancestors of a step; ``None`` where torch has to."""
    found = library()
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
    found, transition = library(), given.transition
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
