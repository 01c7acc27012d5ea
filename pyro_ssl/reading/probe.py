"""Is the body of the loop what it reads as: x_t given z_t, one step at a time?

The body runs once, vectorised, so it may do what no step could: look at other steps, sequences or
states, or carry a Python value from one step to the next. Then the table would be of another model
than Pyro's own trace, or of another than the code reads as. The probe meets the same body
differently, in one more run of the model: half of the steps, each twice, backwards; the other half;
states in another order; and a few steps with random paths. In all of these log p(x_t | z_t = k) of
a cell must stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor

from ..errors import EmissionNotLocalError, ModelError
from ..loop import SSLLoop
from .handlers import StateGrid
from .program import ModelRun
from .quadratic import probe_points
from .reader import EmissionReader
from .site import EmissionSite

__all__ = ["check_emission_is_local"]

#: steps of the paths that the body meets, at either end of the data
FEW = 2

#: latents that these paths have together, at the least: of few cells there are several paths
ENOUGH = 64

_COUPLED = (
    "depends on {0}, expected a function of z_t alone: use z elementwise or as an index, as in "
    "phi[z], without roll, cumsum or a mean over it."
)
_STEPS = (
    "changes with the steps that are met before or beside it: the body carries a value from step "
    "to step, draws random numbers, centres or normalises over steps, or a number of each step "
    "lands on the sequences. Lay such data out before the loop, as in "
    "x_before = torch.cat([torch.zeros_like(x[:1]), x[:-1]]), and write x_before[t]; of numbers w "
    "of each step write w[t].unsqueeze(-1)."
)


class _Look(NamedTuple):
    """One way to meet the body: at some steps, with some states in place of z."""

    steps: Tensor  # (n,)
    z: Tensor  # (S, 1 or n, 1 or B, ...) as the body meets it
    expected: Tensor  # (n, B, S), what the table has there
    mend: str

    def check(self, loop: SSLLoop, sites: list[EmissionSite]) -> None:
        """Compare what the body observed with the table."""
        again: Tensor | float = sum(site.table() for site in sites)
        rtol = 1e-3 if self.expected.dtype == torch.float32 else 1e-6
        if not isinstance(again, Tensor) or not torch.allclose(
            again.expand_as(self.expected), self.expected, rtol=rtol, atol=rtol, equal_nan=True
        ):
            name = sites[0].name if sites else loop.name
            raise EmissionNotLocalError(
                f'Site "{name}": log p(x_t | z_t), in the loop of "{loop.name}", {self.mend}'
            )


class _Probe(StateGrid):
    """Answers ``ssl_transition`` by several looks, one after the other, each checked at once."""

    def __init__(self, looks: Iterator[_Look]) -> None:
        super().__init__()
        self.looks, self.finished = looks, False

    def _answer(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Any]]:
        active = loop.active()
        for look in self.looks:
            sites: list[EmissionSite] = []
            some = loop._replace(num_steps=len(look.steps))
            within = poutine.mask(mask=True if active is None else active[look.steps])
            frame = IndepMessenger(f"{loop.name}_states", len(look.z), dim=loop.time_dim - 1)
            with within, frame, EmissionReader(some, len(look.z), sites, look.steps):
                yield look.steps, loop.meet(look.steps, look.z)
            look.check(loop, sites)
        self.finished = True


def check_emission_is_local(run: ModelRun, table: Tensor) -> None:
    """Check that log p(x_t | z_t) depends on nothing but z_t and what stands at t in the data.

    :param Tensor table: what the run read, ``(T, B, S)``.
    :raises EmissionNotLocalError: if it does; the message has the line to write instead.
    """
    probe, loop = _Probe(_looks(run, table)), run.loop
    try:
        run.again(probe)
    except ModelError as error:
        raise EmissionNotLocalError(
            f'Site "{loop.name}": the body of its loop failed where t was other steps than all in '
            f"order ({error}), expected a body that reads as for one step: index by t, and take "
            "sizes from x[t] and z, not from the whole data."
        ) from error
    if not probe.finished:
        raise EmissionNotLocalError(
            f'Site "{loop.name}": the body left its loop before the last step, expected a body '
            "that runs to its end at each step; write no break or return in it, and leave steps "
            "out by lengths= or poutine.mask."
        )


def _looks(run: ModelRun, table: Tensor) -> Iterator[_Look]:
    """The ways to meet the body that the module names, with what the table has for each.

    One at a time: each holds as much as the table.
    """
    (T, B, S), loop = table.shape, run.loop
    ones = (1,) * (1 + len(loop.batch_shape))
    points = torch.arange(S, device=table.device)
    if not run.is_discrete:
        points = probe_points(run.transition)
    grid = points.reshape(S, *ones, *points.shape[1:])
    steps, every = loop.steps(), torch.arange(S, device=table.device)
    even = (steps - steps % 2).flip(0)
    odd = (steps - steps % 2 + 1).clamp(max=max(T - 1 - T % 2, 0))
    for some in (even, odd):
        yield _Look(some, grid, table[some], _STEPS)
    if S > 1:
        for order in (every.flip(0), torch.zeros_like(every)):
            beside = _COUPLED.format("the states that stand beside k")
            yield _Look(steps, grid[order], table[..., order], beside)
    few = torch.cat([steps[:FEW], steps[FEW:][-FEW:]])
    # Nothing is drawn from the generators that the model and the samplers draw from.
    own = torch.Generator(device="cpu").manual_seed(0)
    shape = (max(1, ENOUGH // max(1, len(few) * B)), len(few), B)
    paths = torch.randint(S, shape, generator=own, device="cpu").to(table.device)
    met = points[paths].reshape(*shape[:2], *loop.batch_shape, *points.shape[1:])
    expected = table[few].gather(-1, paths.movedim(0, -1))
    yield _Look(few, met, expected, _COUPLED.format("other steps or sequences of z"))
