"""The draws of a run as its checkpoints have them, for whoever has neither model nor data.

Next file to read: ``chain_run.py``, which saves them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..storage import reading
from .diagnostics import Diagnostics
from .draws import Draws
from .has_draws import HasDraws
from .run_files import RunFiles
from .run_state import put_state
from .told import table, told
from .twisting import Twisting

__all__ = ["SavedDraws"]


class SavedDraws(HasDraws):
    """Draws that a run has saved so far: see :meth:`ParticleGibbs.load_draws`.

    ``num_draws`` of each chain were kept, after ``num_warmup`` of the warm-up, both so far.

    :param path: the folder of its checkpoints.
    :raises CheckpointError: if there is none that is whole.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        about, state = RunFiles(path, "ParticleGibbs", alone=True).load()
        with reading(path):
            layout, kept = state["layout"], state["draws"]["kept"]
            draws = Draws("paths", layout["thinning"], layout["warmup_steps"], layout["states"])
            self._keep = about["settings"]["keep"]
            if self._keep in ("paths", "occupancy"):
                counts = _whole(state["draws"]["counts"], 0, layout["shapes"])
                found = {"kept": _whole(kept, 1, layout["shapes"]), "counts": counts}
            elif len(kept) == 1:
                found = {"kept": kept[0], "counts": {}}
            else:
                raise CheckpointError(
                    f"{path}: found draws that keep= has made on each of {len(kept)} ranks, "
                    'expected those of sequences: write keep="occupancy" or "paths" in the run.'
                )
            draws.state = state["draws"] | found
            self._samples, self._occupancy = draws.samples(), draws.occupancy()
            self._paths, self._thinning = layout["states"], layout["thinning"]
            self.kernel = _Kernels(layout["blocks"], state["kernels"])  # type: ignore[assignment]
        self.num_draws, self.num_warmup = len(draws), min(draws.seen, draws.warmup_steps)

    def to_arviz(self, *, log_likelihood: bool = False) -> Any:
        """Return nothing: ArviZ's groups need model and data.

        :raises ValueError: with the line to write instead.
        """
        raise ValueError(
            "SavedDraws.to_arviz: found draws without their model, expected a run: write "
            "pg.run(*args, num_samples=..., checkpoint=..., resume=True), which goes on from them, "
            "and then pg.to_arviz()."
        )


class _Kernels:
    """What kernels told when they were saved."""

    def __init__(self, blocks: Sequence[str], states: Sequence[Mapping[str, Any]]) -> None:
        self._each: dict[str, tuple[Diagnostics, Twisting]] = {}
        for name, state in zip(blocks, states, strict=True):
            self._each[name] = one = Diagnostics(), Twisting("markov")
            put_state(one[0], state["diagnostics"])
            put_state(one[1], state["twisting"])

    def diagnostics(self) -> dict[str, Any]:
        """Return what :meth:`HasDraws.diagnostics` does."""
        found = {name: told(*one, {}) for name, one in self._each.items()}
        return found if len(found) > 1 else next(iter(found.values()))

    def format(self) -> str:
        """Return the same as tables."""
        tables = [table(*one, {}) for one in self._each.values()]
        named = [f"{name}\n{text}" for name, text in zip(self._each, tables, strict=True)]
        return "\n\n".join(named) if len(named) > 1 else tables[0]


def _whole(state: Mapping[str, Any], dim: int, shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
    """What all ranks have saved, in the order of sequences."""
    found: dict[str, Any] = dict(state["shared"])
    for name in state["own"][0]["values"]:
        order = torch.cat([own["places"][name] for own in state["own"]]).argsort()
        each = [own["values"][name] for own in state["own"]]

        def put_together(parts: Sequence[Tensor], name: str = name, order: Tensor = order) -> Any:
            value = torch.cat(list(parts), dim).index_select(dim, order)
            return value.unflatten(dim, shapes[name]) if shapes[name] else value.squeeze(dim)

        if isinstance(each[0], list):
            found[name] = [put_together(parts) for parts in zip(*each, strict=True)]
        else:
            found[name] = put_together(each)
    return {name: found[name] for name in state["names"]}
