"""Files that are whole or not there, and reads that come to an end.

A file is written beside its place and then moved there in one step. So whoever reads finds the old
file or the new one, whatever happened between: a process killed, a full disk, another save. What is
read is a file of a bounded size, and all that can go wrong is one :class:`CheckpointError`.
What is larger than memory is written, read and hashed in blocks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

import numpy as np

from .errors import CheckpointError

__all__ = [
    "blocks_of",
    "filled_in_one_step",
    "hash_of",
    "lock",
    "map_file",
    "read_file",
    "reading",
    "write_durably",
]

_BLOCK = 2**24


def write_durably(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    stale: str | None = None,
    keep: Iterable[str] = (),
) -> None:
    """Put files into a folder, one after the other, each whole or not at all.

    All of them are on the disk before the first takes its place. So the last one of several may
    name the others: until it is there, what the folder held before is whole. Savers of one folder
    take turns, by a lock that goes when its process does.

    :param Path folder: made if it is missing.
    :param files: contents by name.
    :param str stale: which files of the folder these replace, as :meth:`pathlib.Path.glob` reads
        it; they go at the end.
    :param keep: names of those that stay nevertheless.
    :raises OSError: if it cannot be done; nothing of it stays.

    Example::

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_durably(folder, {"a.txt": b"first"})
        >>> write_durably(folder, {"a.txt": b"second"})
        >>> [(file.name, file.read_bytes()) for file in folder.iterdir()]
        [('a.txt', b'second')]
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    staged = {name: folder / f".{name}.{secrets.token_hex(4)}.tmp" for name in files}
    placed: list[Path] = []
    is_staged = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _opened(folder) as handle:
            if lock(handle):  # so what is unfinished here is of a process that was killed
                for pattern in [*map(escape, files), *filter(None, [stale])]:
                    _remove(folder, f".{pattern}.*.tmp")
            for name, payload in files.items():
                _write(staged[name], payload)
            is_staged = True
            for name, temporary in staged.items():
                if not _is_file(folder / name):
                    placed.append(folder / name)
                os.replace(temporary, folder / name)
                os.fsync(handle)
            if stale:
                _remove(folder, stale, keep={*files, *keep})
        for place in made:
            with suppress(OSError), _opened(place.parent) as handle:
                os.fsync(handle)
    except BaseException as error:
        # Once the last is in its place it needs the others.
        is_saved = is_staged and not [*staged.values()][-1].exists()
        _take_back([*staged.values(), *([] if is_saved else placed)], made)
        if isinstance(error, OSError):
            told = "it is saved, but may not outlast a power cut"
            told = told if is_saved else "what was saved there before is as it was"
            reason = f"{error.strerror or error}; {told}"
            raise OSError(error.errno, reason, error.filename or str(folder)) from error
        raise


@contextmanager
def filled_in_one_step(folder: Path) -> Iterator[Path]:
    """Make a folder that is in its place once the block is over, and not there before.

    It is filled beside its place. What a process that was killed has left there goes.

    :returns: where to put its files.
    :raises OSError: if something is in its place, or it cannot be written; nothing of it stays.

    Example::

        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "corpus"
        >>> with filled_in_one_step(target) as folder:
        ...     written = (folder / "a.txt").write_bytes(b"first")
        ...     assert not target.exists()
        >>> [file.name for file in target.iterdir()]
        ['a.txt']
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{escape(folder.name)}.*.filling"):
        with suppress(FileNotFoundError), open(left / ".lock", "rb") as file:
            if lock(file.fileno(), wait=False):  # nobody fills it any more
                shutil.rmtree(left, ignore_errors=True)
    filling = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.filling")
    filling.mkdir()
    try:
        with open(filling / ".lock", "xb") as file:
            lock(file.fileno())
            yield filling
            for written in filling.iterdir():
                with open(written, "rb") as opened:
                    os.fsync(opened.fileno())
            with _opened(filling) as handle:
                os.fsync(handle)
            os.rename(filling, folder)
            (folder / ".lock").unlink()
        with _opened(folder.parent) as handle:
            os.fsync(handle)
    finally:
        shutil.rmtree(filling, ignore_errors=True)


def map_file(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the content of a file as an array that is read when it is looked at.

    Edits of it stay in memory.

    :raises ValueError: if the file is too small, or no file.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not _is_file(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    if path.stat().st_size < size:
        raise ValueError(f"{path.stat().st_size:,} bytes in {path.name}, where {size:,} should be")
    if not size:  # which cannot be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "c", shape=shape)


def blocks_of(array: np.ndarray) -> Iterator[bytes]:
    """Return the bytes of an array, a block at a time."""
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK):
        yield flat[start : start + _BLOCK].tobytes()


def hash_of(blocks: Iterable[bytes]) -> str:
    """Return the SHA-256 of blocks, one after the other.

    Example::

        >>> hash_of([b"a", b"b"]) == hashlib.sha256(b"ab").hexdigest()
        True
    """
    found = hashlib.sha256()
    for block in blocks:
        found.update(block)
    return found.hexdigest()


def read_file(path: Path, most: int, *, links: bool = True) -> bytes:
    """Read a file of at most so many bytes; never wait for a pipe or a device.

    :param int most: bytes; a larger file is not read at all.
    :param bool links: follow a symbolic link.
    :raises OSError: if there is no such file, or it may not be read.
    :raises ValueError: if it is larger, or not a file.
    """
    if path.is_symlink() and not links:
        raise ValueError(f"a link in place of the file {path.name}")
    never_wait = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    no_link = 0 if links else getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, os.O_RDONLY | never_wait | no_link)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"a folder, pipe or device in place of the file {path.name}")
        if status.st_size > most:
            raise ValueError(f"{status.st_size:,} bytes in {path.name}, where {most:,} may be")
        with open(handle, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(handle)


@contextmanager
def reading(
    place: str | os.PathLike[str],
    expected: str = "what save(path) wrote. Load another copy, or make it anew and save it.",
) -> Iterator[None]:
    """Raise whatever goes wrong inside as a :class:`CheckpointError` that names the place.

    :param place: the file or folder that is read.
    :param str expected: what should be there, and what to write.
    :raises CheckpointError: in place of every other error.

    Example::

        >>> with reading("runs/best"):
        ...     {"dim": 2}["hidden_size"]
        Traceback (most recent call last):
            ...
        pyro_ssl.errors.CheckpointError: runs/best: found KeyError('hidden_size'), expected what \
save(path) wrote. Load another copy, or make it anew and save it.
    """
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{place}: no checkpoint here ({error.filename} is missing), expected {expected}"
        ) from error
    except Exception as error:  # a lying file can make anything raise, even MemoryError
        told = str(error) if type(error) is ValueError else repr(error)
        found = " ".join(told[:400].split())
        raise CheckpointError(f"{place}: found {found}, expected {expected}") from error


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def lock(handle: int, *, wait: bool = True) -> bool:
    """Take the lock of an open file or folder, which goes when it is closed, or its process does.

    :param bool wait: until no other has it.
    :returns: whether it was taken; never where the system has no such locks.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _write(path: Path, payload: bytes) -> None:
    with open(path, "xb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _is_file(path: Path) -> bool:
    """Whether there is a file or a link; what else is there is not to be replaced."""
    if not os.path.lexists(path):
        return False
    if not stat.S_ISREG(mode := path.lstat().st_mode) and not stat.S_ISLNK(mode):
        raise OSError(errno.EEXIST, "found a folder, pipe or device, expected a file", str(path))
    return True


def _take_back(files: Iterable[Path], folders: Iterable[Path]) -> None:
    for file in files:
        with suppress(OSError):
            file.unlink()
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _remove(folder: Path, pattern: str, keep: Container[str] = ()) -> None:
    for file in folder.glob(pattern):
        if file.name not in keep:
            with suppress(OSError):
                file.unlink()
