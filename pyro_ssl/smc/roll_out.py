"""Particles that run on under the transition alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..transitions import DiscreteTransition, Transition, map_state
from .arguments import check_roll_out
from .particles import Standing, Sweep
from .resampling import invert_cdf, monotone_cumsum, systematic

__all__ = ["Draw", "RollOut", "even", "roll_on", "roll_out", "run_on"]


class RollOut(NamedTuple):
    """S steps of the particles' futures.

    ``paths`` ``(S, B, P) + event_shape``; ``state_probs`` ``(S, B, K)``, p(z_t = k) averaged over
    the particles' prefixes, ``None`` where latents are vectors.
    """

    paths: Tensor
    state_probs: Tensor | None


class Draw(NamedTuple):
    """One step of N rows: z_{t-1} (``None`` at t = 0), p(z_t | z_{1:t-1}), and z_t drawn from it.

    ``predicted`` is probabilities ``(N, K)``, or ``Moments`` ``(N, D)``.
    """

    z_prev: Tensor | None
    predicted: Any
    z: Tensor


@torch.no_grad()
def run_on(
    transition: Transition,
    z_prev: Tensor | None,
    state: Any,
    steps: Iterable[int],
    inputs: Tensor | None,
    num_rows: int,
) -> Iterator[Draw]:
    """Draw the given steps of N rows from the transition, one after the other.

    :param z_prev: ``(N,) + event_shape``, or ``None`` before the first step.
    :param inputs: exogenous inputs by row, of all steps from 0, ``(T, N, input_size)``.
    """
    step = transition.stepper(inputs)
    for t in steps:
        predicted, state = step(z_prev, state, t)
        if isinstance(transition, DiscreteTransition):
            predicted = torch.softmax(predicted.expand(num_rows, transition.num_states), -1)
            u = torch.rand(num_rows, 1, device=predicted.device, dtype=predicted.dtype)
            z = invert_cdf(monotone_cumsum(predicted), u).view(-1)
        else:  # moments of a transition that reads nothing may be those of one row
            shape = (num_rows, *transition.event_shape)
            predicted = type(predicted)(*(value.expand(shape) for value in predicted))
            z = predicted.mean + predicted.scale * torch.randn_like(predicted.mean)
        yield Draw(z_prev, predicted, z)
        z_prev = z


@torch.no_grad()
def roll_out(
    transition: Transition, sweep: Sweep, num_steps: int, *, inputs: Tensor | None = None
) -> RollOut:
    """Let the particles of a sweep over s steps run on for S more.

    :param Sweep sweep: unconditional, its particles of equal weight.
    :param int num_steps: S.
    :param Tensor inputs: exogenous inputs of all s + S steps, ``(s + S, B, input_size)``.
    :raises TypeError: if an argument is of another class.
    :raises ValueError: if particles have weights, or sizes do not fit; nothing was drawn.
    """
    check_roll_out(transition, sweep, num_steps, inputs)
    start, *sizes = sweep.ancestors.shape
    inputs = None if inputs is None else inputs[start:]
    standing = Standing(sweep.z[-1] if start else None, sweep.state, None)
    return roll_on(transition, standing, num_steps, (sizes[0], sizes[1]), inputs)


@torch.no_grad()
def roll_on(
    transition: Transition,
    standing: Standing,
    num_steps: int,
    sizes: tuple[int, int],
    inputs: Tensor | None,
) -> RollOut:
    """Let particles run on for S steps from where they stand; their weights are not looked at.

    :param sizes: B, P.
    :param Tensor inputs: exogenous inputs of these steps, ``(S, B, input_size)``.
    """
    B, P = sizes
    by_row = None if inputs is None else inputs.repeat_interleave(P, 1)
    z_prev = None if standing.z is None else standing.z.flatten(0, 1)
    paths, probs = [], []
    for draw in run_on(transition, z_prev, standing.state, range(num_steps), by_row, B * P):
        paths.append(draw.z.unflatten(0, (B, P)))
        if isinstance(transition, DiscreteTransition):
            probs.append(draw.predicted.view(B, P, transition.num_states).mean(1))
    return RollOut(torch.stack(paths), torch.stack(probs) if probs else None)


@torch.no_grad()
def even(standing: Standing) -> Standing:
    """Return particles of equal weight, drawn by the weights that some have."""
    z, state, weights = standing
    if z is None or weights is None:
        return standing
    B, P = weights.shape
    u = torch.rand(B, 1, device=weights.device, dtype=weights.dtype)
    first_rows = torch.arange(B, device=weights.device).unsqueeze(-1) * P
    rows = (first_rows + systematic(weights, None, u)).view(-1)
    z = z.flatten(0, 1).index_select(0, rows).view_as(z)
    return Standing(z, map_state(lambda part: part.index_select(0, rows), state), None)
