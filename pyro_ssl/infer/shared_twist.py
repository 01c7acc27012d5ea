"""The twist of a distributed run: the same on all ranks, and whatever the number of ranks.

Read ``twisting.py`` first. Which sequences a surrogate learns from, and which a trial is over, is
drawn by their places in the plates; what was learned, and what the trial found, is added up.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from ..distributed import current
from ..reading.program import ModelRun
from ..smc import Emission, MarkovSurrogate, Surrogate
from ..smc.emissions import QuadraticEmission, TableEmission
from ..smc.randomness import LATENTS, Randomness
from ..smc.surrogate_product import along_states, from_sums
from ..smc.sweep import conditional_smc
from ..steps import steps_within
from .path_memory import sequence_index
from .twisting import (
    DECAY,
    LEARN_SEQUENCES,
    NEGLIGIBLE,
    TRIAL_PARTICLES,
    TRIAL_RUNS,
    TRIAL_SEQUENCES,
    WORTH,
    Trial,
    Twisting,
    _kind_of,
)

__all__ = ["chosen", "learned"]


def learned(
    twisting: Twisting, run: ModelRun, path: Tensor, num_sequences: int, step: int
) -> Twisting:
    """Do what :meth:`Twisting.learned` does, of the sequences of all ranks.

    :param int num_sequences: of all ranks' runs.
    :param int step: which step this is: it draws other sequences than the last.
    """
    if not current().active or not run.is_discrete or twisting.how != "markov":
        return twisting.learned(run, path)
    if twisting._chosen_for is not None and twisting.trial is None:
        return twisting
    new = copy.copy(twisting)
    share = max(LEARN_SEQUENCES / num_sequences, 0.125)
    index = _drawn(run, share, step)
    # None may be this rank's: then its sums are 0, of as many states.
    weight, index = (1.0, index) if len(index) else (0.0, index.new_zeros(1))
    lengths = None if run.grid.lengths is None else run.grid.lengths[index]
    inputs = None if run.inputs is None else run.inputs[:, index]
    now = [
        (weight * total, weight * count)
        for total, count in along_states(run.transition, path[:, index], lengths, inputs)
    ]
    if twisting._sums is not None and twisting._along_for == run.paths:
        pairs = zip(twisting._sums, now, strict=True)
        now = [(DECAY * a[0] + b[0], DECAY * a[1] + b[1]) for a, b in pairs]
    new._sums, new._along_for = now, run.paths
    return new


@torch.no_grad()
def chosen(twisting: Twisting, run: ModelRun, emission: Emission, num_particles: int) -> Twisting:
    """Do what :meth:`Twisting.chosen` does, by a trial over sequences of all ranks."""
    ranks = current()
    if not ranks.active:
        return twisting.chosen(run, emission, num_particles)
    new = copy.copy(twisting)
    new.surrogate = new.trial = new.trial_without = None
    new._chosen_for = _kind_of(run)
    if num_particles < 2 or not run.loop.num_steps or new.how is None:
        return new
    if not isinstance(emission, TableEmission | QuadraticEmission):
        return new
    candidate = _candidate(new, run)
    (num_sequences,) = ranks.totals("the trial's data", run.num_sequences)
    seed = ranks.seed() or 0
    index = _drawn(run, TRIAL_SEQUENCES / float(num_sequences), seed)
    (some,) = ranks.totals("the trial's sequences", len(index))
    if not some:  # by chance
        return copy.copy(twisting)
    num_runs, P = max(TRIAL_RUNS, TRIAL_SEQUENCES // int(some)), min(num_particles, TRIAL_PARTICLES)
    without, found = (
        _trial(run, emission, surrogate, index, num_runs, P, seed + i)
        for i, surrogate in enumerate((None, candidate))
    )
    if found.spread < WORTH * without.spread - NEGLIGIBLE:
        new.surrogate, new.trial, new.trial_without = candidate, found, without
    else:
        new.trial = new.trial_without = without
    return new


def _drawn(run: ModelRun, share: float, seed: int) -> Tensor:
    """A share of a run's sequences at random, which ones of them by their places alone."""
    u = Randomness(seed, sequence_index(run)).uniform(LATENTS, 1, 1, torch.float64)
    return (u.flatten() < share).nonzero().flatten()


def _candidate(twisting: Twisting, run: ModelRun) -> Surrogate:
    ranks = current()
    if twisting.how == "markov" and twisting._sums is not None and twisting._along_for == run.paths:
        sums = [(total.clone(), count.clone()) for total, count in twisting._sums]
        ranks.sum_("what the twist learned", [part for pair in sums for part in pair])
        return from_sums(sums)
    with ranks.shared():
        candidate = twisting.candidate(run)
    if not isinstance(candidate, MarkovSurrogate) or run.inputs is not None:
        candidate = ranks.first("the twist", candidate)
    assert candidate is not None
    return candidate


def _trial(
    run: ModelRun,
    emission: TableEmission | QuadraticEmission,
    surrogate: Surrogate | None,
    index: Tensor,
    num_runs: int,
    num_particles: int,
    seed: int,
) -> Trial:
    """One unconditional sweep of each run of each of these sequences, over all ranks."""
    numbers = [0.0] * 5
    if len(index):
        numbers = _sums_of(run, emission, surrogate, index, num_runs, num_particles, seed)
    spread, share, runs, variance, sequences = current().totals("a trial", *numbers)
    values = [spread / runs, (variance / sequences).sqrt(), share / runs]
    return Trial(*(math.inf if v.isnan() else float(v) for v in values))


def _sums_of(
    run: ModelRun,
    emission: TableEmission | QuadraticEmission,
    surrogate: Surrogate | None,
    index: Tensor,
    num_runs: int,
    num_particles: int,
    seed: int,
) -> list[float]:
    """Sums of the spread and of ESS / P over runs, their number, and the same of Var log Ẑ."""
    n, N, T = len(index), run.full_shape.numel(), emission.shape[0]
    places = sequence_index(run)[index].repeat(num_runs)
    places = places + N * torch.arange(num_runs, device=index.device).repeat_interleave(n)
    index = index.repeat(num_runs)
    grid, inputs, some = run.grid, run.inputs, emission.select(index)
    lengths = None if grid.lengths is None else grid.lengths[index].clamp(max=T)
    scale = None if grid.transition_scale is None else grid.transition_scale[index]
    sweep = conditional_smc(
        run.transition,
        some,
        num_particles,
        lengths=lengths,
        inputs=None if inputs is None else inputs[:T, index],
        transition_scale=scale,
        twist=None if surrogate is None else surrogate.twist(some, lengths, scale),
        sequences=places,
        seed=seed,
    )
    size = sweep.effective_size.nan_to_num(1.0).double()  # weights of zero are as one particle
    if lengths is not None:
        size = torch.where(steps_within(lengths, len(size)), size, float(num_particles))
    spread = (1.0 / size - 1.0 / num_particles).sum()
    share = (size / num_particles).mean(0).sum()
    variance = sweep.log_likelihood.sum(0).view(num_runs, n).var(0).sum()
    return [float(v) for v in (spread, share, n * num_runs, variance, n)]
