"""The sweep inside the user's loop: for vectors whose emission is not quadratic in them.

:class:`ParticleGrid` answers ``ssl_transition`` by running the sweep itself. Wherever the sweep has
to know log p(x_t | z_t = z), the body runs once more, with ``t`` one step and ``z`` the particles,
``(P, 1, B, D)``; its observed sites are the answer. Read ``emission.py`` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor

from ..primitive import SSLLoop
from ..smc.expanded import gaussian_steps
from ..smc.sweep import Sweep
from .handlers import StateGrid, _EmissionReader

__all__ = ["ParticleGrid"]


class ParticleGrid(StateGrid):
    """Runs a sweep over the particles of C chains in the user's body; then :attr:`sweep` is there.

    :param int num_particles: P.
    :param Tensor reference: ``(T, C B, D)``, or ``None``.
    :param int num_chains: C.
    :param settings: as for :func:`~pyro_ssl.smc.gaussian_smc`, for C B sequences.
    """

    def __init__(
        self,
        num_particles: int,
        reference: Tensor | None,
        num_chains: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.num_particles, self.reference = num_particles, reference
        self.num_chains, self.settings = num_chains, settings
        self.sweep: Sweep | None = None

    def _answer(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Tensor]]:
        C, P, shape = self.num_chains, self.num_particles, loop.batch_shape
        B = shape.numel()
        event, steps = loop.transition.event_shape, loop.steps()
        like = next(iter((*loop.transition.parameters(), *loop.transition.buffers())))
        gaussian = gaussian_steps(
            loop.transition,  # type: ignore[arg-type]
            (loop.num_steps, C * B, P),
            self.reference,
            name=loop.name,
            like=like,
            **self.settings,
        )
        one_step = loop._replace(num_steps=1)
        answer: Tensor | None = None
        while True:
            try:
                t, z = next(gaussian) if answer is None else gaussian.send(answer)
            except StopIteration as stop:
                self.sweep = stop.value
                return
            self.sites.clear()
            frame = IndepMessenger(f"{loop.name}_particles", C * P, dim=loop.time_dim - 1)
            with torch.set_grad_enabled(z.requires_grad):
                # (C B, P, D) to (C P, 1) + batch_shape + (D,)
                body = z.unflatten(0, (C, B)).transpose(1, 2).reshape(C * P, 1, *shape, *event)
                with frame, _EmissionReader(one_step, C * P, self.sites):
                    yield steps[t], body
                log_p = torch.stack([site.table() for site in self.sites]).sum(0)  # (1, B, C P)
                answer = log_p.view(B, C, P).transpose(0, 1).reshape(C * B, P)
