"""Saving without pickle: tensors as safetensors, the rest as JSON, both guarded by SHA-256.

A checkpoint is a folder. The manifest is written last and names the tensors' file by its hash, so
that a save cut short at any moment leaves the previous checkpoint whole. Loading runs no code,
opens no files but those that the manifest names, and reads no more than they are said to hold.

What is on the disk already, and may be larger than memory, is a :class:`MappedArray`: a file of its
own, copied and hashed a block at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
from torch import Tensor

from .errors import CheckpointError
from .storage import blocks_of, hash_of, map_file, read_file, reading, write_durably

__all__ = ["MappedArray", "load_checkpoint", "reading", "save_checkpoint", "sealed", "unsealed"]

#: Version of the layout: one more with each change after which older versions cannot read it.
FORMAT = 1

_MANIFEST = "manifest.json"
_STALE = ("tensors-*.safetensors", "array-*.bin")
_DIGEST = "[0-9a-f]{64}"
_LARGEST_MANIFEST = 32 * 2**20


class MappedArray(NamedTuple):
    """An array that is mapped from a file, not in memory."""

    array: np.ndarray


def save_checkpoint(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, Tensor | MappedArray],
    config: dict[str, Any],
) -> None:
    """Write a checkpoint folder, replacing what was saved there before.

    :param str kind: what is saved; :func:`load_checkpoint` asks for the same.
    :param dict tensors: saved contiguous, on the CPU.
    :param dict config: anything JSON can hold, of 32 MiB at most.
    :raises OSError: if it cannot be written; what was saved before can still be loaded.
    :raises TypeError: if the path is none.
    :raises ValueError: if the path is empty, or the config is too large.
    """
    folder = _folder(path, f"{kind}.save")
    mapped = {n: value.array for n, value in tensors.items() if isinstance(value, MappedArray)}
    rest = {n: value for n, value in tensors.items() if isinstance(value, Tensor)}
    payload = safetensors.torch.save({n: t.detach().cpu().contiguous() for n, t in rest.items()})
    digest = hashlib.sha256(payload).hexdigest()
    name = _tensors_name(digest)
    body = {"kind": kind, "tensors": name, "bytes": len(payload), "sha256": digest}
    arrays = {n: _about_array(array) for n, array in mapped.items()}
    manifest = sealed(body | {"config": config} | ({"arrays": arrays} if arrays else {}), FORMAT)
    if len(manifest) > _LARGEST_MANIFEST:
        raise ValueError(
            f"{path}: found a config of {len(manifest):,} bytes, expected at most "
            f"{_LARGEST_MANIFEST:,}. Save a smaller vocabulary or a shorter history."
        )
    blocks = {_array_name(arrays[n]["sha256"]): blocks_of(array) for n, array in mapped.items()}
    write_durably(folder, {**blocks, name: payload, _MANIFEST: manifest}, stale=_STALE)


def load_checkpoint(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint folder: its tensors and its config.

    What was saved as a :class:`MappedArray` is one again, hashed and not read otherwise.

    Whether the two fit one another is checked by the model, inside ``with reading(path):``.

    :raises CheckpointError: if it is missing, of another kind or a newer version, cut short, or
        altered.
    """
    with reading(path):
        folder = _folder(path, f"{kind}.load")
        manifest = b""
        while True:
            before, manifest = (
                manifest,
                read_file(folder / _MANIFEST, _LARGEST_MANIFEST, links=False),
            )
            body = _body(folder, manifest)
            try:
                payload = read_file(folder / body["tensors"], body["bytes"], links=False)
                arrays = {n: _mapped(folder, about) for n, about in body["arrays"].items()}
                break
            except FileNotFoundError:  # where a save has replaced it just now, there is another
                if manifest == before:
                    raise
        if (found := body["kind"][:40]) != kind:
            raise CheckpointError(
                f'{folder}: holds a "{found}", expected a "{kind}". Write {found}.load(path).'
            )
        if len(payload) != body["bytes"] or hashlib.sha256(payload).hexdigest() != body["sha256"]:
            raise ValueError(f"a damaged {body['tensors']} of {len(payload):,} bytes")
        return safetensors.torch.load(payload) | arrays, body["config"]


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
    _check(place.name, found, {"format": int, "seal": str, "body": str})
    if newer != version or _digest(found["body"]) != found["seal"]:
        raise ValueError(f"a {place.name} that was altered after it was saved")
    return json.loads(found["body"])


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


def _body(folder: Path, manifest: bytes) -> dict[str, Any]:
    """The content of a manifest that is as it was saved."""
    body = unsealed(folder / _MANIFEST, manifest, FORMAT, "checkpoint")
    if isinstance(body, dict):
        body.setdefault("arrays", {})
    types = {"kind": str, "tensors": str, "bytes": int, "sha256": str, "config": dict}
    _check(_MANIFEST, body, types | {"arrays": dict})
    # Names follow from the content, so that no other file can be meant.
    is_digest = re.fullmatch(_DIGEST, body["sha256"])
    if not is_digest or body["tensors"] != _tensors_name(body["sha256"]):
        raise ValueError(f"the name {body['tensors']!r}, which save never gives to tensors")
    for about in body["arrays"].values():
        _check(_MANIFEST, about, {"dtype": str, "shape": list, "sha256": str})
        if not re.fullmatch(_DIGEST, about["sha256"]):
            raise ValueError("an array without a digest")
    return body


def _about_array(array: np.ndarray) -> dict[str, Any]:
    kind = {"dtype": array.dtype.str, "shape": list(array.shape)}
    return kind | {"sha256": hash_of(blocks_of(array))}


def _mapped(folder: Path, about: dict[str, Any]) -> MappedArray:
    file = folder / _array_name(about["sha256"])
    array = map_file(file, np.dtype(about["dtype"]), tuple(about["shape"]))
    if hash_of(blocks_of(array)) != about["sha256"]:
        raise ValueError(f"a damaged {file.name} of {array.nbytes:,} bytes")
    return MappedArray(array)


def _check(name: str, found: Any, types: dict[str, type]) -> None:
    kinds = {k: type(v) for k, v in found.items()} if isinstance(found, dict) else type(found)
    if kinds != types:
        raise ValueError(f"{kinds} in {name}, where {types} should be")


def _array_name(digest: str) -> str:
    return f"array-{digest[:16]}.bin"


def _tensors_name(digest: str) -> str:
    return f"tensors-{digest[:16]}.safetensors"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
