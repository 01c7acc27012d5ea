"""``pyro-ssl fit``: learn from files, in a folder that the run can go on from."""

from __future__ import annotations

import argparse
import os
import signal
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro

from ..distributed import Alone, current, ranks
from ..models import EpochRecord, TopicalSSL
from .call import Call
from .folder import RunFolder, Settings
from .prepare import Prepared, prepare
from .progress import Progress, kept_epoch, scored
from .tables import topic_lines

__all__ = ["fit"]


def fit(options: argparse.Namespace, call: Call) -> int:
    """Run the command; return its exit code."""
    with _ranks() as here:
        call.log.silent = here.rank > 0
        folder = RunFolder(options.out)
        if here.rank == 0:
            folder.check(options.resume, options.overwrite)
        pyro.set_rng_seed(options.seed)
        found = prepare(options)
        settings = Settings(options.kind, call.line, found.options, found.data)
        saved: dict[str, Any] = {"checkpoint": folder.checkpoint, "resume": options.resume}
        if here.rank > 0:
            found.model.fit(**found.arguments, **saved, disable_progbar=True)
            return call.stopped_code if call.stopped else 0
        if options.resume:
            folder.check_same(settings)
        call.log.to_file(folder.hold(settings, overwrite=options.overwrite))
        return _learn(options, call, folder, found, saved)


def _learn(
    options: argparse.Namespace,
    call: Call,
    folder: RunFolder,
    found: Prepared,
    saved: dict[str, Any],
) -> int:
    """Fit, show how it goes, save what was reached, and print what came out."""
    call.log.line(f"{call.line}")
    call.log.line(found.told)
    if found.begins and not (options.resume and folder.checkpoint.exists()):
        call.log.line(found.begins)
    progress = Progress(folder, found, options, call)
    arguments: dict[str, Any] = {"callback": progress.after_epoch, **found.arguments, **saved}
    arguments["disable_progbar"] = not call.log.has_bar
    progress.show("running")
    try:
        with warnings.catch_warnings():  # of a stop it tells what to write in Python
            warnings.filterwarnings("ignore", ".*stopped before an epoch was over", RuntimeWarning)
            found.model.fit(**arguments)
    except KeyboardInterrupt:  # before its start
        call.stopped = call.stopped or signal.SIGINT
    except BaseException as error:
        progress.failed(error)
        raise
    if call.stopped:
        return _stopped(call, folder, found, progress)
    _save(folder, found)
    progress.show("done")
    call.log.line(f"done: {_came_to(found, progress.history)}")
    _print(options, folder, found, progress.history)
    return 0


def _stopped(call: Call, folder: RunFolder, found: Prepared, progress: Progress) -> int:
    """Save what was reached, and tell the line that goes on."""
    name = signal.Signals(call.stopped).name
    call.stopped, code = 0, call.stopped_code
    if found.model.history:
        _save(folder, found)
        reached = f"after {len(found.model.history)} whole epochs, which are saved"
    else:
        reached = "before the end of its first epoch"
    progress.show("stopped")
    call.log.say(f"stopped by {name} {reached}; go on with\n  {call.resume_line}")
    return code


def _save(folder: RunFolder, found: Prepared) -> None:
    if found.vocabulary is not None:
        found.vocabulary.save(folder.vocabulary)
    found.model.save(folder.model)


def _came_to(found: Prepared, history: list[EpochRecord]) -> str:
    """What a fit came to, in a line."""
    kept = kept_epoch(history)
    of = f"at epoch {kept} of {len(history)}, which is kept"
    record = history[kept - 1]
    if record.score == record.score:
        return f"held-out {scored(found.score)} {record.score:.4g} {of}"
    return f"loss {record.loss:.4g} {of}; nothing was held out"


def _print(
    options: argparse.Namespace, folder: RunFolder, found: Prepared, history: list[EpochRecord]
) -> None:
    print(_came_to(found, history))
    if isinstance(found.model, TopicalSSL):
        print(*topic_lines(found.model.topics(options.words)), sep="\n")
    print(f"saved in {folder.path}; open {folder.path / 'index.html'} in a browser")


def _ranks() -> AbstractContextManager[Alone]:
    """The ranks that torchrun has started, if there are several."""
    return ranks() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else nullcontext(current())
