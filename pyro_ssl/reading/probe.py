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
from ..transitions import DiscreteTransition, Transition
from .handlers import StateGrid, states_as_met, states_of
from .program import ModelRun
from .reader import EmissionReader
from .site import EmissionSite, name_of, same_density

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


def _sum(sites: list[EmissionSite], like: Tensor) -> Tensor:
    """The tables of some sites together, of a shape; 0 of none: a later loop observes all."""
    return sum((site.table() for site in sites), torch.zeros_like(like))


class _Look(NamedTuple):
    """One way to meet the body: at some steps, with some states in place of z."""

    steps: Tensor  # (n,)
    z: Tensor  # (S, 1 or n, 1 or B, ...) as the body meets it
    expected: Tensor  # (n, B, S), what the table has there
    mend: str

    def check(self, loop: SSLLoop, sites: list[EmissionSite]) -> None:
        """Compare what the body observed with the table."""
        again = _sum(sites, self.expected)
        if not same_density(again, self.expected):
            name = name_of(sites) if sites else loop.name
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
            self.num_met = len(look.z)
            with within, frame, EmissionReader(some, len(look.z), sites, look.steps):
                yield look.steps, loop.meet(look.steps, look.z)
            look.check(loop, sites)
        self.finished = True


def check_emission_is_local(run: ModelRun, table: Tensor) -> None:
    """Check that log p(x_t | z_t) depends on nothing but z_t and what stands at t in the data.

    :param Tensor table: what the run read, ``(T, B, S)``.
    :raises EmissionNotLocalError: if it does; the message has the line to write instead.
    """
    own = table
    if run.grid.num_own < len(run.grid.sites):
        _check_later_loops(run, table)
        own = _sum(run.grid.sites[: run.grid.num_own], table)
    try:
        _check_body(run, own, _looks(run, own))
    except EmissionNotLocalError:
        if not _reads_given_paths(run, own):
            raise
        # A path that was left by an earlier loop is of all steps, in order.
        _check_body(run, own, _looks_at_all_steps(run, own))


def _check_body(run: ModelRun, table: Tensor, looks: Iterator[_Look]) -> None:
    """Check the body of the loop itself."""
    probe, loop = _Probe(looks), run.loop
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


def _check_later_loops(run: ModelRun, table: Tensor) -> None:
    """Check what later loops observe given this one's path: along random paths, at all steps."""
    z, met = _random_paths(run, run.loop.steps())
    grid = StateGrid(met)
    run.again(grid)
    expected = table.gather(-1, z.movedim(0, -1))
    _Look(run.loop.steps(), met, expected, _COUPLED.format("other steps or sequences of z")).check(
        run.loop, grid.sites
    )


def _reads_given_paths(run: ModelRun, own: Tensor) -> bool:
    """Whether the body reads a path of another loop that has a value: what it observes changes."""
    inside = {chain.name for chain in run.loop.chains}
    others = {
        name: site["value"]
        for name, site in run.sites.items()
        if site["infer"].get("_ssl_path") and name not in inside
    }
    given = run.program.given_paths
    if others.keys() - given.keys():
        return True  # conditioned on, so it cannot be changed
    changed = {name: _another(run.sites[name]["fn"].transition, z) for name, z in others.items()}
    if not changed:
        return False
    grid = StateGrid()
    run._replace(program=run.program.given(given | changed)).again(grid)
    return not torch.equal(_sum(grid.sites[: grid.num_own], own), own)


def _another(transition: Transition, path: Tensor) -> Tensor:
    """A path that differs at every step, where there are two states."""
    if isinstance(transition, DiscreteTransition):
        return (path + 1) % transition.num_states
    return path + 1.0


def _looks(run: ModelRun, table: Tensor) -> Iterator[_Look]:
    """The ways to meet the body that the module names, with what the table has for each.

    One at a time: each holds as much as the table.
    """
    T, grid, steps = len(table), states_as_met(run.loop), run.loop.steps()
    even = (steps - steps % 2).flip(0)
    odd = (steps - steps % 2 + 1).clamp(max=max(T - 1 - T % 2, 0))
    for some in (even, odd):
        yield _Look(some, grid, table[some], _STEPS)
    yield from _other_states(run, table)
    few = torch.cat([steps[:FEW], steps[FEW:][-FEW:]])
    yield _along_paths(run, table, few)
    if run.grid.num_own < len(run.grid.sites):
        yield _Look(steps, grid, table, _STEPS)  # later loops are to meet all steps


def _looks_at_all_steps(run: ModelRun, table: Tensor) -> Iterator[_Look]:
    """Those of the ways that have all steps in order."""
    yield from _other_states(run, table)
    yield _along_paths(run, table, run.loop.steps())
    yield _Look(run.loop.steps(), states_as_met(run.loop), table, _STEPS)


def _other_states(run: ModelRun, table: Tensor) -> Iterator[_Look]:
    S, grid = table.shape[-1], states_as_met(run.loop)
    every = torch.arange(S, device=table.device)
    if S > 1:
        for order in (every.flip(0), torch.zeros_like(every)):
            beside = _COUPLED.format("the states that stand beside k")
            yield _Look(run.loop.steps(), grid[order], table[..., order], beside)


def _along_paths(run: ModelRun, table: Tensor, some: Tensor) -> _Look:
    z, met = _random_paths(run, some)
    expected = table[some].gather(-1, z.movedim(0, -1))
    return _Look(some, met, expected, _COUPLED.format("other steps or sequences of z"))


def _random_paths(run: ModelRun, some: Tensor) -> tuple[Tensor, Tensor]:
    """Places of latents in the table, ``(N, n, B)``, of random paths; and as the body meets them.

    Nothing is drawn from the generators that the model and the samplers draw from.
    """
    points, B, n = states_of(run.loop), run.num_sequences, len(some)
    own = torch.Generator(device="cpu").manual_seed(0)
    shape = (max(1, ENOUGH // max(1, n * B)), n, B)
    z = torch.randint(len(points), shape, generator=own, device="cpu").to(points.device)
    return z, points[z].reshape(*shape[:2], *run.loop.batch_shape, *points.shape[1:])
