"""Where a run is saved: two checkpoints of it, written in turn, so that one is always whole.

Each is a folder as ``checkpoint.py`` writes it: in place in one step, guarded by a digest. A save
that is cut short, or a disk that fails, costs the steps since the save before, and no more. What is
there may be read while the run goes on. All ranks of a distributed run save, and load, together.

Next file to read: ``rank_files.py``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..distributed import Alone, current
from ..errors import CheckpointError
from ..storage import reading
from .plain import pack, unpack
from .rank_files import load_slots, save_slot

__all__ = ["RunFiles", "check_same"]

_SLOTS = ("0", "1")

#: what tells runs apart, part by part: plain values by name
About = Mapping[str, Any]


class RunFiles:
    """The two checkpoints of a run.

    :param path: their folder.
    :param str kind: of the run, such as ``"StochasticEM"``.
    :param bool alone: read them without the other ranks, as whoever watches a run does.

    Example::

        >>> import tempfile
        >>> files = RunFiles(tempfile.mkdtemp(), "a count")
        >>> for n in range(3):
        ...     files.save({"settings": {}}, {"n": n})
        >>> files.load()
        ({'settings': {}}, {'n': 2})
    """

    def __init__(self, path: str | os.PathLike[str], kind: str, *, alone: bool = False) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise TypeError(
                f"{kind}: the place of its checkpoints is {path!r}, expected a folder; write "
                '"runs/first".'
            )
        self.folder, self.kind = Path(path), kind
        self._ranks = Alone() if alone else current()
        self._last: tuple[int, str] | None = None  # number and slot of the last whole one

    @property
    def there(self) -> bool:
        """Whether a checkpoint is there, whole or not."""
        here = any(os.path.exists(self.folder / slot / "manifest.json") for slot in _SLOTS)
        return bool(self._ranks.first("whether a checkpoint is there", here))

    def save(self, about: About, state: Any) -> None:
        """Write a checkpoint over the older of the two.

        :raises OSError: if it cannot be written; the newer one is as it was.
        :raises TypeError: on what cannot be saved.
        """
        if self._last is None and self.there:
            self._find(whole=False)
        number, slot = (0, _SLOTS[-1]) if self._last is None else self._last
        tensors: dict[str, Any] = {}
        own: list[Any] | None = [] if self._ranks.size > 1 else None
        packed = pack(state, tensors, own)
        config = {"number": number + 1, "about": about, "state": packed}
        other = _SLOTS[slot == _SLOTS[0]]
        save_slot(self.folder / other, f"run of {self.kind}", tensors, config, own or [])
        self._last = number + 1, other

    def save_or_tell(self, about: About, state: Any, what: str) -> bool:
        """Write a checkpoint; where it cannot be written warn, so that the run goes on.

        :param str what: is saved, for the warning.
        :returns: whether it was written.
        """
        try:
            self.save(about, state)
        except OSError as error:
            warnings.warn(
                f"{self.folder}: {what} could not be saved ({error}); the run goes on, and the "
                "save before it is kept. Make room there.",
                RuntimeWarning,
                stacklevel=5,
            )
            return False
        return True

    def find(self, resume: bool) -> tuple[dict[str, Any], Any] | None:
        """Return what :meth:`load` does, or ``None`` where nothing is there yet.

        :param bool resume: whether one is to go on from it.
        :raises CheckpointError: if something is there, and nobody asked for it.
        """
        if not self.there:
            return None
        if not resume:
            raise CheckpointError(
                f"{self.folder}: found a checkpoint of another run, expected none, since it would "
                "be written over; write resume=True to go on from it, or give another folder."
            )
        return self.load()

    def load(self) -> tuple[dict[str, Any], Any]:
        """Return what the newest whole checkpoint is about, and the state.

        A damaged one is passed over, with a warning.

        :raises CheckpointError: if there is none, or none that is whole.
        """
        if not self.there:
            raise CheckpointError(
                f"{self.folder}: no checkpoint here, expected one of a {self.kind}, as its save or "
                "checkpoint= writes them; look for the folder that you gave there."
            )
        tensors, config, ranks = self._find()
        with reading(self.folder):
            return config["about"], unpack(config["state"], tensors, ranks)

    def _find(self, *, whole: bool = True) -> Any:
        """The newest whole checkpoint; ``whole``: there has to be one."""
        slots = [self.folder / slot for slot in _SLOTS]
        found, damage = load_slots(slots, f"run of {self.kind}", self._ranks)
        best = None
        for slot, one in found.items():
            with reading(slot):
                if best is None or one[1]["number"] > best[1]["number"]:
                    best = one
                    self._last = one[1]["number"], slot.name
        if damage and (best is None) and whole:
            raise damage[0]
        if damage and best is not None and whole:
            warnings.warn(
                f"{self.folder}: one of its two checkpoints is damaged, and is passed over "
                f"({damage[0]}); what is read is the other, which is whole.",
                RuntimeWarning,
                stacklevel=4,
            )
        return best


def check_same(place: Any, saved: About, now: About) -> None:
    """Check that a checkpoint is of the same data, model and settings as a run.

    :param place: its folder, for the message.
    :raises CheckpointError: naming the first difference.

    Example::

        >>> check_same("runs/1", {"settings": {"P": 5}}, {"settings": {"P": 10}})
        Traceback (most recent call last):
            ...
        pyro_ssl.errors.CheckpointError: runs/1: saved by a run of other settings: P is 5 there \
and 10 here, expected the same. Write P=5, or give a new run a folder of its own.
    """
    for part in (*now, *(name for name in saved if name not in now)):
        old, new = saved.get(part) or {}, now.get(part) or {}
        for name in (*new, *(n for n in old if n not in new)):
            if _same(old.get(name), new.get(name)):
                continue
            a, b = ("missing" if name not in one else str(one[name])[:300] for one in (old, new))
            write = f"Write {name}={a}" if part == "settings" else f"Go on with the same {part}"
            raise CheckpointError(
                f"{place}: saved by a run of other {part}: {name} is {a} there and {b} here, "
                f"expected the same. {write}, or give a new run a folder of its own."
            )


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same once JSON held them."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
