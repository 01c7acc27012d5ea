r"""Answering ``ssl_transition`` for the samplers: the body of the loop becomes a table.

:class:`StateGrid` runs the body once with every state, ``z = arange(K)`` of shape
``(K, 1, ..., 1)``, and its observed sites become log p(x_t | z_t = k) for all t and k at once. The
sweep over t then needs none of the user's Python.

Next files to read: ``reader.py``, which reads the body's sites; ``program.py``, who runs the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..errors import EmissionNotLocalError, NonFiniteError, SMCFailed
from ..loop import SSLLoop
from ..transitions import DiscreteTransition, Transition
from .paths import PathSites, lengths_of, scale_of, sites_of
from .quadratic import probe_points
from .reader import EmissionReader, LaterReader
from .site import EmissionSite

__all__ = ["DRAWN", "StateGrid", "states_as_met", "states_of"]

#: marks of a path's site: it has a value, or the sweep is to draw one
GIVEN, DRAWN = "given", "drawn"


class StateGrid(Messenger):
    """Answers ``ssl_transition`` with the grid of all states, and gathers the emission.

    Once the model ran under it, :attr:`answered` says whether there was a loop whose path is still
    to be drawn (not given by ``condition`` or ``replay``); then :attr:`loop` says what it was, and
    :attr:`sites` what its body observed. :attr:`blocks` are all that are to be drawn, the first of
    which this is.

    Over vectors the states are points of R^D at which log p(x_t | z_t) is to be known.

    :param Tensor states: what the body meets in place of ``arange(K)``: ``(S,)`` or ``(S, D)``; or
        a value for each step and sequence, ``(S, T) + batch_shape + (D,)``.
    """

    def __init__(self, states: Tensor | None = None) -> None:
        super().__init__()
        self.states = states
        self._loop: SSLLoop | None = None
        self.sites: list[EmissionSite] = []
        self.num_own = 0  # of the sites: the others are of later loops that read this one's path
        self.num_met = 0  # how many states its body met
        self.blocks: list[SSLLoop] = []
        self._asked_for: str | None = None  # the path whose site is sampled now
        self._path_sites: dict[str, dict[str, Any]] = {}

    @property
    def answered(self) -> bool:
        """Whether the model had a loop whose path is still to be drawn."""
        return self._loop is not None

    @property
    def loop(self) -> SSLLoop:
        """The ``ssl_transition`` statement."""
        assert self._loop is not None, "the model had no loop to answer"
        return self._loop

    @property
    def transition(self) -> Transition:
        """p(z_t | z_{1:t-1})."""
        return self.loop.transition

    def _pyro_ssl_transition(self, msg: Any) -> None:
        msg["value"], msg["done"] = self._run, True

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] != self._asked_for:
            return
        given = msg["is_observed"] or msg["value"] is not None
        # Another dict, for ``replay`` has put the trace's own there.
        msg["infer"] = {**msg["infer"], "_ssl_path": GIVEN if given else DRAWN}
        if not given:
            # The sweep draws z; the site is there for the masks and scales that stand on it.
            transition = msg["fn"].transition
            dtype = transition.like.dtype if transition.event_shape else torch.long
            shape, device = msg["fn"].shape(), transition.like.device
            msg["value"] = torch.zeros(shape, dtype=dtype, device=device)
            msg["done"] = True

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["infer"].get("_ssl_path"):
            self._path_sites[msg["name"]] = dict(msg)

    def _run(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Any]]:
        paths = {}
        for chain in loop.chains:
            self._asked_for = chain.name
            z, self._asked_for = loop.sample(chain, {"_ssl_path": GIVEN}), None
            if self._path_sites[chain.name]["infer"]["_ssl_path"] != DRAWN:
                paths[chain.name] = loop.time_first(chain, z)
        blocks = loop.given(paths).blocks()
        now = blocks[:1] if self._loop is None else []
        self.blocks += blocks
        for block in blocks[len(now) :]:  # not drawn now: the run only tells that there are more
            for chain in block.chains:
                value = self._path_sites[chain.name]["value"]
                paths[chain.name] = loop.time_first(chain, value)
        loop = loop.given(paths)
        if now:
            self._loop = loop
            yield from self._answer(loop)
            return
        # A later loop whose body reads the path that is drawn is a part of its emission.
        reads = LaterReader(self.loop, loop, self.num_met, self.sites) if self._loop else None
        with loop.body(), reads or contextlib.nullcontext():
            yield loop.steps(), loop.show(loop.steps(), [paths[c.name] for c in loop.chains])

    def _answer(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Any]]:
        """Run the body, in the place that the paths' sites left."""
        states = states_as_met(loop, self.states)
        S = self.num_met = len(states)
        # The frame keeps the states' dimension from a plate in the body, which the reader refuses.
        frame = IndepMessenger(f"{loop.name}_states", S, dim=loop.time_dim - 1)
        with loop.body(), frame, EmissionReader(loop, S, self.sites):
            yield loop.steps(), loop.meet(loop.steps(), states)
        self.num_own = len(self.sites)

    @property
    def paths(self) -> PathSites:
        """The sites that the sweep draws."""
        return sites_of(self.loop)

    @property
    def transition_scale(self) -> Tensor | None:
        """User's ``poutine.scale`` on the paths' sites, ``(B,)``; ``None`` where it is 1."""
        return scale_of(self.loop, self._path_sites)

    @property
    def lengths(self) -> Tensor | None:
        """Number of steps of each sequence, ``(B,)``; 0 where the user masked it out."""
        return lengths_of(self.loop, self._path_sites)

    def observed(self) -> Tensor:
        """Return the cells at which something was observed and not masked, bool ``(T, B)``."""
        self._check_observes()
        seen = torch.zeros((), dtype=torch.bool, device=self.loop.device)
        for site in self.sites:
            mask = site.mask
            if not isinstance(mask, Tensor):
                mask = torch.tensor(mask is not False, device=self.loop.device)
            seen = seen | mask.expand(site.shape).any(0)
        return seen.expand(self.sites[0].shape[1:]).reshape(self.loop.num_steps, -1)

    def table(self) -> Tensor:
        """Return Σ over the body's sites of log p(x_t | z_t = k), ``(T, B, K)``.

        :raises EmissionNotLocalError: if nothing was observed, or nothing that depends on z.
        :raises NonFiniteError: on NaN or +inf.
        :raises SMCFailed: where an observation is impossible under every state.
        """
        self._check_observes()
        K = self.sites[0].shape[0]
        if K > 1 and not any(site.varies_with_state() for site in self.sites):
            site = self.sites[0]
            raise EmissionNotLocalError(
                f'Site "{site.name}": its distribution has batch shape '
                f"{tuple(site.fn.batch_shape)}, which does not vary over the K={K} states; "
                f"expected {tuple(site.shape)} up to broadcasting. Index parameters by the whole "
                "of z, as in phi[z]: z is (K, 1, 1) here and (T, B) elsewhere, and time must not "
                "be indexed in it."
            )
        total: Any = 0.0
        for site in self.sites:
            table = site.table()
            if not bool((table < torch.inf).all()):
                t, b, k = (~(table < torch.inf)).nonzero()[0].tolist()
                raise NonFiniteError(
                    f'Site "{site.name}": log p(x_t | z_t={k}) is {table[t, b, k].item()} at step '
                    f"{t} of sequence {b}, expected a finite number or -inf; check the "
                    "parameters of its distribution, and the data, for NaN."
                )
            total = total + table
        impossible = (total == -torch.inf).all(-1)
        if isinstance(self.transition, DiscreteTransition) and bool(impossible.any()):
            t, b = impossible.nonzero()[0].tolist()
            names = ", ".join(f'"{site.name}"' for site in self.sites)
            raise SMCFailed(
                f"Site {names}: the observation at step {t} of sequence {b} has probability 0 "
                f"under each of the {K} states, expected a positive one; smooth the emission "
                "(a Dirichlet prior with concentration above 1), or mask the observation."
            )
        return total

    def _check_observes(self) -> None:
        if not self.sites:
            raise EmissionNotLocalError(
                f'Site "{self.loop.name}": its loop observed nothing; write '
                'pyro.sample("x", Emission(phi[z]), obs=x[t]) in the body, before any break.'
            )

    def path(self, z: Tensor) -> Tensor:
        """Return log p(x_t | z_t) of given paths, ``(T, B)`` in and out."""
        return torch.stack([site.path(z) for site in self.sites]).sum(0)


def states_of(loop: SSLLoop) -> Tensor:
    """Return what stands for z in the table: all K states, or points of R^D, ``(S,) + event``."""
    if not isinstance(loop.transition, DiscreteTransition):
        return probe_points(loop.transition)
    return torch.arange(loop.transition.num_states, device=loop.device)


def states_as_met(loop: SSLLoop, states: Tensor | None = None) -> Tensor:
    """Return states as the body meets them, ``(S, 1, ..., 1) + event`` at the least.

    :param Tensor states: by default :func:`states_of` the loop.
    """
    states, event = states_of(loop) if states is None else states, loop.transition.event_shape
    if states.dim() > 1 + len(event):
        return states
    return states.reshape(states.shape[:1] + (1,) * (1 + len(loop.batch_shape)) + event)
