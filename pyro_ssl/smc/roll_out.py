"""Particles that run on under the transition, from where an unconditional sweep left them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..transitions import DiscreteTransition, Transition
from .arguments import check_roll_out
from .resampling import invert_cdf, monotone_cumsum
from .sweep import Sweep

__all__ = ["RollOut", "roll_out"]


class RollOut(NamedTuple):
    """S steps of the particles' futures.

    ``paths`` ``(S, B, P) + event_shape``; ``state_probs`` ``(S, B, K)``, p(z_t = k) averaged over
    the particles' prefixes, ``None`` where latents are vectors.
    """

    paths: Tensor
    state_probs: Tensor | None


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
    start, B, P = sweep.ancestors.shape
    step = transition.stepper(None if inputs is None else inputs.repeat_interleave(P, 1))
    state, z_prev = sweep.state, sweep.z[-1].flatten(0, 1) if start else None
    paths, probs = [], []
    for t in range(start, start + num_steps):
        predicted, state = step(z_prev, state, t)
        if isinstance(transition, DiscreteTransition):
            p = torch.softmax(predicted.expand(B * P, transition.num_states), -1)
            u = torch.rand(B * P, 1, device=p.device, dtype=p.dtype)
            z_prev = invert_cdf(monotone_cumsum(p), u).view(-1)
            probs.append(p.view(B, P, transition.num_states).mean(1))
        else:
            mean, scale = predicted
            z_prev = mean + scale * torch.randn_like(mean)
        paths.append(z_prev.unflatten(0, (B, P)))
    return RollOut(torch.stack(paths), torch.stack(probs) if probs else None)
