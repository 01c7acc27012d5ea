"""One run of the program."""

from __future__ import annotations

import shlex
import signal
from dataclasses import dataclass, field

import torch

from .log import Log

__all__ = ["Call", "device_of", "shortened"]


@dataclass
class Call:
    """What a command knows of how it was called.

    ``line`` is the command line. ``stopped`` is the number of the signal that ended it, 0 if none.
    """

    line: str
    command: str = ""
    traceback: bool = False
    stopped: int = 0
    log: Log = field(default_factory=Log)

    @property
    def stopped_code(self) -> int:
        """The exit code of a command that was stopped, as shells have it."""
        return 128 + (self.stopped or signal.SIGINT)

    @property
    def resume_line(self) -> str:
        """The line that goes on with a fit.

        Example::

            >>> Call("pyro-ssl fit 'my book.txt' --out runs/book --overwrite").resume_line
            "pyro-ssl fit 'my book.txt' --out runs/book --resume"
        """
        words = [word for word in shlex.split(self.line) if word not in ("--overwrite", "--resume")]
        return shlex.join([*words, "--resume"])


def shortened(line: str, most: int = 600) -> str:
    """Return a command line that names many files without those in its middle.

    Example::

        >>> shortened("pyro-ssl fit a.txt b.txt c.txt --out runs/abc", most=30)
        'pyro-ssl fit a. ... t runs/abc'
    """
    half = most // 2
    return line if len(line) <= most else f"{line[:half]} ... {line[-(most - half - 5) :]}"


def device_of(name: str | None) -> torch.device:
    """Return the device that is asked for, by default a GPU where there is one.

    :raises ValueError: if there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"found --device {name}, which cannot be used here ({str(error).splitlines()[0]}), "
            "expected cpu, or cuda where there is a GPU; write --device cpu."
        ) from error
    return device
