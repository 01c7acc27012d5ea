"""Stochastic EM over paths that are not drawn together: a step of each block, in turn.

Read ``scan.py`` first. A block's step draws its paths given the others' and then raises the
log-joint of all, so that each is a step of stochastic EM for a model in which the other paths are
given.
"""

from __future__ import annotations

import copy
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor

from ..errors import SeveralBlocksError
from ..loop import SSLLoop
from ..reading.program import Program
from .path_memory import PathMemory
from .scan import prior_paths
from .sharded import check_alone, together
from .undo import undone_on_error

__all__ = ["Parts", "ScansPaths"]


class Parts:
    """The state of each block, and which paths it has, by the block's name."""

    def __init__(self, parts: dict[str, Any]) -> None:
        vars(self).update(parts)  # as attributes: a call that fails puts these back


class ScansPaths:
    """What of :class:`StochasticEM` is for one block of paths or for several."""

    _model: Any
    optim: Any
    change_rate: float
    _current: dict[str, Tensor]
    _memory: PathMemory
    _parts: Parts | None = None
    _start: dict[str, Tensor] = {}

    def _step(self, program: Program) -> float:
        """One E-step and one M-step of a model with one block."""
        raise NotImplementedError

    @property
    def paths(self) -> Any:
        """The last path of every sequence, int64, full batch shape ``+ (T,)``.

        By site where the loop has several chains, or the model several loops.
        """
        if self._parts is None:
            return self._memory.paths
        return {name: z for part in vars(self._parts).values() for name, z in part._by_site.items()}

    @property
    def _by_site(self) -> dict[str, Tensor]:
        return self._memory.by_site if self._memory else self._start

    @together("StochasticEM.step")
    @poutine.block()
    def step(self, *args: Any, **kwargs: Any) -> float:
        r"""One E-step and one M-step; arguments go to the model.

        Where a model has paths that are not drawn together, one of both for each block of them, in
        turn, each given the others.

        :returns: -log p(z, x) of the drawn paths given parameters and Dirichlet sites before the
            (last) M-step, scaled to the full data where a plate is subsampled. Priors are left out.
        """
        program = Program(self._model, args, kwargs)
        try:
            loss, self._parts = self._step(program), None
            return loss
        except SeveralBlocksError as error:
            blocks = error.blocks
        _check_whole(blocks)
        check_alone("StochasticEM of paths that are not drawn together")
        parameters = [p for _, p in pyro.get_param_store().named_parameters()]
        with undone_on_error(parameters, self.optim):
            return self._step_of_each(program, blocks)

    def _step_of_each(self, program: Program, blocks: tuple[SSLLoop, ...]) -> float:
        parts = self._parts_of(blocks)
        loss = 0.0
        for name, part in parts.items():
            others = [other._by_site for key, other in parts.items() if key != name]
            part._current = self._current
            loss = part._step(program.given({n: z for some in others for n, z in some.items()}))
            self._current = part._current
        self._parts = Parts(parts)
        rates = [part.change_rate for part in parts.values()]
        self.change_rate = sum(rates) / len(rates)
        return loss

    def _parts_of(self, blocks: tuple[SSLLoop, ...]) -> dict[str, Any]:
        """Copies of the parts of a model's blocks; new ones where the paths are others."""
        shapes = {
            chain.name: (*block.batch_shape, block.num_steps, *chain.transition.event_shape)
            for block in blocks
            for chain in block.chains
        }
        if self._parts is not None:
            parts = {name: copy.copy(part) for name, part in vars(self._parts).items()}
            known = {n: tuple(z.shape) for part in parts.values() for n, z in part._by_site.items()}
            if known == shapes and parts.keys() == {block.name for block in blocks}:
                for part in parts.values():
                    part._memory = part._memory.copy()
                return parts
        parts, start = {}, prior_paths(blocks)
        for block in blocks:
            part = parts[block.name] = copy.copy(self)
            part._memory, part._parts = self._memory.anew(), None
            part._start = {chain.name: start[chain.name] for chain in block.chains}
        return parts


def _check_whole(blocks: tuple[SSLLoop, ...]) -> None:
    """Check that no plate is subsampled.

    :raises ValueError: if one is.
    """
    for block in blocks:
        for frame in block.plates:
            if frame.full_size not in (None, frame.size):
                raise ValueError(
                    f'Site "{block.name}": its plate "{frame.name}" is subsampled, in a model with '
                    "paths that are not drawn together, expected all data at once: write "
                    f'pyro.plate("{frame.name}", N), or chains of one loop, which are drawn '
                    "together."
                )
