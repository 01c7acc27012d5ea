"""How a fit goes: a line for each epoch, the page, and the best model so far."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from html import escape

import torch

from ..distributed import current
from ..models import EpochRecord, GaussianSSL, TopicalSSL
from .call import Call
from .folder import RunFolder
from .page import Ahead, View, page_of
from .prepare import Prepared

__all__ = ["Progress", "kept_epoch", "scored"]

#: seconds from one writing of the page to the next
_EVERY = 3.0
#: of the forecast on a page of series: steps it follows, steps that are shown, steps ahead, columns
_LONGEST, _SEEN, _HORIZON, _COLUMNS = 1000, 80, 20, 6
_LEVEL = 0.9


class Progress:
    """What is shown of a fit while it runs.

    What cannot be written meanwhile is told, and the fit goes on.
    """

    def __init__(
        self, folder: RunFolder, found: Prepared, options: argparse.Namespace, call: Call
    ) -> None:
        self.folder, self.found, self.options, self.call = folder, found, options, call
        self._started, self._shown = time.perf_counter(), -math.inf
        self._levels = dict(found.levels)

    @property
    def history(self) -> list[EpochRecord]:
        """The epochs so far."""
        return self.found.model.history

    def after_epoch(self, record: EpochRecord) -> None:
        """Take in an epoch."""
        self._add_hmm()
        self.call.log.line(self._line(record))
        if time.perf_counter() - self._shown < _EVERY:
            return
        if kept_epoch(self.history) == record.epoch:
            self._try("the model", self._save)
        self.show("running")

    def show(self, state: str, message: str = "") -> None:
        """Write the page.

        :param str state: ``"running"``, ``"done"``, ``"stopped"`` or ``"failed"``.
        """
        self._try("the page", lambda: self.folder.show(page_of(self._view(state, message))))
        self._shown = time.perf_counter()

    def failed(self, error: BaseException) -> None:
        """Write the page of a fit that an error ended."""
        self.show("failed", f"{type(error).__name__}: {error}")

    def _try(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self.call.log.say(f"warning: {what} could not be written ({error}); the run goes on.")

    def _save(self) -> None:
        if self.found.vocabulary is not None:
            self.found.vocabulary.save(self.folder.vocabulary)
        self.found.model.save(self.folder.model)

    def _line(self, record: EpochRecord) -> str:
        numbers = {
            f"held-out {scored(self.found.score)}": f"{record.score:.4g}",
            "loss": f"{record.loss:.4g}",
            "moved": f"{record.change_rate:.1%}",
        }
        shown = [f"{name} {text}" for name, text in numbers.items() if "nan" not in text]
        return (
            f"epoch {record.epoch} of {self.options.epochs}: {', '.join(shown)}, "
            f"{record.seconds:.2f} s"
        )

    @torch.no_grad()
    def _add_hmm(self) -> None:
        """Score the HMM that a fit of texts begins with, once."""
        model, valid = self.found.model, self.found.arguments.get("valid")
        if "HMM" in self._levels or valid is None or not isinstance(model, TopicalSSL):
            return
        if model.markov is None or current().size > 1:
            return
        places = torch.arange(valid[0].shape[1], device=valid[0].device).split(256)
        batches = [(index,) for index in places]
        self._levels["HMM"] = model.markov.perplexity(*valid, batches=batches)

    def _view(self, state: str, message: str) -> View:
        model, history = self.found.model, self.history
        view = View(
            title=_title(self.options.files),
            told=self.found.told,
            kind=self.options.kind,
            state=state,
            message=escape(message),
            history=history,
            num_epochs=self.options.epochs,
            kept=kept_epoch(history) if history else 0,
            score=scored(self.found.score),
            levels=self._levels,
            options=self.found.options,
            line=self.call.line,
            resume_line=self.call.resume_line,
            seconds=time.perf_counter() - self._started,
        )
        if isinstance(model, TopicalSSL) and model.phi is not None and model.occupancy is not None:
            view.phi, view.occupancy = model.phi, model.occupancy
            view.vocabulary = model.vocabulary
        elif state in ("done", "stopped") and history and not isinstance(model, TopicalSSL):
            view.ahead = self._ahead(model)
        return view

    def _ahead(self, model: GaussianSSL) -> Ahead:
        """A forecast of the first series, from its last steps."""
        x, length = self.found.arguments["x"], int(self.found.arguments["lengths"][0])
        first = max(0, length - _LONGEST)
        ahead = model.forecast(x[first:length, :1], _HORIZON)
        ends = torch.stack([ahead.mean, *ahead.interval(_LEVEL)], -1)[:, 0]
        names, shown = self.found.data["columns"][:_COLUMNS], max(0, length - _SEEN)
        seen = x[shown:length, 0]
        return Ahead(names, seen.cpu(), ends.cpu(), shown + 1, _LEVEL)


def kept_epoch(history: Sequence[EpochRecord]) -> int:
    """The epoch that is kept: that of the lowest score, or the last one where none has a score.

    Example::

        >>> scores = (3.0, 2.0, 2.5)
        >>> kept_epoch([EpochRecord(i + 1, 1.0, 0.0, s, 0.1) for i, s in enumerate(scores)])
        2
    """
    rated = [record for record in history if not math.isnan(record.score)]
    return min(rated, key=lambda record: record.score).epoch if rated else len(history)


def scored(name: str) -> str:
    """Return a score's name in words."""
    return {"nll": "\N{MINUS SIGN}log p per step"}.get(name, name)


def _title(files: Sequence[str]) -> str:
    names = [file.rpartition("/")[2] if file != "-" else "standard input" for file in files]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
