"""Draws in a folder: one after the other as they come, and read meanwhile by whoever looks.

Each site has a file, to which every draw adds as many bytes; what the files are of stands in
``draws.json``. A draw counts once all files have it, so that a process that is killed leaves whole
draws, and a reader sees no others.

Next file to read: ``draws.py``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import sealed, unsealed
from ..errors import CheckpointError
from ..storage import blocks_of, lock, map_file, read_file, reading, write_durably

__all__ = ["DrawFiles", "read_draws"]

_FORMAT = 1
_HEADER, _LOCK = "draws.json", "lock"
_LARGEST_HEADER = 2**24

#: name, dtype and shape of one draw, by site
Layout = list[tuple[str, str, list[int]]]


class DrawFiles:
    """Adds draws to a folder.

    :param folder: made with the first draw.
    :param bool over: whether draws that are there may be written over.
    :raises CheckpointError: if draws are there that may not be, or another run adds to them.

    Example::

        >>> import tempfile
        >>> files = DrawFiles(tempfile.mkdtemp())
        >>> for n in range(3):
        ...     files.append({"z": torch.full((1, 2), n, dtype=torch.uint8)})  # (C, ...)
        >>> read_draws(files.folder)["z"]
        tensor([[[0, 0],
                 [1, 1],
                 [2, 2]]], dtype=torch.uint8)
    """

    def __init__(self, folder: str | os.PathLike[str], *, over: bool = False) -> None:
        if not isinstance(folder, str | os.PathLike) or not str(folder):
            raise TypeError(
                f"ParticleGibbs.run: draws_folder is {folder!r}, expected a folder; write "
                'draws_folder="runs/draws".'
            )
        self.folder = Path(folder)
        #: draws in it
        self.number = 0
        self._layout: Layout = []
        self._handles: list[int] = []
        self._hashes: list[Any] = []
        self._lock: int | None = None
        if (self.folder / _HEADER).exists() and not over:
            raise CheckpointError(
                f"{self.folder}: found draws of another run, expected none, since they would be "
                "written over; write resume=True with that run's checkpoint to go on from it, or "
                "give another folder."
            )

    def __del__(self) -> None:
        self.close()

    def append(self, draw: Mapping[str, Tensor]) -> None:
        """Add a draw of all chains, by site.

        :raises OSError: if it cannot be written; the draws before are as they were.
        """
        arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in draw.items()}
        if not arrays:
            return
        if not self._handles:
            self._begin([(n, a.dtype.str, list(a.shape)) for n, a in arrays.items()])
        try:
            for handle, (name, _, _) in zip(self._handles, self._layout, strict=True):
                _write_all(handle, arrays[name].tobytes())
        except BaseException as error:
            for handle, size in zip(self._handles, self._sizes, strict=True):
                os.ftruncate(handle, self.number * size)
                os.lseek(handle, 0, os.SEEK_END)
            if isinstance(error, OSError):
                reason = f"{error.strerror}; the {self.number} draws before are whole"
                raise OSError(error.errno, reason, str(self.folder)) from error
            raise
        for found, (name, _, _) in zip(self._hashes, self._layout, strict=True):
            found.update(arrays[name].tobytes())
        self.number += 1

    def samples(self) -> dict[str, Tensor]:
        """Return all draws, ``(C, S, ...)``, mapped."""
        return read_draws(self.folder) if self._layout else {}

    @property
    def state(self) -> dict[str, Any]:
        """What tells these draws from others, once they are on the disk."""
        for handle in self._handles:
            os.fsync(handle)
        return {"number": self.number, "hashes": [found.hexdigest() for found in self._hashes]}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        """Go on after the draws of a state; later ones are left out."""
        if not state["number"]:
            return
        with reading(self.folder, _EXPECTED):
            layout = _layout(self.folder)
            hashes = [_hashed(self.folder, i, one, state["number"]) for i, one in enumerate(layout)]
            if [found.hexdigest() for found in hashes] != state["hashes"]:
                raise ValueError("draws that are not those of the checkpoint")
            self._open(layout, hashes)
        self.number = state["number"]
        for handle, size in zip(self._handles, self._sizes, strict=True):
            os.ftruncate(handle, self.number * size)
            os.lseek(handle, 0, os.SEEK_END)

    def close(self) -> None:
        """Close the files; draws can still be read."""
        for handle in (*self.__dict__.get("_handles", ()), self.__dict__.get("_lock")):
            if handle is not None:
                os.close(handle)
        self._handles, self._lock = [], None

    @property
    def _sizes(self) -> list[int]:
        return [_size(dtype, shape) for _, dtype, shape in self._layout]

    def _begin(self, layout: Layout) -> None:
        """Begin anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        (self.folder / _HEADER).unlink(missing_ok=True)
        for i in range(len(layout)):
            _file(self.folder, i).write_bytes(b"")
        write_durably(self.folder, {_HEADER: sealed({"layout": layout}, _FORMAT)})
        self._open(layout, [hashlib.sha256() for _ in layout])

    def _open(self, layout: Layout, hashes: list[Any]) -> None:
        self._take_lock()
        self._layout, self._hashes = layout, hashes
        self._handles = [os.open(_file(self.folder, i), os.O_RDWR) for i in range(len(layout))]

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        if not lock(self._lock, wait=False) and os.name == "posix":
            raise CheckpointError(
                f"{self.folder}: another run adds draws here, expected none; give this one a "
                'folder of its own: write draws_folder="runs/other".'
            )


_EXPECTED = (
    "the draws that ParticleGibbs.run(draws_folder=) wrote. Begin a new run in another folder."
)


def read_draws(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the whole draws of a folder, by site, ``(C, S, ...)``; see :class:`DrawFiles`.

    They are mapped: what is looked at is read. Edits of them stay in memory.

    :raises CheckpointError: if there are none, or their description is damaged.
    """
    place = Path(folder)
    if not (place / _HEADER).exists():
        raise CheckpointError(
            f"{place}: found no draws, expected {_EXPECTED} A run makes the folder with its first "
            "draw after the warm-up."
        )
    with reading(place, _EXPECTED):
        layout = _layout(place)
        sizes = [_size(dtype, shape) for _, dtype, shape in layout]
        each = [_file(place, i).stat().st_size // max(size, 1) for i, size in enumerate(sizes)]
        number = min((n for n, size in zip(each, sizes, strict=True) if size), default=0)
        found = {}
        for i, (name, dtype, shape) in enumerate(layout):
            array = map_file(_file(place, i), np.dtype(dtype), (number, *shape))
            found[name] = torch.from_numpy(array.view(np.ndarray)).transpose(0, 1)
        return found


def _layout(folder: Path) -> Layout:
    content = read_file(folder / _HEADER, _LARGEST_HEADER, links=False)
    body = unsealed(folder / _HEADER, content, _FORMAT, "folder of draws")
    return [(name, dtype, shape) for name, dtype, shape in body["layout"]]


def _hashed(folder: Path, i: int, layout: tuple[str, str, list[int]], number: int) -> Any:
    """The hash of a site's first draws, to be gone on with."""
    _, dtype, shape = layout
    found = hashlib.sha256()
    for block in blocks_of(map_file(_file(folder, i), np.dtype(dtype), (number, *shape))):
        found.update(block)
    return found


def _file(folder: Path, i: int) -> Path:
    return folder / f"{i}.bin"


def _size(dtype: str, shape: list[int]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _write_all(handle: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]
