"""What a command tells while it works: lines in a log file, and on the standard error."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

__all__ = ["Log"]


class Log:
    """Lines with the time of day, for a file; and on the standard error where no bar is there.

    ``silent``: on the standard error nothing, as for all ranks but one.
    """

    def __init__(self) -> None:
        self.silent = False
        self._file: IO[str] | None = None

    @property
    def has_bar(self) -> bool:
        """Whether the standard error is a terminal, on which bars are shown in place of lines."""
        return sys.stderr.isatty() and not self.silent

    def to_file(self, file: IO[str]) -> None:
        """Write all lines into an open file too."""
        self._file = file

    def close(self) -> None:
        """Write no more lines into the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def line(self, text: str) -> None:
        """Tell how it goes."""
        self._write(text)
        if not self.has_bar:
            self._show(f"{_now()} {text}")

    def say(self, text: str) -> None:
        """Tell what a person at the terminal has to know."""
        self._write(text)
        self._show(text)

    def _write(self, text: str) -> None:
        if self._file is None:
            return
        try:
            print(f"{_now()} {text}", file=self._file, flush=True)
        except OSError as error:
            name, self._file = Path(self._file.name), None
            self._show(f"{name}: {error.strerror or error}; the log ends here, the run goes on.")

    def _show(self, text: str) -> None:
        if not self.silent:
            tqdm.write(text, file=sys.stderr)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
