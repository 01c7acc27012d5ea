"""The draws of chains as they come: kept, thinned, or reduced at once to what is wanted of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..arguments import at_least
from ..errors import CheckpointError
from .draw_files import DrawFiles
from .small import smallest, smallest_type

__all__ = ["Draws", "Keep", "check_keep", "occupancy_of"]

#: ``"paths"``, ``"occupancy"``, or what makes of one draw a dict of tensors to keep
Keep = str | Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def check_keep(keep: Any, thinning: Any, num_samples: int, every: Any) -> None:
    """Check the arguments of these names.

    :raises ValueError: if one is out of range.
    """
    if keep not in ("paths", "occupancy") and not callable(keep):
        raise ValueError(
            f'keep is {keep!r}, expected "paths", "occupancy", or a function of one draw: write '
            'keep=lambda draw: {"ends": draw["z"][..., -1]}.'
        )
    if not at_least(1, thinning) or thinning > num_samples:
        raise ValueError(
            f"thinning is {thinning}, expected a whole number from 1 to num_samples={num_samples}: "
            "of so many draws the last is kept."
        )
    if not at_least(1, every):
        raise ValueError(f"every is {every}, expected draws between two saves: write every=100.")


class Draws:
    """Takes in one draw of all chains after the other.

    :param keep: ``"paths"``: all sites; ``"occupancy"``: how often each state was visited, in place
        of paths; or a function of one chain's draw, whose dict is kept in its place.
    :param int thinning: of every so many draws the last is kept.
    :param int warmup_steps: draws that are thrown away at the start.
    :param dict paths: number of states of each path, by site; 0 of vectors.
    :param DrawFiles files: where what is kept goes; ``None``: it stays in memory.
    :raises ValueError: if vectors are to be counted.

    Example::

        >>> draws = Draws("paths", 2, 0, {"z": 3})
        >>> for n in range(4):
        ...     draws.add({"z": torch.full((1, 5), n % 3)})
        >>> draws.samples()["z"].shape, draws.samples()["z"].dtype
        (torch.Size([1, 2, 5]), torch.uint8)
    """

    def __init__(
        self,
        keep: Keep,
        thinning: int,
        warmup_steps: int,
        paths: Mapping[str, int],
        files: DrawFiles | None = None,
    ) -> None:
        self.keep, self.thinning, self.warmup_steps = keep, thinning, warmup_steps
        self.paths, self.files = dict(paths), files
        if keep == "occupancy" and not all(self.paths.values()):
            raise ValueError(
                f'keep="occupancy" counts states, and the paths {sorted(self.paths)} are of '
                "vectors; expected a function of one draw: write "
                'keep=lambda draw: {"mean": draw["z"].mean(0)}.'
            )
        #: draws taken in, those thrown away too
        self.seen = 0
        self._kept: list[dict[str, Tensor]] = []
        self._counts: dict[str, Tensor] = {}  # by path, (..., T, K), int32

    def __len__(self) -> int:
        """Draws that were kept, per chain."""
        return max(self.seen - self.warmup_steps, 0) // self.thinning

    def add(self, draw: Mapping[str, Tensor]) -> None:
        """Take in a draw, by site, chains first."""
        after = self.seen + 1 - self.warmup_steps
        if after > 0 and after % self.thinning == 0:
            (self._kept if self.files is None else self.files).append(self._reduced(draw))
        self.seen += 1

    def needed(self, draw: Mapping[str, Tensor], num_updates: int) -> dict[str, int]:
        """Return the bytes of memory that so many draws like one will take, by what they are.

        The list of them and the tensor that is made of it at the end. What a function keeps is not
        known before it is called.
        """
        number = max(num_updates - self.warmup_steps, 0) // self.thinning
        if self.keep not in ("paths", "occupancy"):
            return {}
        found = {}
        for name, value in draw.items():
            size = self.paths.get(name)
            what = f"{number:,} draws of {name} {tuple(value.shape)}"
            dtype = smallest_type(size - 1) if size else value.dtype
            if self.keep == "occupancy" and size:
                # Counts in int32, and what is made of them in float64.
                found[f"visits of {name}"] = 20 * value[0].numel() * size
            elif self.files is None:
                found[what] = 2 * number * value.numel() * dtype.itemsize
        return found

    def samples(self) -> dict[str, Tensor]:
        """Return what was kept, by name, ``(C, S, ...)``; states in the smallest type."""
        if self.files is not None:
            return self.files.samples()
        names = self._kept[0] if self._kept else {}
        return {n: torch.stack([draw[n] for draw in self._kept]).transpose(0, 1) for n in names}

    def occupancy(self) -> dict[str, Tensor] | None:
        """Return the share of draws in each state, ``(T, ..., K)``, where they were counted."""
        return {n: _shares(count) for n, count in self._counts.items()} or None

    @property
    def state(self) -> dict[str, Any]:
        """All that was kept so far; to be set, to go on from there."""
        names = self._kept[0] if self._kept else {}
        kept = {name: [draw[name] for draw in self._kept] for name in names}
        state = {"seen": self.seen, "number": len(self._kept), "kept": kept, "counts": self._counts}
        return state if self.files is None else state | {"files": self.files.state}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.seen, self._counts, kept = state["seen"], state["counts"], state["kept"]
        each = range(state["number"])
        draws = [{name: values[i] for name, values in kept.items()} for i in each]
        if "files" not in state:
            for draw in draws:
                (self._kept if self.files is None else self.files).append(draw)
        elif self.files is not None:
            self.files.state = state["files"]
        else:
            raise CheckpointError(
                "The draws of this run are in a folder of their own, and none was given, expected "
                "it; write draws_folder= with the folder that it had."
            )

    def _reduced(self, draw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        small = {
            name: smallest(value, self.paths[name] - 1) if self.paths.get(name) else value
            for name, value in draw.items()
        }
        if self.keep == "paths":
            return small
        if self.keep == "occupancy":
            for name in self.paths:
                self._count(name, draw[name])
            return {name: value for name, value in small.items() if name not in self.paths}
        assert callable(self.keep)
        num_chains = len(next(iter(draw.values())))
        each = [self.keep({n: value[c] for n, value in draw.items()}) for c in range(num_chains)]
        for found in each:
            if not isinstance(found, Mapping) or not all(
                isinstance(value, Tensor) for value in found.values()
            ):
                raise TypeError(
                    f"keep returned a {type(found).__name__}, expected a dict of tensors: write "
                    'keep=lambda draw: {"ends": draw["z"][..., -1]}.'
                )
        return {name: torch.stack([found[name] for found in each]).detach() for name in each[0]}

    def _count(self, name: str, paths: Tensor) -> None:
        if name not in self._counts:
            shape = (*paths.shape[1:], self.paths[name])
            self._counts[name] = paths.new_zeros(shape, dtype=torch.int32)
        _add_visits(self._counts[name], paths)


def occupancy_of(samples: Mapping[str, Tensor], paths: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the share of draws in each state, float64 ``(T, ..., K)``, by path.

    :param samples: paths ``(C, S, ..., T)``, by site.
    :param paths: K of each.
    """
    found = {}
    for name, size in paths.items():
        chains = samples[name]
        counts = chains.new_zeros((*chains.shape[2:], size), dtype=torch.int32)
        for chain in chains:
            _add_visits(counts, chain)
        found[name] = _shares(counts)
    return found


def _add_visits(counts: Tensor, paths: Tensor) -> None:
    """Count the states of paths ``(N, ..., T)`` into ``(..., T, K)``, in place."""
    for path in paths:
        index = path.long().unsqueeze(-1)
        counts.scatter_add_(-1, index, torch.ones_like(index, dtype=counts.dtype))


def _shares(counts: Tensor) -> Tensor:
    """Counts ``(..., T, K)`` as shares, time first, float64."""
    return (counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)).movedim(-2, 0)
