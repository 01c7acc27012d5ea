"""What ranks hold of their own sequences: saved by each, and dealt out anew to any number of them.

A sequence is known by its place in the plates. As many ranks as before take up what each had; of
other ranks each takes the sequences that are its own by :meth:`~pyro_ssl.distributed.Ranks.part`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..distributed import current
from ..errors import CheckpointError
from ..reading.program import ModelRun
from ..smc.surrogate_product import from_sums
from .path_memory import PathMemory, sequence_index
from .path_rows import zero_rows
from .plain import OfRank, OfRanks

__all__ = [
    "check_own",
    "dealt",
    "memory_state",
    "own_twisting",
    "put_memory",
    "rows_first",
    "twisting_state",
]

_OF_RANK = ("_along", "_sums", "_fitted")


# ------------------------------------------------------------------------- paths of minibatches


def memory_state(memory: PathMemory) -> dict[str, Any]:
    """Return what is known of a memory's sequences."""
    own = None
    if memory._paths is not None and memory._known is not None:
        index = memory._known.nonzero().flatten()
        paths = memory._paths[index.to(memory._paths.device), : memory._num_steps]
        own = {"index": index, "paths": paths}
    shape, sites = memory._full_shape, memory._sites
    return {"own": OfRank(own), "full_shape": shape, "sites": sites}


def put_memory(memory: PathMemory, state: Mapping[str, Any]) -> None:
    """Give a memory the paths of this rank's sequences."""
    memory._full_shape, memory._sites = state["full_shape"], state["sites"]
    memory._paths = memory._known = None
    each = [own for own in state["own"] if own is not None]
    if not each:
        return
    index, paths = _own_of(state["own"]) if state["own"].are_these else _joined(each)
    mine = slice(None) if state["own"].are_these else current().owns(index)
    N, T = memory._full_shape.numel(), max(own["paths"].shape[1] for own in each)
    like = each[0]["paths"]
    memory._paths = zero_rows((N, T, *like.shape[2:]), like, memory.folder)
    memory._known = torch.zeros(N, dtype=torch.bool, device=index.device)
    memory._num_steps = T
    memory._paths[index[mine].to(memory._paths.device), : paths.shape[1]] = paths[mine].to(
        memory._paths.device
    )
    memory._known[index[mine]] = True


def check_own(place: Any, run: ModelRun, memory: PathMemory, each: OfRanks) -> None:
    """Check that a run's sequences have no path on another rank.

    :param place: of the checkpoint.
    :raises CheckpointError: if one has.
    """
    known = [own["index"] for own in each if own is not None]
    if not known or memory._known is None:
        return
    index = sequence_index(run)
    elsewhere = torch.isin(index, torch.cat(known).to(index.device)) & ~memory._known[index]
    if bool(elsewhere.any()):
        ranks = current()
        raise CheckpointError(
            f"{place}: sequence {int(index[elsewhere][0])} is given to rank {ranks.rank} of "
            f"{ranks.size}, and its path is with another one, expected the sequences that were its "
            "own, or of other ranks than then those of ranks.part(index): write that, or "
            "ranks.minibatches(N, size)."
        )


def _own_of(each: OfRanks) -> tuple[Tensor, Tensor]:
    own = each.mine
    if own is None:  # a rank that has met no sequence yet
        other = next(one for one in each if one is not None)
        return other["index"][:0], other["paths"][:0]
    return own["index"], own["paths"]


def _joined(each: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    T = max(own["paths"].shape[1] for own in each)
    pad = [(0, 0) * (own["paths"].dim() - 2) + (0, T - own["paths"].shape[1]) for own in each]
    paths = [
        torch.nn.functional.pad(own["paths"], width) for own, width in zip(each, pad, strict=True)
    ]
    return torch.cat([own["index"] for own in each]), torch.cat(paths)


# ----------------------------------------------------------------------- sequences of one run


def rows_first(value: Tensor, dim: int, batch_shape: torch.Size) -> Tensor:
    """Lay the batch out flat, at dimension ``dim``."""
    after = value.shape[dim + len(batch_shape) :]
    return value.reshape(*value.shape[:dim], batch_shape.numel(), *after)


def dealt(each: list[Any], places: list[Tensor], run: ModelRun, dim: int) -> Tensor:
    """Return what ranks held of sequences, for those of a run.

    :param each: every rank's tensor, with its sequences at dimension ``dim``.
    :param places: which these are.
    :raises ValueError: if one is missing.
    """
    now, shape = sequence_index(run), run.loop.batch_shape
    where = torch.cat(places)
    order = where.argsort()
    at = torch.searchsorted(where[order], now).clamp(max=len(where) - 1)
    if not torch.equal(where[order][at], now):
        raise ValueError("sequences that no rank held")
    value = torch.cat(each, dim).index_select(dim, order[at])
    return value.reshape(*value.shape[:dim], *shape, *value.shape[dim + 1 :])


# ------------------------------------------------------------------------------------ twists


def twisting_state(state: dict[str, Any]) -> dict[str, Any]:
    """Mark what ranks have of their own in the state of a twist."""
    return {name: OfRank(v) if name in _OF_RANK else v for name, v in state.items()}


def own_twisting(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a twist as it is on this rank."""
    these = state["_sums"].are_these
    own = {name: state[name].mine if these else state[name][0] for name in _OF_RANK}
    if not these:
        own["_sums"] = _shared_out([sums for sums in state["_sums"] if sums is not None])
    if own["_sums"] is not None and own["_along"] is None and not current().active:
        own["_along"] = from_sums(own["_sums"])
    return {**state, **own}


def _shared_out(each: list[Any]) -> Any:
    """Sums over all sequences, as rank 0's; they are added up whenever they are used."""
    if not each:
        return None
    weight = float(current().rank == 0)
    return [
        tuple(weight * sum(parts) for parts in zip(*pairs, strict=True))
        for pairs in zip(*each, strict=True)
    ]
