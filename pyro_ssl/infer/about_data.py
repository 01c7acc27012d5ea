"""The data of a run in a few words and digests, whichever rank has which sequences.

Read ``about.py`` first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..distributed import current
from ..reading.program import ModelRun
from .about import described
from .path_memory import sequence_index

__all__ = ["data_of"]


def data_of(runs: Iterable[ModelRun]) -> dict[str, Any]:
    """Return what is given in some runs of a model, by site: values, masks, labels, lengths.

    It is the same whichever sequences of a distributed run are whose.
    """
    found: dict[str, Any] = {}
    for run in runs:
        name, grid = run.loop.name, run.grid
        flat = {"lengths": (grid.lengths, 0), "scale": (grid.transition_scale, 0)}
        flat["inputs"] = run.inputs, 1
        seen: dict[str, Any] = {
            f"{what} of {name}": None if value is None else _OfSequences(value, dim)
            for what, (value, dim) in flat.items()
        }
        for site in grid.sites:  # labels of a path are one of them
            parts = {"": site.value, "mask of ": site.mask, "scale of ": site.scale}
            of_loop = {what: _placed(value, run) for what, value in parts.items()}
            of_loop[""] = _placed(site.value, run, site.fn.event_dim)
            seen |= {part + site.name: value for part, value in of_loop.items()}
        elsewhere = {
            n: _placed(s["value"], run, s["fn"].event_dim)
            for n, s in run.sites.items()
            if s["is_observed"] and n not in run.program.given_paths
        }
        for what, value in (seen | elsewhere).items():
            if isinstance(value, _OfSequences):
                found[what] = _digest_of_sequences(value, run)
            else:
                found[what] = described(value)
    return found


class _OfSequences(NamedTuple):
    """A tensor with the B sequences of a run at dimension ``dim``."""

    value: Tensor
    dim: int


def _placed(value: Any, run: ModelRun, event_dim: int = 0) -> Any:
    """A value whose batch dimensions end in the plates', as one of sequences."""
    shape = run.loop.batch_shape
    if not isinstance(value, Tensor) or not shape:
        return value
    end = value.dim() - event_dim
    start = end - len(shape)
    if start < 0 or value.shape[start:end] != shape:
        return value
    return _OfSequences(value.flatten(start, end - 1), start)


def _digest_of_sequences(given: _OfSequences, run: ModelRun) -> str:
    """The digest of a tensor of all ranks: a sum over sequences, of each with its place."""
    value, dim = given
    rows = value.detach().movedim(dim, 0).cpu().contiguous()
    content = rows.reshape(len(rows), math.prod(rows.shape[1:])).view(torch.uint8).numpy()
    total = 0
    for place, row in zip(sequence_index(run).tolist(), content, strict=True):
        hashed = hashlib.sha256(place.to_bytes(8, "little") + row.tobytes()).digest()
        total += int.from_bytes(hashed[:4], "little")
    size, total = current().totals(f"the digest of {run.loop.name}", len(rows), total % 2**32)
    shape = tuple(value.shape[:dim]) + (int(size),) + tuple(value.shape[dim + 1 :])
    return f"{str(value.dtype).removeprefix('torch.')} {shape} {int(total) % 2**32:08x}"
