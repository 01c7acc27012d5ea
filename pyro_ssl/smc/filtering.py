"""The sweep as a filter: no reference, no history, and it may go on where another one ended.

What the particles were before does not matter for what they will be: their last latents, the
transition's states and their weights do. So a filter keeps these alone, a block of steps is in
memory at a time, and data may come in any parts: the random numbers are those of the steps, and
so are the draws, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..steps import steps_within
from ..transitions import Transition
from .ancestors import PROPOSAL_LAG
from .arguments import check_sweep
from .emissions import Emission
from .particles import Standing, SweepArguments
from .randomness import BLOCK, Randomness
from .sweep import run_sweep

__all__ = ["Filtered", "filter_smc"]


class Filtered(NamedTuple):
    """log p̂(x_t | x_{1:t-1}) of the steps, float64 ``(T, B)``, and where the particles stand.

    See :class:`~pyro_ssl.smc.Sweep`, also for sequences whose particles all died.
    """

    log_likelihood: Tensor
    standing: Standing

    @property
    def failed(self) -> Tensor:
        """Sequences whose particles all died, bool ``(B,)``."""
        return ~self.log_likelihood.isfinite().all(0)


@torch.no_grad()
def filter_smc(
    transition: Transition,
    emission: Emission,
    num_particles: int,
    *,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
    resampling: str = "systematic",
    transition_scale: Tensor | None = None,
    twist: Emission | None = None,
    seed: int | None = None,
    sequences: Tensor | None = None,
    start: Standing | None = None,
    first_step: int = 0,
) -> Filtered:
    """Filter, with the draws of :func:`~pyro_ssl.smc.conditional_smc` without a reference.

    Memory for particles does not grow with T.

    :param Standing start: particles to go on from; by default there is no step before.
    :param int first_step: number of the first step, which keys its random numbers.

    Other parameters, and errors, as for :func:`~pyro_ssl.smc.conditional_smc`.

    Example::

        >>> from pyro_ssl import LSTMTransition
        >>> from pyro_ssl.smc import TableEmission, conditional_smc, filter_smc
        >>> transition, table = LSTMTransition(num_states=3, hidden_size=8), torch.randn(7, 2, 3)
        >>> whole = conditional_smc(transition, TableEmission(table), 10, seed=1)
        >>> first = filter_smc(transition, TableEmission(table[:4]), 10, seed=1)
        >>> how = {"start": first.standing, "first_step": 4}
        >>> rest = filter_smc(transition, TableEmission(table[4:]), 10, seed=1, **how)
        >>> parts = torch.cat([first.log_likelihood, rest.log_likelihood])
        >>> torch.equal(parts, whole.log_likelihood)
        True
    """
    how = {"ancestor_sampling": 0, "proposal_lag": PROPOSAL_LAG, "seed": seed}
    given = (transition, emission, num_particles, None, lengths, inputs, transition_scale)
    check_sweep(*given, resampling=resampling, sequences=sequences, **how)
    if sequences is None:
        sequences = torch.arange(emission.shape[1], device=transition.like.device)
    randomness, first = Randomness(seed, sequences, first_step), 0
    rows = (emission.shape[1] * num_particles,)
    standing = start or Standing(None, transition.initial_state(rows), None)
    found = []
    for now, beta in _blocks(emission, twist):
        n = now.shape[0]
        left = None if lengths is None else (lengths - first).clamp(0, n)
        active = None if left is None else steps_within(left, n).unsqueeze(-1)
        particles = run_sweep(
            SweepArguments(
                transition,
                now if beta is None else now.times(beta),
                num_particles=num_particles,
                reference=None,
                lengths=left,
                active=active,
                inputs=None if inputs is None else inputs[first : first + n],
                resampling=resampling,
                redraw_at=range(0),
                lag=PROPOSAL_LAG,
                scale=transition_scale,
                twist=beta,
                randomness=randomness.later(first),
                start=None if standing.z is None else standing,
                keeps_history=False,
            )
        )
        if active is not None:
            particles.log_likelihood.masked_fill_(~active.squeeze(-1), 0.0)
        found.append(particles.log_likelihood)
        standing, first = particles.standing, first + n
    nothing = torch.zeros((0, emission.shape[1]), dtype=torch.float64, device=sequences.device)
    return Filtered(torch.cat(found) if found else nothing, standing)


def _blocks(
    emission: Emission, twist: Emission | None
) -> Iterator[tuple[Emission, Emission | None]]:
    """The emission and the twist of a block of steps at a time, where they can be cut."""
    while emission.can_be_split and emission.shape[0] > BLOCK:
        now, emission = emission.split(BLOCK)
        beta = None
        if twist is not None:
            beta, twist = twist.split(BLOCK)
        yield now, beta
    if emission.shape[0]:
        yield emission, twist
