"""Download a file that is bounded in size and in time, check it, and leave nothing half done.

A file comes into a folder of its own beside the place where it is wanted, is checked and unpacked
there, and is put in place in one step.
"""

import os
import shutil
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .arguments import real

__all__ = ["BAD_ARCHIVE", "Fetch", "copy"]

#: What an archive raises that is cut short, damaged or of another kind.
BAD_ARCHIVE = (
    EOFError,
    KeyError,  # no such file in it
    NotImplementedError,  # another compression
    RuntimeError,  # a password
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
_SILENCE = 30.0  # seconds without a byte, after which no more is expected
_BLOCK = 2**16
_DAY = 86_400.0


class Fetch:
    """One call of a function that fetches: its name, its time, and pooch.

    :param str caller: For the messages.
    :param timeout: Seconds that one file may take.
    :raises ImportError: if pooch is not installed.
    """

    def __init__(self, caller: str, timeout: float) -> None:
        self.caller, self.load = caller, f"{caller.replace('fetch', 'load')}(folder)"
        if (seconds := real(timeout, "timeout", caller)) <= 0.0:
            raise ValueError(
                f"{caller}: found timeout={timeout}, expected more than 0. Write timeout=600."
            )
        self.seconds = seconds
        try:
            import pooch
        except ImportError as error:
            raise ImportError(
                f"{caller}: found no pooch, which fetches files and checks them. Write pip install "
                "'pyro-ssl[data]', or fetch the files by hand and give their folder to "
                f"{self.load}."
            ) from error
        self.pooch = pooch

    def folder(self, folder: str | os.PathLike[str] | None) -> Path:
        """Return where data sets are kept."""
        return Path(self.pooch.os_cache("pyro_ssl") if folder is None else folder).expanduser()

    def has(self, path: Path, known_hash: str) -> bool:
        """Whether a file is there and is the published one."""
        return path.is_file() and self._hash(path, known_hash) == known_hash

    def check(self, path: Path, known_hash: str) -> None:
        """Refuse a file that is not the published one."""
        if (found := self._hash(path, known_hash)) != known_hash:
            raise ValueError(f"{path.name} of {found}, expected {known_hash}")

    def download(self, url: str, path: Path, most: int) -> None:
        """Write at most so many bytes of a URL to a file."""
        self.pooch.get_logger().info("Downloading %s into %s", url, path.parent.parent)
        _within(self.seconds, lambda stop: _download(url, path, most, stop))

    @contextmanager
    def scratch(self, parent: Path, url: str) -> Iterator[Path]:
        """Make a folder beside the target, so that a move is one step; it goes whatever happens.

        What fails in it is told with where it was from and what to do instead.
        """
        from requests import RequestException  # pooch brings both along
        from urllib3.exceptions import HTTPError

        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.glob(".fetch-*"):  # of a process that was killed
            if old.is_dir() and time.time() - old.stat().st_mtime > _DAY:
                shutil.rmtree(old, ignore_errors=True)
        by_hand = (
            f"Try again, or fetch {url} by hand and give the folder of the files (unpacked) to "
            f"{self.load}."
        )
        try:
            with tempfile.TemporaryDirectory(
                dir=parent, prefix=".fetch-", ignore_cleanup_errors=True
            ) as scratch:
                yield Path(scratch)
        except (RequestException, HTTPError, TimeoutError) as error:
            raise ConnectionError(
                f"{self.caller}: found {error!r}, expected a file within timeout={self.seconds:g} "
                f"seconds. {by_hand}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.caller}: found {error}. {by_hand}") from error

    def _hash(self, path: Path, known_hash: str) -> str:
        algorithm = known_hash.partition(":")[0]
        return f"{algorithm}:{self.pooch.file_hash(path, alg=algorithm)}"


def copy(source: Any, path: Path, most: int, stop: threading.Event | None = None) -> None:
    """Copy at most so many bytes to a file, as they come.

    :raises ValueError: if there are more.
    """
    read = getattr(source, "read1", None) or source._fp.read1  # urllib3's has one since 2.2
    left = most
    with open(path, "wb") as file:
        while chunk := read(_BLOCK):
            if (left := left - len(chunk)) < 0:
                raise ValueError(f"more than {most:,} bytes, expected no more")
            if stop is not None and stop.is_set():
                return
            file.write(chunk)


def _download(url: str, path: Path, most: int, stop: threading.Event) -> None:
    import requests

    headers = {"Accept-Encoding": "identity"}  # so that what is counted is what comes
    with requests.get(url, stream=True, timeout=_SILENCE, headers=headers) as response:
        response.raise_for_status()
        copy(response.raw, path, most, stop)


def _within(seconds: float, work: Callable[[threading.Event], None]) -> None:
    """Do what may wait on the network for ever; it is told when its time is over.

    :raises TimeoutError: if it is not done in time.
    """
    failures: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:  # raised below, in the thread that asked
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:
        stop.set()
    if thread.is_alive():
        raise TimeoutError("no end in time")
    if failures:
        raise failures[0]
