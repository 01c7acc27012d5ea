"""The one loop over epochs: every ready-made model is fitted by it.

What an epoch does is the model's business, given as ``step``. The loop keeps the record, the best
epoch, and the promise that a fit always ends in the same way, however it ends: the model has the
tensors of the best epoch, or of the last one where none was scored; it is in ``eval()`` mode; and
``model.history`` has a record for every epoch that was finished. A ``fit`` that raises an error
before its first epoch is over leaves the model as it was before, history included. Ctrl-C raises
nothing: what comes back is what was reached.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm.auto import trange

from ..arguments import hides_progbar
from ..gradients import gradients
from ..reading.context import private_store
from .base import EpochRecord, Model

__all__ = ["FitState", "ModelBefore", "fit_epochs", "whole_or_not"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class FitState:
    """How far a fit has come: :func:`fit_epochs` goes on from it, and keeps it up to date.

    ``history`` has the records so far, and ``best`` the model's tensors after the epoch of the
    lowest score; it is empty until an epoch has a score.
    """

    history: list[EpochRecord] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest score, 0 if there is none."""
        return _best_of(self.history)

    def add(self, record: EpochRecord, model: Model) -> None:
        """Take in a finished epoch, and the model's tensors if it is the best so far."""
        best = self.best
        if _best_of([*self.history, record]) == record.epoch:
            best = {name: value.clone() for name, value in model.state_dict().items()}
        self.best = best  # at once with the record: Ctrl-C may come between any two lines
        self.history.append(record)


def _best_of(history: list[EpochRecord]) -> int:
    scored = [record for record in history if not math.isnan(record.score)]
    return min(scored, key=lambda record: record.score).epoch if scored else 0


def _timed(model: Model, step: Callable[[], tuple[float, float]]) -> tuple[float, float, float]:
    """Run an epoch in ``train()`` mode; return what it returns, and its seconds."""
    model.train()
    started = time.perf_counter()
    loss, change_rate = step()
    seconds = time.perf_counter() - started
    model.eval()
    return loss, change_rate, seconds


def fit_epochs(
    model: Model,
    num_epochs: int,
    step: Callable[[], tuple[float, float]],
    *,
    valid: tuple[Any, ...] | None = None,
    score: Callable[..., dict[str, float]] | None = None,
    monitor: str = "",
    state: FitState | None = None,
    parts: Mapping[str, Any] | None = None,
    patience: int | None = None,
    callback: Callable[[EpochRecord], None] | None = None,
    disable_progbar: bool | None = None,
) -> list[EpochRecord]:
    """Fit a model epoch by epoch, and leave it at the best one.

    ``KeyboardInterrupt`` (Ctrl-C, or from ``callback``) ends the fit early, without an error: the
    unfinished epoch has no record. Any other exception goes on to the caller, with a note of
    what was kept. In both cases the model is left as at any other end (see the module).

    :param int num_epochs: at most so many.
    :param step: runs an epoch, with the model in ``train()`` mode; returns its loss, and the share
        of latents that it renewed, or NaN.
    :param valid: validation data, for ``score``; without them no epoch is better than another,
        and the last one is kept.
    :param score: scores ``*valid`` after an epoch, with the model in ``eval()`` mode; returns
        numbers by their names.
    :param str monitor: the name of the score to choose by; the lowest is the best.
    :param FitState state: go on from here; by default the fit begins anew, or where its
        checkpoint is.
    :param parts: objects that ``step`` changes, by name, which are saved with the model: optimisers
        and inference objects of this library.
    :param int patience: stop after so many epochs without a lower score.
    :param callback: called with each :class:`EpochRecord`, with the model in ``eval()`` mode.
    :param bool disable_progbar: hide the progress bar; by default where ``CI`` is set.
    :returns: ``model.history``.

    Example::

        >>> from pyro_ssl import LanguageModel
        >>> model = LanguageModel(5, embedding_size=2, hidden_size=3)
        >>> history = fit_epochs(model, 2, lambda: (1.5, float("nan")), disable_progbar=True)
        >>> [(record.epoch, record.loss) for record in model.history]
        [(1, 1.5), (2, 1.5)]
    """
    saving, parts = model._saving, parts or {}
    state = state or FitState(*(() if saving is None else saving.begin(model, parts)))
    save = partial(_save, saving, model, state, parts)
    model.history = state.history
    name = type(model).__name__
    disable = hides_progbar(disable_progbar)
    first, is_whole = len(state.history) + 1, True
    try:
        save()
        with trange(first, num_epochs + 1, desc=name, unit="epoch", disable=disable) as bar:
            for epoch in bar:
                if patience is not None and state.best and epoch > patience + state.best_epoch:
                    break
                is_whole = False
                loss, change_rate, seconds = _timed(model, step)
                metrics = {} if score is None or valid is None else score(*valid)
                chosen_by = metrics[monitor] if metrics else math.nan
                record = EpochRecord(epoch, loss, change_rate, chosen_by, seconds, metrics)
                state.add(record, model)
                is_whole = True
                shown = {"loss": loss, "moved": change_rate, monitor: chosen_by}
                bar.set_postfix(
                    {key: f"{value:.4g}" for key, value in shown.items() if value == value},
                    refresh=False,
                )
                if callback is not None:
                    callback(record)
                if saving is not None and epoch % saving.every == 0:
                    save()
        save()
    except KeyboardInterrupt:
        if is_whole:
            save()
    except Exception as error:
        kept = f"at epoch {state.best_epoch}, the best" if state.best else "as the error left it"
        if state.history:
            error.add_note(
                f"{name}: this ended the fit after {len(state.history)} whole epochs, which are in "
                f"history; the model is {kept}."
            )
        raise
    finally:
        _end(model, state.best)
    return state.history


def _end(model: Model, best: dict[str, Tensor]) -> None:
    """Leave a model at its best epoch, if there is one, even if Ctrl-C comes amid that."""
    try:
        if best:
            model.load_state_dict(best)
        model.eval()
    except KeyboardInterrupt:
        _end(model, best)


def _save(saving: Any, model: Model, state: FitState, parts: Mapping[str, Any]) -> None:
    """Save a fit, if it is one that is saved."""
    if saving is not None:
        saving.save(model, state.history, state.best, parts)


def whole_or_not(fit: F) -> F:
    """Let a model's ``fit`` be all or nothing until its first epoch is over.

    It has gradients within ``torch.no_grad`` too, and Pyro's parameter store to itself.

    :raises RuntimeError: within ``torch.inference_mode``, or of a model that was made in it.
    """

    @functools.wraps(fit)
    def call(model: Model, *args: Any, **kwargs: Any) -> list[EpochRecord]:
        name = type(model).__name__
        with gradients(), private_store():
            if any(value.is_inference() for value in model.state_dict().values()):
                raise RuntimeError(
                    f"{name}.fit: the model was made within torch.inference_mode(), in which "
                    f"nothing can be learned; make it outside: write model = {name}(...) there."
                )
            before = ModelBefore(model)
            try:
                return fit(model, *args, **kwargs)
            except KeyboardInterrupt:
                if model.history is not before.history and model.history:
                    raise
                reached = getattr(model, "markov", None)
                before.restore(model)
                if reached is not None:
                    model.markov = reached
                _tell_of_no_epoch(name, reached is not None)
                return []
            except BaseException as error:
                if model.history is before.history or not model.history:
                    before.restore(model)
                    error.add_note(f"{name}.fit: no epoch was over; the model is as it was before.")
                raise

    return call  # type: ignore[return-value]


def _tell_of_no_epoch(name: str, has_hmm: bool) -> None:
    told = "the HMM that was reached is in model.markov: go on by fit(..., markov=model.markov)"
    warnings.warn(
        f"{name}.fit: stopped before an epoch was over; the model is as it was before"
        f"{'; ' + told if has_hmm else ''}.",
        RuntimeWarning,
        stacklevel=3,
    )


class ModelBefore:
    """A model, and the random generators, as they are before a fit."""

    def __init__(self, model: Model) -> None:
        self.history = model.history
        self._modules = [
            (module, dict(module._buffers), module.training) for module in model.modules()
        ]
        self._values = [(value, value.detach().clone()) for value in model.state_dict().values()]
        self._grads = [
            (p, p.grad if p.grad is None else p.grad.clone()) for p in model.parameters()
        ]
        self._own = {k: v for k, v in vars(model).items() if not k.startswith("_")}
        self._random = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    @torch.no_grad()
    def restore(self, model: Model) -> None:
        """Put everything back."""
        for value, saved in self._values:
            value.copy_(saved)
        for module, buffers, training in self._modules:
            module._buffers.update(buffers)
            module.training = training
        vars(model).update(self._own)
        for parameter, grad in self._grads:
            parameter.grad = grad
        torch.set_rng_state(self._random)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
