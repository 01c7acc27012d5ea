"""Saving without pickle: tensors as safetensors, the rest as JSON, both guarded by SHA-256.

A checkpoint is a folder. The manifest is written last and names the tensors' file by its hash, so
that a save cut short at any moment leaves the previous checkpoint whole. Loading runs no code,
opens no file but these two, and reads no more than they are said to hold. Several processes may
write one checkpoint: each a part, which is a file of tensors too, and one of them the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from .errors import CheckpointError
from .storage import read_file, reading, write_durably

__all__ = [
    "Part",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
    "sealed",
    "unsealed",
    "write_part",
]

#: Version of the layout: one more with each change after which older versions cannot read it.
FORMAT = 1

_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 32 * 2**20


class Part(NamedTuple):
    """A file of tensors, whose name follows from its content."""

    payload: bytes
    sha256: str

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Part:
        """Lay tensors out as they are saved: contiguous, on the CPU."""
        laid_out = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        payload = safetensors.torch.save(laid_out)
        return cls(payload, hashlib.sha256(payload).hexdigest())

    @property
    def name(self) -> str:
        """Name of its file."""
        return _tensors_name(self.sha256)

    @property
    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"tensors": self.name, "bytes": len(self.payload), "sha256": self.sha256}


def write_part(path: str | os.PathLike[str], part: Part) -> None:
    """Write a part, for a :func:`save_checkpoint` to follow that names it.

    :raises OSError: if it cannot be written; what was saved before can still be loaded.
    """
    write_durably(_folder(path, "save"), {part.name: part.payload})


def save_checkpoint(
    path: str | os.PathLike[str],
    kind: str,
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    *,
    parts: Sequence[dict[str, Any]] = (),
) -> None:
    """Write a checkpoint folder, replacing what was saved there before.

    :param str kind: what is saved; :func:`load_checkpoint` asks for the same.
    :param dict tensors: saved contiguous, on the CPU.
    :param dict config: anything JSON can hold, of 32 MiB at most.
    :param parts: :attr:`Part.about` of what :func:`write_part` has written before.
    :raises OSError: if it cannot be written; what was saved before can still be loaded.
    :raises TypeError: if the path is none.
    :raises ValueError: if the path is empty, or the config is too large.
    """
    folder = _folder(path, f"{kind}.save")
    own = Part.of(tensors)
    body: dict[str, Any] = {"kind": kind} | own.about | ({"parts": [*parts]} if parts else {})
    manifest = sealed(body | {"config": config}, FORMAT)
    if len(manifest) > _LARGEST_MANIFEST:
        raise ValueError(
            f"{path}: found a config of {len(manifest):,} bytes, expected at most "
            f"{_LARGEST_MANIFEST:,}. Save a smaller vocabulary or a shorter history."
        )
    files, others = {own.name: own.payload, _MANIFEST: manifest}, {p["tensors"] for p in parts}
    write_durably(folder, files, stale="tensors-*.safetensors", keep=others)


def load_checkpoint(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint folder: its tensors and its config.

    Whether the two fit one another is checked by the model, inside ``with reading(path):``.

    :raises CheckpointError: if it is missing, of another kind or a newer version, cut short, or
        altered.
    """
    return read_checkpoint(path, kind)[:2]


def read_checkpoint(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Tensor], dict[str, Any], list[dict[str, Tensor]]]:
    """Read a checkpoint folder with its parts; see :func:`load_checkpoint`."""
    with reading(path):
        folder = _folder(path, f"{kind}.load")
        manifest = b""
        while True:
            before = manifest
            manifest = read_file(folder / _MANIFEST, _LARGEST_MANIFEST, links=False)
            body = _unsealed(folder, manifest)
            files = [body, *body.get("parts", [])]
            try:
                payloads = [
                    read_file(folder / f["tensors"], f["bytes"], links=False) for f in files
                ]
                break
            except FileNotFoundError:  # where a save has replaced it just now, there is another
                if manifest == before:
                    raise
        if (found := body["kind"][:40]) != kind:
            raise CheckpointError(
                f'{folder}: holds a "{found}", expected a "{kind}". Write {found}.load(path).'
            )
        for file, payload in zip(files, payloads, strict=True):
            digest = hashlib.sha256(payload).hexdigest()
            if len(payload) != file["bytes"] or digest != file["sha256"]:
                raise ValueError(f"a damaged {file['tensors']} of {len(payload):,} bytes")
        tensors, *parts = map(safetensors.torch.load, payloads)
        return tensors, body["config"], parts


def _folder(path: str | os.PathLike[str], where: str) -> Path:
    """The folder that a path means: an empty one would mean where the program happens to run.

    :raises TypeError: if it is no path.
    :raises ValueError: if it can be none.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f'{where}: path is a {type(path).__name__}, expected a folder; write {where}("model").'
        )
    if not str(path) or "\0" in str(path):
        raise ValueError(
            f'{where}: path is {str(path)!r}, expected a folder\'s; write {where}("model").'
        )
    return Path(path)


def sealed(body: dict[str, Any], version: int) -> bytes:
    """Return what JSON can hold as a file that tells when it was altered.

    :param int version: of its layout.
    """
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return json.dumps({"format": version, "seal": _digest(text), "body": text}, indent=1).encode()


def unsealed(place: Path, content: bytes, version: int, what: str) -> Any:
    """Return what :func:`sealed` was given, if it is as it was.

    :param Path place: the file.
    :param str what: it is of, for the message.
    :raises CheckpointError: if a newer version made it.
    :raises ValueError: if it was altered.

    Example::

        >>> unsealed(Path("corpus.json"), sealed({"words": 3}, 1), 1, "corpus")
        {'words': 3}
    """
    found = json.loads(content)
    newer = found["format"] if isinstance(found, dict) and "format" in found else None
    if isinstance(newer, int) and newer > version:
        raise CheckpointError(
            f"{place.parent}: found a {what} of format {newer}, expected {version} at most: a "
            "newer version of pyro_ssl saved it. Write pip install --upgrade pyro-ssl."
        )
    _check(found, {"format": int, "seal": str, "body": str}, place.name)
    if newer != version or _digest(found["body"]) != found["seal"]:
        raise ValueError(f"a {place.name} that was altered after it was saved")
    return json.loads(found["body"])


def _unsealed(folder: Path, manifest: bytes) -> dict[str, Any]:
    """The content of a manifest that is as it was saved."""
    body = unsealed(folder / _MANIFEST, manifest, FORMAT, "checkpoint")
    file = {"tensors": str, "bytes": int, "sha256": str}
    has_parts = isinstance(body, dict) and "parts" in body
    _check(body, {"kind": str, "config": dict} | file | ({"parts": list} if has_parts else {}))
    parts = body["parts"] if has_parts else []
    for part in parts:
        _check(part, file)
    for part in [body, *parts]:
        # The name follows from the content, so that no other file can be meant.
        is_digest = re.fullmatch("[0-9a-f]{64}", part["sha256"])
        if not is_digest or part["tensors"] != _tensors_name(part["sha256"]):
            raise ValueError(f"the name {part['tensors']!r}, which save never gives to tensors")
    return body


def _check(found: Any, types: dict[str, type], name: str = _MANIFEST) -> None:
    kinds = {k: type(v) for k, v in found.items()} if isinstance(found, dict) else type(found)
    if kinds != types:
        raise ValueError(f"{kinds} in {name}, where {types} should be")


def _tensors_name(digest: str) -> str:
    return f"tensors-{digest[:16]}.safetensors"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
