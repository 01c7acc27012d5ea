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
from .path_memory import sequence_index
from .trial import TRIAL_PARTICLES, TRIAL_RUNS, TRIAL_SEQUENCES, Sample, Trial
from .twisting import LEARN_SEQUENCES, Twisting, kind_of

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
    new._sums, new._along_for = twisting.beside_past(now, run), run.paths
    return new


@torch.no_grad()
def chosen(twisting: Twisting, run: ModelRun, emission: Emission, num_particles: int) -> Twisting:
    """Do what :meth:`Twisting.chosen` does, by a trial over sequences of all ranks."""
    ranks = current()
    if not ranks.active:
        return twisting.chosen(run, emission, num_particles)
    new = copy.copy(twisting)
    new.surrogate = new.trial = new.trial_without = None
    new._chosen_for = kind_of(run)
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
    sample = Sample(run, emission, index, num_runs) if len(index) else None
    of_run = run.full_shape.numel() * torch.arange(num_runs, device=index.device).unsqueeze(-1)
    places = (sequence_index(run)[index] + of_run).flatten()  # each run has numbers of its own
    without, found = (
        _trial(sample, surrogate, places, P, seed + i)
        for i, surrogate in enumerate((None, candidate))
    )
    if found.renews_more_than(without):
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
    some: Sample | None, surrogate: Surrogate | None, places: Tensor, P: int, seed: int
) -> Trial:
    """Try a surrogate, or none, on the samples of all ranks; ``None``: this one has none.

    The ranks add up the spread and ESS / P over runs, their number, and Var log Ẑ over sequences,
    and theirs.
    """
    numbers = [0.0] * 5
    if some is not None:
        size, log_z = some.sweep(surrogate, P, sequences=places, seed=seed)
        spread, share = (1.0 / size - 1.0 / P).sum(), (size / P).mean(0).sum()
        sums = (spread, share, log_z.numel(), log_z.var(0).sum(), log_z.shape[1])
        numbers = [float(v) for v in sums]
    spread, share, runs, variance, sequences = current().totals("a trial", *numbers)
    values = [spread / runs, (variance / sequences).sqrt(), share / runs]
    return Trial(*(math.inf if v.isnan() else float(v) for v in values))
