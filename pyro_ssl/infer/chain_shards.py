"""The draws of a distributed run: each rank saves the paths of its own sequences.

Read ``shards.py`` first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..reading.program import ModelRun
from .draws import Keep
from .path_memory import sequence_index
from .plain import OfRank, OfRanks
from .shards import dealt, rows_first

__all__ = ["ChainShards"]


class ChainShards:
    """Takes draws apart into what all ranks share and what is of this one, and puts them together.

    :param runs: the model, one run for each block of paths.
    :param keep: what is kept of draws; see :class:`~.draws.Draws`.
    :param bool several: whether chains are a dimension of a path.
    """

    def __init__(self, runs: Sequence[ModelRun], keep: Keep, several: bool) -> None:
        self._run = {name: run for run in runs for name in run.paths.names}
        self._keep, self._dim = keep, int(several)

    def apart(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        """Take one draw apart: values by site."""
        own = {n: self._flat(n, value, self._dim) for n, value in params.items() if n in self._run}
        return self._marked(own, params)

    def together(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the draw that :meth:`apart` was given, of the sequences that are here now."""
        own = self._dealt(state["own"], self._dim)
        return {n: own[n] if n in own else state["shared"][n] for n in state["names"]}

    def draws_apart(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Take the state of :class:`~.draws.Draws` apart."""
        kept, counts = state["kept"], state["counts"]
        if callable(self._keep):  # which may have made anything of a rank's draw
            return {**state, "kept": OfRank(kept), "counts": {}}
        own = {n: [self._flat(n, z, 1) for z in kept[n]] for n in kept if n in self._run}
        visits = {name: self._flat(name, count, 0) for name, count in counts.items()}
        kept, counts = self._marked(own, kept), self._marked(visits, counts)
        return {**state, "kept": kept, "counts": counts}

    def draws_together(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state that :meth:`draws_apart` was given, of the sequences here."""
        kept = state["kept"]
        if isinstance(kept, OfRanks):
            if not kept.are_these:
                raise CheckpointError(
                    f"found draws that keep= has made of the sequences of each of {len(kept)} "
                    f"ranks, expected as many ranks: write torchrun --nproc-per-node {len(kept)}."
                )
            return {**state, "kept": kept.mine}
        own = self._dealt(kept["own"], 1)
        found = {n: own[n] if n in own else kept["shared"][n] for n in kept["names"]}
        return {**state, "kept": found, "counts": self._dealt(state["counts"]["own"], 0)}

    @property
    def layout(self) -> dict[str, Any]:
        """What whoever has no model needs, to read the draws."""
        sizes, shapes = {}, {}
        for name, run in self._run.items():
            sizes[name] = run.paths.sizes[run.paths.names.index(name)]
            shapes[name] = run.full_shape
        blocks = dict.fromkeys(run.loop.name for run in self._run.values())
        return {"states": sizes, "shapes": shapes, "blocks": [*blocks]}

    def _marked(self, own: dict[str, Any], everything: Mapping[str, Any]) -> dict[str, Any]:
        places = {name: sequence_index(self._run[name]) for name in own}
        marked = OfRank({"places": places, "values": own})
        shared = {name: value for name, value in everything.items() if name not in own}
        return {"own": marked, "shared": shared, "names": [*everything]}

    def _flat(self, name: str, value: Tensor, dim: int) -> Tensor:
        return rows_first(value, dim, self._run[name].loop.batch_shape)

    def _dealt(self, each: OfRanks, dim: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in each[0]["values"]:
            run, places = self._run[name], [own["places"][name] for own in each]
            values = [own["values"][name] for own in each]
            if isinstance(values[0], list):
                found[name] = [dealt(list(z), places, run, dim) for z in zip(*values, strict=True)]
            else:
                found[name] = dealt(values, places, run, dim)
        return found
