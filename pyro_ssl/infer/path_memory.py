"""The last path of every sequence, by the indices of the plates around the loop."""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from ..reading.paths import PathSites
from ..reading.program import ModelRun
from .about import digest
from .path_rows import longer_rows, pad_steps, rows_like, zero_rows
from .small import smallest_type

__all__ = ["PathMemory", "about_paths", "data_of_all", "sequence_index"]


class PathMemory:
    """Keeps the last drawn path of each sequence of the full data, and where it was drawn.

    A plate with ``subsample`` says which sequences a run holds. Without one, the data are taken to
    be the same at each step; where they are seen to differ, all paths are forgotten, with a
    warning. After minibatches, all sequences at once are taken to be those of the minibatches.

    States are kept in the smallest type that holds them.

    :param folder: keep them there, in a file without a name; by default in memory.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = folder
        self._paths: Tensor | None = None  # (N, T, ...), N over the full batch shape; T may be more
        self._known: Tensor | None = None  # (N,)
        self._full_shape: torch.Size = torch.Size()
        self._num_steps = 0  # the most that a run had
        # what was observed of all sequences, by site, if the last run held all
        self._values: dict[str, Tensor] | None = None
        self._sites: PathSites | None = None

    def __bool__(self) -> bool:
        return self._paths is not None

    def anew(self) -> PathMemory:
        """Return an empty memory of the same place."""
        return PathMemory(self.folder)

    def copy(self) -> PathMemory:
        """Return a memory that goes on independently."""
        new = copy.copy(self)
        if self._paths is not None and self._known is not None:
            new._paths, new._known = rows_like(self._paths, self.folder), self._known.clone()
        return new

    @property
    def num_sequences(self) -> int:
        """N, the number of sequences of the full data."""
        return self._full_shape.numel()

    @property
    def num_known(self) -> int:
        """Number of sequences that have a path."""
        return 0 if self._known is None else int(self._known.sum())

    @property
    def paths(self) -> Any:
        """The last paths, full batch shape ``+ (T, ...)``; 0 where none was drawn yet.

        By site where the loop has several chains.
        """
        paths = self.by_site
        several = self._sites is not None and self._sites.several
        return paths if several else next(iter(paths.values()))

    @property
    def by_site(self) -> dict[str, Tensor]:
        """The same, by site in any case."""
        if self._paths is None or self._sites is None:
            raise RuntimeError("No path was drawn yet; write em.step(...) first.")
        paths = self._paths[:, : self._num_steps]
        paths = paths if paths.is_floating_point() else paths.long()
        return self._sites.split(paths.reshape(self._full_shape + paths.shape[1:]))

    def about(self) -> dict[str, dict[str, Any]]:
        """Return :func:`about_paths` of the paths that are kept."""
        if self._sites is None:
            return {"model": {}, "data": {}}
        return about_paths(self._sites, self._full_shape, self._values)

    def recall(self, run: ModelRun) -> tuple[Tensor, Tensor]:
        """Return the paths ``(T, B, ...)`` of a run's sequences, and which are known, ``(B,)``."""
        T, B = run.loop.num_steps, run.num_sequences
        stale = self.is_stale(run)
        if stale:
            plates = ", ".join(f'"{frame.name}"' for frame in run.loop.plates) or "none"
            warnings.warn(
                f'Site "{run.loop.name}": the data differ from the last step\'s, and its plates '
                f"({plates}) do not say which sequences these are, so all paths start anew. For "
                "minibatches write pyro.plate(name, N, subsample=index) around the loop.",
                UserWarning,
                stacklevel=4,
            )
        if stale or self._paths is None or self._known is None:
            unknown = torch.zeros(B, dtype=torch.bool, device=run.loop.device)
            return run.zero_path(), unknown
        index = sequence_index(run)
        rows = pad_steps(self._paths[index.to(self._paths.device)], T)[:, :T].to(index.device)
        rows = rows if rows.is_floating_point() else rows.long()
        return rows.transpose(0, 1).contiguous(), self._known[index]

    def store(self, run: ModelRun, path: Tensor) -> None:
        """Keep the paths ``(T, B, ...)`` of a run's sequences, of each its last in the run."""
        T, device = run.loop.num_steps, path.device
        if self.is_stale(run) or self._paths is None or self._known is None:
            self._full_shape, self._num_steps = run.full_shape, T
            N, dtype = self._full_shape.numel(), path.dtype
            if run.is_discrete:
                dtype = smallest_type(run.transition.num_states - 1)
            like = torch.empty(0, dtype=dtype, device=device)
            self._paths = zero_rows((N, T, *path.shape[2:]), like, self.folder)
            self._known = torch.zeros(N, dtype=torch.bool, device=device)
        self._paths = longer_rows(self._paths, T, self.folder)
        last = self.last_of_each(run)
        index, rows = sequence_index(run)[last], path.transpose(0, 1)[last]
        self._paths[index.to(self._paths.device), :T] = rows.to(self._paths)
        self._num_steps = max(self._num_steps, T)
        self._known[index], self._sites = True, run.paths
        self.keep_data(run)

    def keep_data(self, run: ModelRun) -> None:
        """Take a run's data, where it holds all sequences, for those of the paths."""
        self._values = data_of_all(run)

    def last_of_each(self, run: ModelRun) -> Tensor:
        """Return where a sequence of a run stands for the last time, bool ``(B,)``.

        Where a subsample is drawn with replacement a sequence may stand in it more than once.
        """
        index = sequence_index(run)
        place = torch.arange(len(index), device=index.device)
        last = place.new_zeros(run.full_shape.numel()).scatter_reduce(0, index, place, "amax")
        return last[index] == place

    def is_stale(self, run: ModelRun) -> bool:
        """Whether the paths are of other data than a run's."""
        if self._paths is None:
            return False
        if run.paths != self._sites:
            return True
        values = self._values
        if run.full_shape != self._full_shape or run.subsample_factor != 1.0 or values is None:
            return run.full_shape != self._full_shape
        now = {site.name: site.value for site in run.grid.sites}
        return now.keys() != values.keys() or not all(_same(now[n], values[n]) for n in now)


def about_paths(
    sites: PathSites, full_shape: torch.Size, values: dict[str, Tensor] | None
) -> dict[str, dict[str, Any]]:
    """Return in words what paths are of: the ``model``'s, and the ``data``, digested, if known."""
    found: dict[str, Any] = {"sequences": list(full_shape)}
    for name, size in zip(sites.names, sites.sizes, strict=True):
        found[f"states of {name}"] = size
    return {"model": found, "data": {name: digest(v) for name, v in (values or {}).items()}}


def data_of_all(run: ModelRun) -> dict[str, Tensor] | None:
    """Return what was observed, by site, if a run holds all sequences."""
    if run.subsample_factor != 1.0:
        return None
    return {site.name: site.value for site in run.grid.sites}


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, NaN at the same places."""
    if a is b or a.shape != b.shape:
        return a is b
    return bool(((a == b) | ((a != a) & (b != b))).all())


def sequence_index(run: ModelRun) -> Tensor:
    """Place of each of a run's B sequences in the full, flattened batch."""
    full, device = run.full_shape, run.loop.device
    index = torch.zeros(run.loop.batch_shape, dtype=torch.long, device=device)
    stride = 1
    for dim in range(-1, -len(full) - 1, -1):
        here = torch.arange(run.loop.batch_shape[dim], device=device)
        for frame in run.loop.plates:
            if frame.dim == dim:
                here = torch.as_tensor(run.subsamples.get(frame.name, here), device=device)
        index = index + stride * here.reshape((-1,) + (1,) * (-dim - 1))
        stride *= full[dim]
    return index.reshape(-1)
