"""Stochastic EM that was stopped, and goes on as if it never had been.

Next file to read: ``run_state.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..reading.program import ModelRun, Program
from ..storage import reading
from .about import described
from .path_memory import about_paths, data_of_all
from .run_files import RunFiles, check_same
from .run_state import (
    generators,
    optimiser_state,
    parameters,
    put_generators,
    put_optimiser,
    put_parameters,
    put_state,
    state_of,
)
from .scan_em import Parts
from .sharded import together
from .shards import check_own

__all__ = ["SavesEM", "em_state", "put_em"]

_OWN = ("change_rate", "_num_steps", "_current", "_path_counts", "_told", "_named", "_start")
_PARTS = ("_memory", "_twisting")


class SavesEM:
    """What of :class:`StochasticEM` is saved, and how it goes on."""

    @together("StochasticEM.save")
    def save(self: Any, path: str | os.PathLike[str]) -> None:
        """Write all that decides the next step; the last two saves of a folder are kept.

        Parameters of the model in Pyro's store, the optimiser, paths, counts, estimates, the twist,
        and the random generators of torch, numpy and Python. It is safetensors and JSON, in place
        in one step: who is killed meanwhile finds the save before.

        All ranks of a distributed run save together, into a folder that all of them see, each the
        paths of its own sequences.

        :param path: a folder, made if it is missing.
        :raises RuntimeError: before the first step.
        :raises OSError: if it cannot be written, on all ranks then; the save before is as it was.

        Example::

            >>> import tempfile
            >>> import pyro, pyro.distributions as dist
            >>> from pyro.optim import Adam
            >>> from pyro_ssl import LSTMTransition, StochasticEM, ssl_transition
            >>> transition, words = LSTMTransition(2, 4), torch.randint(3, (5, 4))
            >>> def model(words):
            ...     pyro.module("transition", transition)
            ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(2, 3)).to_event(1))
            ...     with pyro.plate("documents", words.shape[1]):
            ...         for t, z in ssl_transition("z", transition, len(words)):
            ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
            >>> em, folder = StochasticEM(model, Adam({"lr": 0.01})), tempfile.mkdtemp()
            >>> first = em.step(words)
            >>> em.save(folder)
            >>> second = em.step(words)
            >>> again = StochasticEM(model, Adam({"lr": 0.01}))     # in another process, say
            >>> again.load(folder, words)
            >>> again.step(words) == second
            True
        """
        if not self._memory and self._parts is None:
            raise RuntimeError("Nothing to save yet; write em.step(...) first.")
        files, state = RunFiles(path, "StochasticEM"), em_state(self)
        names = {name for part in _parts(self).values() for name in part._named}
        state["parameters"] = parameters(sorted(names))
        state["generators"] = generators()
        files.save(_about(self), state)

    @together("StochasticEM.load")
    @poutine.block()
    def load(self: Any, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Go on from what :meth:`save` wrote: the next step is the one that would have come then.

        The model runs once, so that its parameters are there; their values are written into them,
        those of modules too. A newest save that is damaged is passed over, with a warning.

        The ranks of a distributed run load together, as many of them as there are now: one process
        may go on from what four have saved. As many as before take up the sequences that they had,
        and others those of :meth:`~pyro_ssl.distributed.Ranks.part`.

        :param args: of the model, as for :meth:`step`, ``kwargs`` too; of data that come in
            minibatches any of them will do. Where all come at once, then and now, they are
            compared.
        :raises CheckpointError: if there is no save that is whole, or one of other data, another
            model or other settings; then nothing was changed.
        """
        about, state = RunFiles(path, "StochasticEM").load()
        check_same(path, {"settings": about["settings"]}, {"settings": _settings(self)})
        with reading(path):
            put_em(self, state)
        now: dict[str, Any] = {"settings": about["settings"], "model": {}, "data": {}}
        own = _memories(state)
        for part, run in _runs(self, Program(self._model, args, kwargs)):
            shapes = {name: site["value"].unconstrained() for name, site in run.params.items()}
            found = about_paths(run.paths, run.full_shape, data_of_all(run))
            latent = run.latents.keys() - run.subsamples.keys()
            now["model"] |= found["model"] | _latent(latent)
            now["model"] |= _shapes(shapes)
            now["data"] |= found["data"]
            check_own(path, run, part._memory, next(own))
            part._globals.find(run)
            part._memory.keep_data(run)
        if not (about["data"] and now["data"]):  # then, or now, it comes in minibatches
            about, now = about | {"data": {}}, now | {"data": {}}
        check_same(path, about, now)
        with reading(path):
            put_parameters(path, state["parameters"])
            put_optimiser(self.optim, state["optimiser"])
            put_generators(state["generators"])


def em_state(em: Any) -> dict[str, Any]:
    """Return what decides the next step of a :class:`StochasticEM`, but for parameters and chance.

    :raises TypeError: if the optimiser's state cannot be told.
    """
    points = em._globals.points
    parts = None if em._parts is None else vars(em._parts)
    return {
        "own": _own_state(em),
        "parts": None if parts is None else {n: _own_state(part) for n, part in parts.items()},
        "globals": state_of(em._globals),
        "points": None if points is None else state_of(points),
        "optimiser": optimiser_state(em.optim),
    }


def put_em(em: Any, state: dict[str, Any]) -> None:
    """Put back what :func:`em_state` returned, but for the optimiser's."""
    put_state(em._globals, state["globals"])
    if state["points"] is not None:
        put_state(em._globals.points, state["points"])
    _put_own(em, state["own"])
    em._parts = None
    if state["parts"] is not None:
        parts = {}
        for name, own in state["parts"].items():
            parts[name] = part = copy(em)
            part._twisting = copy(em._twisting)
            _put_own(part, own)
        em._parts = Parts(parts)


def _own_state(em: Any) -> dict[str, Any]:
    own = {name: getattr(em, name) for name in _OWN}
    return own | {name: state_of(getattr(em, name)) for name in _PARTS}


def _put_own(em: Any, state: dict[str, Any]) -> None:
    em._memory = em._memory.anew()
    for name in _OWN:
        setattr(em, name, state[name])
    for name in _PARTS:
        put_state(getattr(em, name), state[name])


def _parts(em: Any) -> dict[str, Any]:
    """The parts of a model whose paths are drawn in turn, or the one that there is."""
    return {"": em} if em._parts is None else vars(em._parts)


def _memories(state: dict[str, Any]) -> Iterator[Any]:
    """What ranks had of the paths of each part."""
    parts = [state["own"]] if state["parts"] is None else [*state["parts"].values()]
    return iter([part["_memory"]["own"] for part in parts])


def _runs(em: Any, program: Program) -> Iterator[tuple[Any, ModelRun]]:
    """Run the model for each part, given the paths of the others."""
    parts = _parts(em)
    for name, part in parts.items():
        others = [other._by_site for key, other in parts.items() if key != name]
        given = {n: z for some in others for n, z in some.items()}
        with torch.no_grad():
            yield part, (program.given(given) if given else program).run(part._current)


def _about(em: Any) -> dict[str, Any]:
    """What tells this run from others."""
    found: dict[str, Any] = {"settings": _settings(em), "model": {}, "data": {}}
    for part in _parts(em).values():
        for name, value in part._memory.about().items():
            found[name] |= value
        found["model"] |= _latent(em.values) | _shapes(parameters(part._named))
    return found


def _latent(names: Iterable[str]) -> dict[str, list[str]]:
    return {"latent sites": sorted(names)}


def _shapes(values: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {f"parameter {name}": list(value.shape) for name, value in values.items()}


def _settings(em: Any) -> dict[str, Any]:
    settings = em.settings
    return {
        "optim": described(em.optim),
        "num_particles": settings.num_particles,
        "conditional": em.conditional,
        "num_sweeps": em.num_sweeps,
        "twist": described(em._twisting.how),
        "num_gradient_steps": em.num_gradient_steps,
        "resampling": settings.resampling,
        "ancestor_sampling": settings.ancestor_sampling,
        "path_kernel": settings.path_kernel,
        "dirichlet": em._globals.kind,
        "averaging": em._globals.averaging,
        "draw_dirichlet": em.draw_dirichlet,
        "draw_transition": em.draw_transition,
    }
