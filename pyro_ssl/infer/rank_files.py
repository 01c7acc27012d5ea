"""A checkpoint that all ranks write: what they share by rank 0, and what each has its own of by it.

The files lie in one folder that all ranks see. Parts are written first, under names that follow
from their contents, and then the manifest that names them; so until it is there, the checkpoint
before is whole. Where one rank cannot write, all take back what they wrote.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoint import Part, read_checkpoint, save_checkpoint, write_part
from ..distributed import Alone, current
from ..errors import CheckpointError
from ..storage import reading
from .plain import pack_own, unpack_own

__all__ = ["load_slots", "save_slot"]

Slot = tuple[dict[str, Tensor], dict[str, Any], list[Any]]


def save_slot(
    folder: Path, kind: str, tensors: dict[str, Tensor], config: dict[str, Any], own: list[Any]
) -> None:
    """Write a checkpoint, together with all other ranks.

    :param config: and ``tensors``: what ranks share; rank 0's are written.
    :param own: what this rank has its own of, in the order of all ranks' lists.
    :raises OSError: on all ranks, if one of them cannot write; what was there before is whole.
    """
    ranks = current()
    if ranks.size == 1:
        save_checkpoint(folder, kind, tensors, config)
        return
    part = Part.of(pack_own(own))
    was_there, placed = (folder / part.name).exists(), False
    error: OSError | None = None
    try:
        try:
            write_part(folder, part)
        except OSError as failure:
            cause = failure.__cause__ if isinstance(failure.__cause__, OSError) else failure
            reason = f"{cause.strerror or cause}; what was saved there before is as it was"
            error = OSError(failure.errno, reason, failure.filename)
        parts = _agreed("a part of a save", error, part.about)
        if ranks.rank == 0:
            try:
                save_checkpoint(folder, kind, tensors, config, parts=parts)
            except OSError as failure:
                error = failure
        _agreed("a save", error, None)
        placed = True
    finally:
        if not (placed or was_there or _is_named(folder, part)):
            with suppress(OSError):
                (folder / part.name).unlink()


def load_slots(
    folders: list[Path], kind: str, ranks: Alone
) -> tuple[dict[Path, Slot], list[CheckpointError]]:
    """Read checkpoints; return those that are whole, on all ranks, and what is wrong with others.

    :param folders: where one may be.
    :param ranks: that read them together.
    """
    found: dict[Path, Slot] = {}
    damage: dict[Path, CheckpointError] = {}
    for folder in folders:
        if not (folder / "manifest.json").exists():
            continue
        try:
            tensors, config, parts = read_checkpoint(folder, kind)
            with reading(folder):
                found[folder] = tensors, config, [unpack_own(part) for part in parts]
        except CheckpointError as error:
            damage[folder] = error
    # What one rank cannot read none goes on from.
    told = {str(folder): str(error) for folder, error in damage.items()}
    for others in ranks.every("the checkpoints that are there", (told, _numbers(found))):
        for folder in folders:
            lost = others[0].get(str(folder))
            if lost is None and folder in found and str(folder) not in others[1]:
                lost = f"{folder}: no checkpoint here on another rank, expected a folder of all."
            if lost is not None and found.pop(folder, None) is not None:
                damage[folder] = CheckpointError(lost)
    return found, [*damage.values()]


def _numbers(found: dict[Path, Slot]) -> list[str]:
    return [str(folder) for folder in found]


def _agreed(where: str, error: OSError | None, value: Any) -> list[Any]:
    """Return every rank's value; raise an error of one of them on all.

    :raises OSError: on all ranks.
    """
    told = None if error is None else (error.errno, error.strerror or str(error), error.filename)
    found = current().every(where, (told, value))
    for rank, (failed, _) in enumerate(found):
        if failed is not None:
            number, reason, place = failed
            raise OSError(number, f"rank {rank}: {reason}", place) from error
    return [value for _, value in found]


def _is_named(folder: Path, part: Part) -> bool:
    """Whether the manifest that is in place needs a part."""
    with suppress(OSError):
        return part.sha256 in (folder / "manifest.json").read_text(errors="replace")
    return False
