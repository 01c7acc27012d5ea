"""The sweep inside the user's loop: for vectors whose emission is not quadratic in them.

The sweep is a generator that yields what the body is to meet. The handler here answers
``ssl_transition`` with it, so the user's own ``for`` statement drives it: wherever the sweep has to
know log p(x_t | z_t = z), the body runs once, with ``t`` one step and ``z`` the particles,
``(P, 1, B, D)``, and its observed sites are the answer. Read ``handlers.py`` first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor

from ..errors import EmissionNotLocalError
from ..loop import SSLLoop
from ..smc import Emission
from ..smc.expanded import ExpandedProposal
from ..smc.proposal import Asks
from ..smc.randomness import Randomness
from .handlers import StateGrid
from .program import ModelRun
from .reader import EmissionReader
from .site import EmissionSite

__all__ = ["BodyEmission"]

R = TypeVar("R")


class BodyEmission(Emission):
    """log p(x_t | z_t) as the body of the user's loop has it.

    :param ModelRun run: of the model, for B sequences.
    :param int num_chains: C; the emission is that of C B sequences, chain by chain.
    :param Emission twist: log β_t of these, quadratic in z_t, that is added; see ``smc/twist.py``.
    """

    def __init__(self, run: ModelRun, num_chains: int = 1, twist: Emission | None = None) -> None:
        self.model_run, self.num_chains, self.twist = run, num_chains, twist
        self.shape = (run.loop.num_steps, num_chains * run.num_sequences)
        self._steps, self._active = run.loop.steps(), run.loop.active()
        self._fillers = {site.name: site.a_possible_value() for site in run.grid.sites}

    def proposal(
        self, transition: Any, num_particles: int, scale: Tensor | None, randomness: Randomness
    ) -> ExpandedProposal:
        """Return the proposal that asks the body; see the base class."""
        return ExpandedProposal(
            transition.dim,
            (*self.shape, num_particles),
            transition.like,
            scale,
            randomness,
            ask=self._ask,
            name=self.model_run.loop.name,
        )

    def run(self, sweep: Asks[R]) -> R:
        """Run the model, its loop driven by the sweep; see the base class.

        :raises EmissionNotLocalError: if the body leaves its loop early.
        """
        loop = _DrivenLoop(sweep)
        self.model_run.again(loop)
        if not loop.finished:
            raise EmissionNotLocalError(
                f'Site "{self.model_run.loop.name}": the body left its loop before the last step, '
                "expected a body that runs to its end at each step; write no break or return in it."
            )
        return loop.result

    def times(self, twist: Emission) -> BodyEmission:
        """Let the sweep meet the body and β at once; see the base class."""
        return BodyEmission(self.model_run, self.num_chains, twist)

    def beside(self, others: Sequence[Emission]) -> BodyEmission | None:
        """Return as many chains of one body; see the base class."""
        if any(getattr(other, "model_run", None) is not self.model_run for other in others):
            return None
        return BodyEmission(self.model_run, 1 + len(others))

    def split(self, t: int) -> tuple[Emission, Emission]:
        """Refuse: the body cannot be cut at a step."""
        raise TypeError(
            f'Site "{self.model_run.grid.sites[0].name}": forecasts take vectors whose emission is '
            "linear-Gaussian, found another. Mask the later observations and filter: the "
            "particles of ParticleFilter(model, P).sweep(...) there are draws of the future."
        )

    def log_predictive(self, paths: Tensor, state_probs: Tensor | None) -> Tensor:
        """Refuse, as :meth:`split`."""
        raise NotImplementedError

    def _ask(self, t: int, z: Tensor) -> Asks[Tensor]:
        """Let the body meet particles ``(C B, P, D)`` as z_t: log p(x_t | z_t), ``(C B, P)``."""
        loop, C, P = self.model_run.loop, self.num_chains, z.shape[1]
        sites: list[EmissionSite] = []
        one_step = loop._replace(num_steps=1)
        frame = IndepMessenger(f"{loop.name}_particles", C * P, dim=loop.time_dim - 1)
        B = self.model_run.num_sequences
        at = self._steps[t : t + 1]
        reader = EmissionReader(one_step, C * P, sites, at, self._fillers)
        within = poutine.mask(mask=True if self._active is None else self._active[at])
        with torch.set_grad_enabled(z.requires_grad), within, frame, reader:
            by_chain = z.unflatten(0, (C, B)).transpose(1, 2)  # (C, P, B, D)
            met = by_chain.reshape(C * P, 1, *loop.batch_shape, *z.shape[2:])
            yield self._steps[t], loop.show(self._steps[t], [met])
            log_p = torch.stack([site.table() for site in sites]).sum(0)  # (1, B, C P)
            log_p = log_p.view(B, C, P).transpose(0, 1).reshape(C * B, P)
            return log_p if self.twist is None else log_p + self.twist.log_prob(t, z)


class _DrivenLoop(StateGrid):
    """Answers ``ssl_transition`` by a sweep, and keeps what that returns."""

    def __init__(self, sweep: Asks[Any]) -> None:
        super().__init__()
        self.sweep, self.finished = sweep, False
        self.result: Any = None

    def _answer(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Tensor]]:
        self.result = yield from self.sweep
        self.finished = True
