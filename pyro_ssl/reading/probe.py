"""Is the body of the loop what it reads as: x_t given z_t, one step at a time?

The body runs once, vectorised, so it may do what no step could: look at other steps, sequences or
states, or carry a Python value from one step to the next. Then the table would be of another model
than Pyro's own trace. The probe meets the same body differently, in one more run of the model:
steps in reverse order, states in another order, a path of its own on a few steps, and as at first
once more. In all of these log p(x_t | z_t = k) of a cell must stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor

from ..errors import EmissionNotLocalError
from ..primitive import SSLLoop
from .handlers import EmissionReader, StateGrid
from .program import ModelRun
from .quadratic import probe_points
from .site import EmissionSite

__all__ = ["check_emission_is_local"]

#: steps of the path that the body meets, at either end of the data
FEW = 2


class _Look(NamedTuple):
    """One way to meet the body: at some steps, with some states in place of z."""

    steps: Tensor  # (n,)
    z: Tensor  # (S, 1 or n, 1 or B, ...) as the body meets it
    expected: Tensor  # (n, B, S), what the table has there
    mend: str


class _Probe(StateGrid):
    """Answers ``ssl_transition`` by several looks, one after the other."""

    def __init__(self, looks: list[_Look]) -> None:
        super().__init__()
        self.looks = looks
        self.found: list[list[EmissionSite]] = []

    def _answer(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Tensor]]:
        for look in self.looks:
            self.found.append([])
            some, active = loop._replace(num_steps=len(look.steps)), loop.active()
            within = poutine.mask(mask=True if active is None else active[look.steps])
            frame = IndepMessenger(f"{loop.name}_states", len(look.z), dim=loop.time_dim - 1)
            with within, frame, EmissionReader(some, len(look.z), self.found[-1], look.steps):
                yield look.steps, look.z


def check_emission_is_local(run: ModelRun, table: Tensor) -> None:
    """Check that log p(x_t | z_t) depends on nothing but z_t and what stands at t in the data.

    :param Tensor table: what the run read, ``(T, B, S)``.
    :raises EmissionNotLocalError: if it does; the message has the line to write instead.
    """
    probe = _Probe(_looks(run, table))
    run.again(probe)
    loop = run.loop
    for look, sites in zip(probe.looks, probe.found, strict=False):
        again = torch.stack([site.table() for site in sites]).sum(0)
        rtol = 1e-3 if table.dtype == torch.float32 else 1e-6
        if not torch.allclose(again, look.expected, rtol=rtol, atol=rtol, equal_nan=True):
            raise EmissionNotLocalError(
                f'Site "{sites[0].name}": log p(x_t | z_t), in the loop of "{loop.name}", '
                f"{look.mend}"
            )


def _looks(run: ModelRun, table: Tensor) -> list[_Look]:
    """The ways to meet the body that the module names, with what the table has for each."""
    (_, B, S), loop = table.shape, run.loop
    ones = (1,) * (1 + len(loop.batch_shape))
    points = torch.arange(S, device=table.device)
    if not run.is_discrete:
        points = probe_points(run.transition)
    grid = points.reshape(S, *ones, *points.shape[1:])
    steps, every = loop.steps(), torch.arange(S, device=table.device)
    coupled = (
        "depends on {0}, expected a function of z_t alone: use z elementwise or as an index, as "
        "in phi[z], without roll, cumsum or a mean over it."
    )
    backwards = (
        "changes when the steps are met in another order: the body carries a value from step to "
        "step, draws random numbers, or a number of each step lands on the sequences. Lay lagged "
        "data out before the loop, x_before = torch.cat([torch.zeros_like(x[:1]), x[:-1]]), and "
        "write x_before[t]; of numbers w of each step write w[t].unsqueeze(-1)."
    )
    looks = [
        _Look(steps.flip(0), grid, table.flip(0), backwards),
        _Look(steps, grid, table, backwards),
    ]
    if S > 1:
        for order in (every.flip(0), torch.zeros_like(every)):
            beside = coupled.format("the states that stand beside k")
            looks.append(_Look(steps, grid[order], table[..., order], beside))
    few = torch.cat([steps[:FEW], steps[FEW:][-FEW:]])
    beside = coupled.format("other steps or sequences of z")
    cells = torch.arange(len(few) * B, device=table.device).reshape(len(few), B)
    # Neighbours differ in the first path, few steps are not the same backwards in the second, and
    # the third, upper bits of multiples of the golden ratio, has no order. None is drawn.
    neighbours, triangles = cells // B + cells % B, cells * (cells + 1) // 2
    for path in (neighbours % S, triangles % S, cells * 40503 % 65536 * S // 65536):
        met = points[path].reshape(1, len(few), *loop.batch_shape, *points.shape[1:])
        looks.append(_Look(few, met, table[few].gather(-1, path.unsqueeze(-1)), beside))
    return looks
