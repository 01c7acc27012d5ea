"""log p(x_t | z_t) within a sweep: asked of the body of the user's loop, or of what it computed.

At the first step the body is recorded as it answers. The recording then answers at all steps, if at
a few of them it gives what the body gave for all steps at once, before the sweep. Wherever it
cannot be replayed the body is asked, as if nothing had been recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor

from ..gradients import gradients
from ..smc.derivatives import EmissionAsks, Expansion, derivatives
from ..smc.proposal import Asks
from .program import ModelRun
from .quadratic import probe_points
from .reader import EmissionReader
from .recording import Recording
from .replay import Replay
from .site import EmissionSite, same_density

__all__ = ["BodyAsks"]

#: from how many steps on a recording is worth its time
WORTH = 8


class BodyAsks(EmissionAsks):
    """What one sweep asks of the body.

    :param ModelRun run: of the model, for B sequences.
    :param int num_chains: C; particles are of C B sequences, chain by chain.
    :param looks: what it has of some steps at ``probe_points``, ``(B, S)`` each.
    :param fillers: by site, what stands for masked values.
    """

    def __init__(
        self,
        run: ModelRun,
        num_chains: int,
        looks: Mapping[int, Tensor],
        fillers: Mapping[str, Tensor | None],
    ) -> None:
        self.model_run, self.num_chains = run, num_chains
        self.looks, self.fillers = looks, fillers
        self.steps, self.active = run.loop.steps().split(1), run.loop.active()
        #: why the body is asked at every step; read by tests
        self.refused: str | None = None if len(self.steps) >= WORTH else "few steps"
        self.replay: Replay | None = None

    def value(self, t: int, z: Tensor) -> Asks[Tensor]:
        """Return log p(x_t | z_t = z); see the base class."""
        if self.replay is not None:
            found = self.replay.value(t, self.steps[t], z)
            if found is not None:
                return found
        return (yield from self._meet(self.steps[t], self.steps[t][0], z))

    def expansion(self, t: int, z: Tensor) -> Asks[Expansion]:
        """Return its expansion about z; see the base class."""
        if self.replay is not None:
            found = self.replay.expansion(t, self.steps[t], z)
            if found is not None:
                return found
        with gradients():
            point = z.detach().clone().requires_grad_()
        step = self.steps[t]
        if self.replay is None and self.refused is None:
            return (yield from self._record(t, point))
        values = yield from self._meet(step, step[0], point)
        with gradients():
            return derivatives(values, point)

    def _record(self, t: int, point: Tensor) -> Asks[Expansion]:
        """Have the body recorded, and return the expansion."""
        step = self.steps[t]
        recording = Recording(step, point)
        with recording:
            values = yield from self._meet(step, step, point)
            forward = recording.refused
            with gradients():
                found = derivatives(values, point, at_once=True)
                if forward is None and recording.refused is not None:  # by the vectorising alone
                    recording.refused = None
                    found = derivatives(values, point)
        self._take(recording, found, t, point.detach())
        return found

    def _meet(self, step: Tensor, met: Tensor, z: Tensor) -> Asks[Tensor]:
        """Let the body meet particles ``(C B, P, D)`` as z_t: log p(x_t | z_t), ``(C B, P)``.

        :param Tensor step: t, ``(1,)``; ``met`` is what the body meets of it.
        """
        loop, C, P = self.model_run.loop, self.num_chains, z.shape[1]
        sites: list[EmissionSite] = []
        one_step = loop._replace(num_steps=1)
        frame = IndepMessenger(f"{loop.name}_particles", C * P, dim=loop.time_dim - 1)
        B = self.model_run.num_sequences
        reader = EmissionReader(one_step, C * P, sites, step, self.fillers)
        within = poutine.mask(mask=True if self.active is None else self.active[step])
        with torch.set_grad_enabled(z.requires_grad), within, frame, reader:
            by_chain = z.transpose(0, 1) if C == 1 else z.unflatten(0, (C, B)).transpose(1, 2)
            shape = (C * P, 1, *loop.batch_shape, *z.shape[2:])
            points = by_chain.contiguous().view(shape)  # so that data broadcast in long rows
            yield met, loop.show(step, [points])
            log_p = reduce(torch.add, [site.table() for site in sites])  # (1, B, C P)
            if C == 1:
                return log_p.squeeze(0)
            return log_p.view(B, C, P).transpose(0, 1).reshape(C * B, P)

    def _take(self, recording: Recording, found: Expansion, t: int, z: Tensor) -> None:
        """Let a recording answer from here on, if it is right."""
        self.refused = recording.refused
        if not recording.depends(found.value):
            self.refused = self.refused or "its value was not seen to depend on z"
        for part in (found.linear, found.precision):
            if not recording.depends(part) and bool(part.nan_to_num(0.0).any()):
                self.refused = self.refused or "its derivatives were not seen"
        if self.refused is not None:
            return
        try:
            replay = Replay(recording, found)
            again = replay.expansion(t, self.steps[t], z)
            right = again is not None and all(map(same_density, again, found))
            right = right and all(self._agrees(replay, s, z) for s in self.looks)
        except Exception as error:  # whatever it is, the body is still there to be asked
            self.refused = f"{type(error).__name__} in a replay: {error}"
            return
        if right:
            self.replay = replay
        else:
            self.refused = "a replay differs from the body"

    def _agrees(self, replay: Replay, t: int, like: Tensor) -> bool:
        """Whether a replay gives at step t what the body did, at some of the points it met."""
        (rows, P), points = like.shape[:2], probe_points(self.model_run.transition)
        table = self.looks[t].repeat(self.num_chains, 1)  # (C B, S)
        device = table.device
        index = torch.arange(rows, device=device).unsqueeze(-1) + torch.arange(P, device=device)
        index = (index + t) % len(points)
        found = replay.value(t, self.steps[t], points[index])
        return found is not None and same_density(found, table.gather(-1, index))
