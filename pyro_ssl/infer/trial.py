r"""Trials: unconditional sweeps over a few sequences, by which twists are compared, and with none.

A sweep renews the more of a path, and log Ẑ spreads the less, the smaller

.. math:: \sum_t (1 / \mathrm{ESS}_t - 1 / P),

which is the relative variance of log Ẑ to first order.

Next file to read: ``twisting.py``, which chooses by them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..reading.program import ModelRun
from ..smc import Surrogate
from ..smc.emissions import QuadraticEmission, TableEmission
from ..smc.sweep import conditional_smc
from ..steps import steps_within

__all__ = [
    "TRIAL_PARTICLES",
    "TRIAL_RUNS",
    "TRIAL_SEQUENCES",
    "Sample",
    "Trial",
    "trial_of",
]

#: sequences and runs of each in a trial
TRIAL_SEQUENCES, TRIAL_RUNS = 16, 4
#: particles of a trial, at most: more of them only lower both spreads
TRIAL_PARTICLES = 50
#: a twist has to lower the spread by this factor to be worth what it costs
WORTH = 0.9
#: and by this much: where sweeps renew nearly all there is little to gain
NEGLIGIBLE = 0.3


class Trial(NamedTuple):
    """What a trial found.

    ``spread`` is Σ_t (1 / ESS_t - 1 / P) and ``sd_log_evidence`` the standard deviation of log Ẑ of
    one sequence, each averaged over sequences; ``effective_share`` is ESS over P, averaged over
    steps.
    """

    spread: float
    sd_log_evidence: float
    effective_share: float

    def renews_more_than(self, without: Trial) -> bool:
        """Whether a twist is worth what it costs."""
        return self.spread < WORTH * without.spread - NEGLIGIBLE

    def scores_better_than(self, without: Trial) -> bool:
        """Whether log Ẑ is so much surer that a twist is worth what it costs."""
        return self.sd_log_evidence < WORTH * without.sd_log_evidence


class Sample:
    """Some sequences of a run, each several times.

    :param Tensor index: the n sequences.
    :param int num_runs: sweeps of each, R; copies stand run by run.
    """

    def __init__(
        self,
        run: ModelRun,
        emission: TableEmission | QuadraticEmission,
        index: Tensor,
        num_runs: int,
    ) -> None:
        self.num_runs, index = num_runs, index.repeat(num_runs)
        self.transition, self.emission = run.transition, emission.select(index)
        grid, inputs, T = run.grid, run.inputs, emission.shape[0]  # perhaps the first steps alone
        self.lengths = None if grid.lengths is None else grid.lengths[index].clamp(max=T)
        self.scale = None if grid.transition_scale is None else grid.transition_scale[index]
        self.inputs = None if inputs is None else inputs[:T, index]

    def sweep(
        self, surrogate: Surrogate | None, num_particles: int, **numbers: Any
    ) -> tuple[Tensor, Tensor]:
        """Sweep all at once, unconditionally; return ESS ``(T, R n)`` and log Ẑ ``(R, n)``.

        :param numbers: ``sequences`` and ``seed`` of :func:`~pyro_ssl.smc.conditional_smc`.
        """
        twist = None
        if surrogate is not None:
            twist = surrogate.twist(self.emission, self.lengths, self.scale)
        sweep = conditional_smc(
            self.transition,
            self.emission,
            num_particles,
            lengths=self.lengths,
            inputs=self.inputs,
            transition_scale=self.scale,
            twist=twist,
            **numbers,
        )
        size = sweep.effective_size.nan_to_num(1.0)  # all weights zero: as bad as one particle
        if self.lengths is not None:
            size = torch.where(steps_within(self.lengths, len(size)), size, float(num_particles))
        return size, sweep.log_likelihood.sum(0).view(self.num_runs, -1)


def trial_of(some: Sample, surrogate: Surrogate | None, P: int) -> Trial:
    """Try a surrogate, or none, on a sample."""
    size, log_z = some.sweep(surrogate, P)
    spread = (1.0 / size - 1.0 / P).sum(0).mean()
    sd, share = log_z.var(0).mean().sqrt(), size.mean() / P
    values = torch.stack([spread, sd, share]).tolist()
    return Trial(*(math.inf if math.isnan(value) else value for value in values))
