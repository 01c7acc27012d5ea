"""Saving without pickle: tensors as safetensors, the rest as JSON, both guarded by SHA-256.

A checkpoint is a folder. The manifest is written last and names the tensors' file by its hash, so
that a save cut short at any moment leaves the previous checkpoint whole. Loading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["load_checkpoint", "save_checkpoint"]

_MANIFEST = "manifest.json"


def save_checkpoint(
    path: str | os.PathLike[str], kind: str, tensors: dict[str, Tensor], config: dict[str, Any]
) -> None:
    """Write a checkpoint folder, replacing what was saved there before.

    :param str kind: what is saved; :func:`load_checkpoint` asks for the same.
    :param dict tensors: saved contiguous, on the CPU.
    :param dict config: anything JSON can hold.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    payload = safetensors.torch.save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})
    digest = hashlib.sha256(payload).hexdigest()
    name = f"tensors-{digest[:16]}.safetensors"
    _write_durably(folder / name, payload)
    body = {"kind": kind, "tensors": name, "sha256": digest, "config": config}
    text = json.dumps(body, indent=1, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    _write_durably(folder / _MANIFEST, json.dumps({"seal": seal, "body": text}).encode())
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint folder: its tensors and its config.

    :raises CheckpointError: if it is missing, of another kind, cut short, or altered.
    """
    folder = Path(path)
    try:
        sealed = json.loads((folder / _MANIFEST).read_bytes())
        text = sealed["body"]
        if hashlib.sha256(text.encode()).hexdigest() != sealed["seal"]:
            raise CheckpointError(f"{folder}: {_MANIFEST} was altered after it was saved.")
        body = json.loads(text)
        payload = (folder / body["tensors"]).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: no checkpoint here ({error.filename} is missing); expected a folder that "
            "save(path) wrote."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder}: {_MANIFEST} is damaged ({error}).") from error
    if body["kind"] != kind:
        raise CheckpointError(f'{folder}: holds a "{body["kind"]}", expected a "{kind}".')
    if hashlib.sha256(payload).hexdigest() != body["sha256"]:
        raise CheckpointError(f"{folder}: {body['tensors']} is damaged: its SHA-256 differs.")
    try:
        return safetensors.torch.load(payload), body["config"]
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: {body['tensors']} cannot be read ({error}).") from error


def _write_durably(path: Path, payload: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
