"""The sweep inside the user's loop: for vectors whose emission is not quadratic in them.

The sweep is a generator that yields what the body is to meet. The handler here answers
``ssl_transition`` with it, so the user's own ``for`` statement drives it: wherever the sweep has to
know log p(x_t | z_t = z), the body runs once, with ``t`` one step and ``z`` the particles,
``(P, 1, B, D)``, and its observed sites are the answer. Read ``handlers.py`` first; next,
``asks.py``, where most often what the body computed is computed again without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, TypeVar

from torch import Tensor

from ..errors import EmissionNotLocalError
from ..loop import SSLLoop
from ..smc import Emission, QuadraticEmission
from ..smc.compiled_expansion import expanded_proposal
from ..smc.derivatives import EmissionAsks, TwistedAsks
from ..smc.emissions import does_not_fit
from ..smc.expanded import ExpandedProposal
from ..smc.proposal import Asks
from ..smc.randomness import Randomness
from .asks import BodyAsks
from .handlers import StateGrid
from .program import ModelRun

__all__ = ["BodyEmission"]

R = TypeVar("R")


class BodyEmission(Emission):
    """log p(x_t | z_t) as the body of the user's loop has it.

    :param ModelRun run: of the model, for B sequences.
    :param Tensor table: what it has of all steps at ``probe_points``, ``(T, B, S)``.

    It stands for one chain; :meth:`beside` makes C of them, C B sequences chain by chain.
    """

    can_be_split = False

    def __init__(self, run: ModelRun, table: Tensor) -> None:
        self.model_run, self.num_chains = run, 1
        self.twist: QuadraticEmission | None = None  # log β_t, that is added: ``smc/twist.py``
        T = run.loop.num_steps
        self.shape = (T, run.num_sequences)
        self._looks = {t: table[t].clone() for t in (0, T // 2, T - 1)}
        self._fillers = {site.name: site.a_possible_value() for site in run.grid.sites}

    def proposal(
        self, transition: Any, num_particles: int, scale: Tensor | None, randomness: Randomness
    ) -> ExpandedProposal:
        """Return the proposal that asks the body; see the base class."""
        return expanded_proposal(
            transition.dim,
            (*self.shape, num_particles),
            transition.like,
            scale,
            randomness,
            asks=self.asks(),
            name=self.model_run.loop.name,
        )

    def asks(self) -> EmissionAsks:
        """Return what one sweep asks."""
        found = BodyAsks(self.model_run, self.num_chains, self._looks, self._fillers)
        return found if self.twist is None else TwistedAsks(found, self.twist.function)

    def run(self, sweep: Asks[R]) -> R:
        """Run the model, its loop driven by the sweep; see the base class.

        :raises EmissionNotLocalError: if the body leaves its loop early.
        """
        loop = _DrivenLoop(sweep)
        try:
            self.model_run.again(loop)
        except BaseException:
            with suppress(Exception):  # Pyro's handlers have left, torch's modes have not
                sweep.close()
            raise
        if not loop.finished:
            raise EmissionNotLocalError(
                f'Site "{self.model_run.loop.name}": the body left its loop before the last step, '
                "expected a body that runs to its end at each step; write no break or return in it."
            )
        return loop.result

    def times(self, twist: Emission) -> BodyEmission:
        """Let the sweep meet the body and β at once; see the base class."""
        shape = (*self.shape, self.model_run.transition.dim)
        if not isinstance(twist, QuadraticEmission) or twist.function.center.shape != shape:
            raise does_not_fit(twist, f"a QuadraticEmission of {shape} (T, B, D)")
        found = copy(self)
        found.twist = twist
        return found

    def beside(self, others: Sequence[Emission]) -> BodyEmission | None:
        """Return as many chains of one body; see the base class."""
        if any(getattr(other, "model_run", None) is not self.model_run for other in others):
            return None
        found = copy(self)
        found.num_chains, found.twist = 1 + len(others), None
        found.shape = (self.shape[0], found.num_chains * self.model_run.num_sequences)
        return found

    def split(self, t: int) -> tuple[Emission, Emission]:
        """Refuse: the body cannot be cut at a step."""
        raise TypeError(
            f'Site "{self.model_run.grid.sites[0].name}": forecasts take vectors whose emission is '
            "linear-Gaussian, found another. Mask the later observations and filter: the "
            "particles of ParticleFilter(model, P).sweep(...) there are draws of the future."
        )

    def log_predictive(self, paths: Tensor, state_probs: Tensor | None) -> Tensor:
        """Return log mean_p p(x_t | z_t^p), as the body has it; see the base class."""
        at_draws = self.model_run.emission_at(paths.movedim(2, 0))  # (T, B, P)
        return at_draws.double().logsumexp(-1) - math.log(paths.shape[2])


class _DrivenLoop(StateGrid):
    """Answers ``ssl_transition`` by a sweep, and keeps what that returns."""

    def __init__(self, sweep: Asks[Any]) -> None:
        super().__init__()
        self.sweep, self.finished = sweep, False
        self.result: Any = None

    def _answer(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Tensor]]:
        self.result = yield from self.sweep
        self.finished = True
