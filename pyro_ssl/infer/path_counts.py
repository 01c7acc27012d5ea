r"""What the paths of all sequences count for: the estimates of the Dirichlet sites.

Counts are kept over all sequences, and a minibatch takes its own out before it adds those of its
new paths (Neal & Hinton 1998).

With ``held_out`` its E-step sees the sites as the *other* sequences' last paths tell them. A text
that its topics were counted in finds them likelier than a new text will, so that paths confirm what
they said before: in few words that is most of what is learned. Left out, as a fold of
cross-validation is, they do not. Paths are drawn by the same exact law given what the E-step sees;
but with the sites integrated out, p(z_b | x, z_{-b}) would also weigh these by how likely they make
x_b.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import Emission
from . import sharded
from .dirichlet import Counts
from .globals import HasEstimates
from .path_memory import PathMemory

__all__ = ["CountsPaths", "check_held_out"]


class CountsPaths(HasEstimates):
    """The part of :class:`StochasticEM` that counts."""

    draw_dirichlet: bool
    _current: dict[str, Tensor]
    _memory: PathMemory
    _path_counts: Counts

    def _estimate(self, elsewhere: Counts, change: Counts, past: Counts) -> None:
        """Closed-form estimates of the Dirichlet sites from counts over all sequences seen."""
        self._path_counts = {name: past.get(name, 0.0) + n for name, n in change.items()}
        now = self._scaled(self._path_counts, elsewhere)
        self._globals.estimate(now)
        with sharded.current().shared():
            self._current = self._globals.draw(now) if self.draw_dirichlet else self.values

    def _scaled(self, counts: Counts, elsewhere: Counts) -> Counts:
        """Counts of paths scaled to all sequences while some were not met yet, and the others."""
        share = sharded.known_share(self._memory)
        return {name: n / share + elsewhere[name] for name, n in counts.items()}

    def _hold_out(
        self, program: Program, run: ModelRun, old: Tensor, known: Tensor
    ) -> tuple[ModelRun, Emission]:
        """Let the E-step see the Dirichlet sites as all other sequences' paths tell them."""
        found = sharded.counts_over_ranks(run, self._count(run, old, of=known))
        elsewhere, own = found or ({}, {})
        others = {name: (n - own[name]).clamp(min=0.0) for name, n in self._path_counts.items()}
        now, draw = self._scaled(others, elsewhere), self.draw_dirichlet
        with sharded.current().shared():
            self._current = self._globals.draw(now) if draw else self._globals.points_of(now)
        with torch.no_grad():
            again = program.run({**run.subsamples, **self._current})
            self._globals.find(again)
            return again, read_emission(again, verify=False)

    def _count(
        self,
        run: ModelRun,
        path: Tensor,
        old: Tensor | None = None,
        known: Any = False,
        of: Any = True,
    ) -> list[Counts]:
        """Counts outside the loop, and those of ``path`` less those of known sequences' ``old``.

        :param of: which sequences count, ``(B,)``.
        """
        once = self._memory.last_of_each(run) & of

        def objective(probe: ModelRun) -> tuple[Tensor, Tensor]:
            change = self._globals.log_path(probe, path)
            if old is not None and bool(known.any()):
                change = change - torch.where(known, self._globals.log_path(probe, old), 0.0)
            return probe.log_elsewhere(observed=True), torch.where(once, change, 0.0).sum()

        return self._globals.statistics(run, objective)


def check_held_out(run: ModelRun, held_out: bool) -> None:
    """Check that something is left where a step's own sequences are left out.

    :raises ValueError: if the step has all sequences.
    """
    if held_out and run.subsample_factor == 1.0:
        raise ValueError(
            f'Site "{run.loop.name}": found held_out=True and all {run.num_sequences} sequences in '
            "one step, expected minibatches, whose Dirichlet sites are those of the other "
            "sequences: write pyro.plate(name, N, subsample=index) around the loop."
        )
