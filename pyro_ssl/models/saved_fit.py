"""Fits that are saved as they go, and go on as if they never had been stopped.

Next file to read: ``epochs.py``, whose loop asks this.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import pyro
import torch
from torch import Tensor

from ..infer import MarkovEM, MeanFieldGuide, StochasticEM
from ..infer.about import described, digest
from ..infer.run_files import RunFiles, check_same
from ..infer.run_state import (
    generators,
    optimiser_state,
    put_generators,
    put_optimiser,
    put_state,
    state_of,
)
from ..infer.saved_em import em_state, put_em
from ..storage import reading
from ..transitions.base import like_of
from .base import EpochRecord, Model
from .corpus_words import Corpus
from .frames import as_numbers, is_table
from .gaussian_regression import EmissionRegression
from .gaussian_reweighted import ReweightedRegression

__all__ = ["SavedFit", "saved"]

F = TypeVar("F", bound=Callable[..., Any])

#: arguments with others of which a fit may go on
_FREE = {"self", "num_epochs", "patience", "callback", "disable_progbar", "paths_folder"}

_REGRESSIONS = EmissionRegression | ReweightedRegression


class SavedFit:
    """The checkpoints of one fit.

    :param model: that is fitted.
    :param checkpoint: their folder.
    :param int every: epochs from one to the next.
    :param bool resume: go on from what is there, if anything is.
    :param arguments: of the fit, by name.
    :raises CheckpointError: if what is there is damaged, or of another fit.
    """

    def __init__(
        self,
        model: Model,
        checkpoint: Any,
        every: int,
        resume: bool,
        arguments: Mapping[str, Any],
    ) -> None:
        self.files = RunFiles(checkpoint, f"{type(model).__name__}.fit")
        self.every, self._saved = every, -1
        given = {name: value for name, value in arguments.items() if name not in _FREE}
        data = {name for name, value in given.items() if _is_data(value)}
        self._about = {
            "settings": {n: described(value) for n, value in given.items() if n not in data},
            "data": {name: _digest(given[name]) for name in sorted(data)},
            "model": {n: _digest(value) for n, value in model.config.items()}
            | {"dtype": str(like_of(model).dtype)},
        }
        found = self.files.find(resume)
        if found is not None:
            check_same(self.files.folder, found[0], self._about)
        #: what is there to go on from
        self.found: dict[str, Any] | None = None if found is None else found[1]

    def begin(
        self, model: Model, parts: Mapping[str, Any]
    ) -> tuple[list[EpochRecord], dict[str, Tensor]]:
        """Put model and parts where they were; return the records so far, and the best tensors."""
        if self.found is None:
            return [], {}
        state = self.found
        with reading(self.files.folder):
            model.load_state_dict(state["model"])
            _put_store(model, state["store"])
            for name, part in parts.items():
                _put(part, state["parts"][name])
            put_generators(state["generators"])
            history = [EpochRecord(**record) for record in state["history"]]
        self._saved = len(history)
        return history, state["best"]

    def save(
        self,
        model: Model,
        history: list[EpochRecord],
        best: dict[str, Tensor],
        parts: Mapping[str, Any],
    ) -> None:
        """Write a checkpoint after a whole epoch, unless it is there; tell what cannot be."""
        if self._saved == len(history):
            return
        state = {
            "config": model.config,
            "model": dict(model.state_dict()),
            "store": _store(model),
            "parts": {name: _state(part) for name, part in parts.items()},
            "generators": generators(),
            "history": [asdict(record) for record in history],
            "best": best,
        }
        if self.files.save_or_tell(self._about, state, f"epoch {len(history)}"):
            self._saved = len(history)


def saved(fit: F) -> F:
    """Let a model's ``fit`` be saved as it goes, by its ``checkpoint``, ``every`` and ``resume``.

    While it runs, ``model._saving`` has its checkpoints.
    """
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def call(model: Model, *args: Any, **kwargs: Any) -> list[EpochRecord]:
        given = signature.bind(model, *args, **kwargs)
        given.apply_defaults()
        arguments = dict(given.arguments)
        checkpoint, every, resume = (arguments.pop(n) for n in ("checkpoint", "every", "resume"))
        if checkpoint is not None:
            model._saving = SavedFit(model, checkpoint, every, resume, arguments)
        try:
            return fit(model, *args, **kwargs)
        finally:
            model._saving = None

    return call  # type: ignore[return-value]


def _is_data(value: Any) -> bool:
    plain = isinstance(value, Tensor | np.ndarray | list | tuple | Corpus) or is_table(value)
    return plain or hasattr(value, "x") and hasattr(value, "y")


def _digest(value: Any) -> Any:
    """Data of any form in a few words, and so that other data have others."""
    if hasattr(value, "x") and hasattr(value, "y"):
        return [_digest(getattr(value, name, None)) for name in ("x", "y", "mask")]
    value = as_numbers(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        value = torch.as_tensor(np.ascontiguousarray(value), device="cpu")
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, Corpus):
        return f"corpus {value.digest}"
    if isinstance(value, list | tuple):
        if any(isinstance(one, Tensor | np.ndarray | Corpus) or is_table(one) for one in value):
            return [_digest(one) for one in value]
        found = hashlib.sha256(repr(value).encode()).hexdigest()[:8]
        return f"{len(value)} entries {found}"
    return described(value)


def _state(part: Any) -> Any:
    """What changes of one of the objects that an epoch works with."""
    if isinstance(part, StochasticEM):
        return em_state(part)
    if isinstance(part, MarkovEM | MeanFieldGuide):
        return {"own": state_of(part), "globals": state_of(part._globals)}
    return part.state if isinstance(part, _REGRESSIONS) else optimiser_state(part)


def _put(part: Any, state: Any) -> None:
    if isinstance(part, StochasticEM):
        put_em(part, state)
        put_optimiser(part.optim, state["optimiser"])
    elif isinstance(part, MarkovEM | MeanFieldGuide):
        put_state(part, state["own"])
        put_state(part._globals, state["globals"])
    elif isinstance(part, _REGRESSIONS):
        part.state = state
    else:
        put_optimiser(part, state)


def _store(model: Model) -> list[tuple[str, str | Tensor]]:
    """Pyro's store: names, each with the model's own name of the parameter, or else its value."""
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    found = pyro.get_param_store().named_parameters()
    return [(name, own.get(id(parameter), parameter.detach())) for name, parameter in found]


def _put_store(model: Model, state: list[tuple[str, str | Tensor]]) -> None:
    own, store = dict(model.named_parameters()), pyro.get_param_store()
    for name, value in state:
        store[name] = own[value] if isinstance(value, str) else value
