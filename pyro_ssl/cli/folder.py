"""The folder of a run, and what is in it.

==================  ==============================================================
``settings.json``   what was asked, and of which data; it makes a folder a run's
``checkpoint/``     from which ``--resume`` goes on
``model/``          the fitted model, for ``TopicalSSL.load`` or ``GaussianSSL.load``
``vocabulary.json`` of texts, for ``Vocabulary.load``
``log.txt``         what happened, line by line; who writes it holds the folder
``index.html``      how it goes
==================  ==============================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import CheckpointError
from ..storage import read_file, reading, write_durably
from .call import shortened

__all__ = ["RunFolder", "Settings"]

_FORMAT = 1
_LARGEST = 2**26  # the names of many files
_TYPES = {"kind": str, "command": str, "options": dict, "data": dict, "format": int}


@dataclass(frozen=True)
class Settings:
    """What was asked of a run, as ``settings.json`` has it.

    ``kind`` is ``"text"`` or ``"series"``. ``options`` decide what comes out, by name, and ``data``
    tells what it was learned from; a run goes on with the same of both. ``command`` is the line
    that began it.
    """

    kind: str
    command: str
    options: dict[str, Any]
    data: dict[str, Any]
    format: int = field(default=_FORMAT)


class RunFolder:
    """The folder of one run.

    :param path: where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model, self.checkpoint = path / "model", path / "checkpoint"
        self.vocabulary = path / "vocabulary.json"
        self._settings, self._log = path / "settings.json", path / "log.txt"

    def read(self) -> Settings:
        """Return the settings of the run that is there.

        :raises CheckpointError: if there is none, or the file is damaged.
        """
        if not self._settings.is_file():
            raise CheckpointError(
                f"{self.path}: found no {self._settings.name}, expected a folder that pyro-ssl fit "
                "has made; write pyro-ssl fit FILES --out FOLDER to make one."
            )
        with reading(self._settings, "what fit wrote there; take another copy, or fit anew."):
            found = json.loads(read_file(self._settings, _LARGEST))
            version = found.get("format") if isinstance(found, dict) else None
            if isinstance(version, int) and version > _FORMAT:
                raise CheckpointError(
                    f"{self.path}: found a run of format {version}, expected {_FORMAT} at most: a "
                    "newer version made it. Write pip install --upgrade pyro-ssl."
                )
            kinds = {n: type(v) for n, v in found.items()} if isinstance(found, dict) else {}
            if kinds != _TYPES or found["kind"] not in ("text", "series"):
                raise ValueError("other settings")
            return Settings(**found)

    def check(self, resume: bool, overwrite: bool) -> None:
        """Look whether a run may begin or go on here; nothing is changed.

        :raises FileExistsError: if it would write over something.
        :raises CheckpointError: if what is there cannot be read.
        """
        if not self.path.exists() and not self.path.is_symlink():
            return
        if not self.path.is_dir():
            raise FileExistsError(f"{self.path}: found a file, expected a folder for --out.")
        others = sorted(p.name for p in self.path.iterdir())
        if not others:
            return
        if self._settings.name not in others:
            raise FileExistsError(
                f"{self.path}: holds {', '.join(others[:3])}, which no run has written, expected "
                "a new folder, an empty one, or one of an earlier run; write --out with another "
                "folder."
            )
        if overwrite:
            return
        if not resume:
            raise FileExistsError(
                f"{self.path}: holds a run already, expected a new or empty folder; add --resume "
                "to go on with it, --overwrite to throw it away, or write --out with another "
                "folder."
            )
        self.read()

    def check_same(self, now: Settings) -> None:
        """Check that the run that is there, if one is, is the one that is asked for.

        :raises CheckpointError: naming the first difference.
        """
        if not self._settings.exists():
            return
        then = self.read()
        options: dict[str, tuple[Any, Any]] = {"kind": (then.kind, now.kind)}
        for name in now.options.keys() | then.options.keys():
            options[name] = then.options.get(name), now.options.get(name)
        for name, (old, new) in sorted(options.items()):
            if old != new:
                raise CheckpointError(
                    f"{self.path}: this run was begun with {_written(name, old)}, found "
                    f"{_written(name, new)}, expected the same; write the line it was begun with, "
                    f"{shortened(then.command)}, and --resume, or --out with another folder."
                )
        for name, new in now.data.items():
            if name != "files" and then.data.get(name) != new:  # which may be named from elsewhere
                raise CheckpointError(
                    f"{self.path}: this run was begun with other data: {name} is "
                    f"{then.data.get(name)} there and {new} here, expected the same files; give "
                    "those, or write --out with another folder to learn from these."
                )

    def hold(self, settings: Settings, *, overwrite: bool) -> IO[str]:
        """Make the folder a run's, and nobody else's until the log is closed, which is returned.

        :raises OSError: if it cannot be written.
        :raises FileExistsError: if another process fits a model there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        log = open(self._log, "a", encoding="utf-8")
        try:
            if not _lock(log):
                raise FileExistsError(
                    f"{self.path}: another process is fitting a model here, expected none; wait "
                    "for it, or write --out with another folder."
                )
            if overwrite:
                self._clear(log)
            if not self._settings.exists():
                text = json.dumps(asdict(settings), indent=1, ensure_ascii=False)
                write_durably(self.path, {self._settings.name: text.encode()})
        except BaseException:
            log.close()
            raise
        return log

    def show(self, page: str) -> None:
        """Write the page."""
        write_durably(self.path, {"index.html": page.encode()})

    def _clear(self, log: IO[str]) -> None:
        """Remove what a run has written; its settings at last, which tell that this is one."""
        for folder in (self.checkpoint, self.model):
            if folder.exists():
                shutil.rmtree(folder)
        log.truncate(0)
        for file in (self.vocabulary, self.path / "index.html", self._settings):
            file.unlink(missing_ok=True)


def option(name: str) -> str:
    """Return an option's name as it is written.

    Example::

        >>> option("batch_size")
        '--batch-size'
    """
    return "--" + name.replace("_", "-")


def _written(name: str, value: Any) -> str:
    """An option as a command line has it."""
    if value is None or value is False:
        return f"no {option(name)}"
    if value is True:
        return option(name)
    several = value if isinstance(value, list) else [value]
    return " ".join(f"{option(name)} {one}" for one in several)


def _lock(file: IO[str]) -> bool:
    """Whether the file is this process's alone, until it is closed."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without them
        return True
    return True


def describe(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return options with their values, as a table shows them.

    Example::

        >>> describe({"topics": 20, "batch_size": None, "column": ["a", "b"]})
        [('topics', '20'), ('column', 'a, b')]
    """
    shown = {n.replace("_", " "): v for n, v in settings.items() if v is not None}
    texts = (
        (n, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for n, v in shown.items()
    )
    return [(name, {"True": "yes", "False": "no"}.get(text, text)) for name, text in texts]
