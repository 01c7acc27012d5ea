"""Saving without pickle: tensors as safetensors, the rest as JSON, both guarded by SHA-256.

A checkpoint is a folder. The manifest is written last and names the tensors' file by its hash, so
that a save cut short at any moment leaves the previous checkpoint whole. Loading runs no code,
opens no file but these two, and reads no more than they are said to hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from .errors import CheckpointError
from .storage import read_file, reading, write_durably

__all__ = ["load_checkpoint", "reading", "save_checkpoint"]

#: Version of the layout: one more with each change after which older versions cannot read it.
FORMAT = 1

_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 32 * 2**20


def save_checkpoint(
    path: str | os.PathLike[str], kind: str, tensors: dict[str, Tensor], config: dict[str, Any]
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
    payload = safetensors.torch.save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})
    digest = hashlib.sha256(payload).hexdigest()
    name = _tensors_name(digest)
    body = {"kind": kind, "tensors": name, "bytes": len(payload), "sha256": digest}
    text = json.dumps(body | {"config": config}, sort_keys=True, separators=(",", ":"))
    sealed = {"format": FORMAT, "seal": _digest(text), "body": text}
    manifest = json.dumps(sealed, indent=1).encode()
    if len(manifest) > _LARGEST_MANIFEST:
        raise ValueError(
            f"{path}: found a config of {len(manifest):,} bytes, expected at most "
            f"{_LARGEST_MANIFEST:,}. Save a smaller vocabulary or a shorter history."
        )
    write_durably(folder, {name: payload, _MANIFEST: manifest}, stale="tensors-*.safetensors")


def load_checkpoint(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint folder: its tensors and its config.

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
            body = _unsealed(folder, manifest)
            try:
                payload = read_file(folder / body["tensors"], body["bytes"], links=False)
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
        return safetensors.torch.load(payload), body["config"]


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


def _unsealed(folder: Path, manifest: bytes) -> dict[str, Any]:
    """The content of a manifest that is as it was saved."""
    sealed = json.loads(manifest)
    version = sealed["format"] if isinstance(sealed, dict) and "format" in sealed else None
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"{folder}: found a checkpoint of format {version}, expected {FORMAT} at most: a newer "
            "version of pyro_ssl saved it. Write pip install --upgrade pyro-ssl."
        )
    _check(sealed, {"format": int, "seal": str, "body": str})
    if version != FORMAT or _digest(sealed["body"]) != sealed["seal"]:
        raise ValueError(f"a {_MANIFEST} that was altered after it was saved")
    body = json.loads(sealed["body"])
    _check(body, {"kind": str, "tensors": str, "bytes": int, "sha256": str, "config": dict})
    # The name follows from the content, so that no other file can be meant.
    is_digest = re.fullmatch("[0-9a-f]{64}", body["sha256"])
    if not is_digest or body["tensors"] != _tensors_name(body["sha256"]):
        raise ValueError(f"the name {body['tensors']!r}, which save never gives to tensors")
    return body


def _check(found: Any, types: dict[str, type]) -> None:
    kinds = {k: type(v) for k, v in found.items()} if isinstance(found, dict) else type(found)
    if kinds != types:
        raise ValueError(f"{kinds} in {_MANIFEST}, where {types} should be")


def _tensors_name(digest: str) -> str:
    return f"tensors-{digest[:16]}.safetensors"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
