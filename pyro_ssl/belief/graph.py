r"""Which units of a recurrent network depend on which: the zero pattern of W_h.

Unit j of a gate depends on h_{t-1}'s unit i where W_h[j, i] is not zero (Rodu & Sedoc 2019,
"Towards Understanding LSTM Networks", HMI talk). Read as a belief, the units of a block that no
other block reads, and that reads no other, evolve by themselves: the 2^k joint states factorise.

A trained network has no exact zeros: a threshold decides what counts as one. It compares the sizes
of weights, so rescale units of very different scale first.

Next file to read: ``horizon.py``, dependence over time instead of over units.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .gates import gate_weights

__all__ = ["DependencyGraph", "dependency_graph"]


class DependencyGraph(NamedTuple):
    """A directed graph over H units.

    ``strength`` ``(H, H)`` is the size of W_h; ``adjacency`` ``(H, H)``, bool, is true at [j, i] if
    j depends on i, that is, if the strength exceeds ``threshold``. ``components`` ``(H,)`` is the
    connected component of each unit, whatever the direction of edges, numbered from 0 in the order
    of the lowest units.
    """

    strength: Tensor
    adjacency: Tensor
    components: Tensor
    threshold: Tensor

    def blocks(self) -> list[list[int]]:
        """Return the units of each component, in ascending order."""
        found: dict[int, list[int]] = {}
        for unit, component in enumerate(self.components.tolist()):
            found.setdefault(component, []).append(unit)
        return list(found.values())

    @property
    def order(self) -> Tensor:
        """The units, ``(H,)``, one component after another: it makes the matrix block-diagonal."""
        return self.components.argsort(stable=True)


@torch.no_grad()
def dependency_graph(
    lstm: nn.Module,
    gate: str | None = None,
    *,
    threshold: float = 0.1,
    relative: bool = True,
    layer: int = 0,
) -> DependencyGraph:
    """Read the dependences among the units of a network off its recurrent weights.

    They are those through h_{t-1}. That an LSTM's unit also keeps its own c_{t-1} is left out.

    :param lstm: what :func:`~pyro_ssl.belief.belief_view` takes.
    :param str gate: ``"input"``, ``"forget"``, ``"output"`` or ``"candidate"``; by default the
        network's: for each pair of units the strongest of these. For a multiplicative LSTM also
        the strongest over unit inputs: what is zero there is zero for all inputs.
    :param float threshold: strengths up to this count as zero; 0 for the exact zero pattern.
    :param bool relative: the threshold is a share of the greatest strength.
    :param int layer: of an ``nn.LSTM`` with several.
    :raises ValueError: if there is no such gate, or the threshold is negative.

    Example::

        >>> cell = nn.LSTM(1, 4)
        >>> with torch.no_grad():
        ...     mask = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))
        ...     cell.weight_hh_l0.copy_(mask.repeat(4, 1))
        Parameter containing:...
        >>> dependency_graph(cell).blocks()
        [[0, 1], [2, 3]]
    """
    weights = gate_weights(lstm, layer=layer)
    if gate is not None and gate not in weights:
        raise ValueError(
            f"dependency_graph: found no gate {gate!r}, expected one of {[*weights]}, or None for "
            "all of them together."
        )
    if not 0 <= threshold < math.inf:
        raise ValueError(
            f"dependency_graph: threshold is {threshold}, expected 0 or more; write threshold=0.1."
        )
    chosen = list(weights.values()) if gate is None else [weights[gate]]
    H = chosen[0].shape[-1]
    strength = torch.stack([weight.abs() for weight in chosen]).reshape(-1, H, H).amax(0)
    scale = strength.max() if relative else torch.ones_like(strength[0, 0])
    adjacency = strength > threshold * scale
    return DependencyGraph(strength, adjacency, _components(adjacency), threshold * scale)


def _components(adjacency: Tensor) -> Tensor:
    """Number the connected components, whatever the direction of edges: ``(H, H)`` to ``(H,)``."""
    H = len(adjacency)
    itself = torch.eye(H, dtype=torch.bool, device=adjacency.device)
    reach = (adjacency | adjacency.T | itself).float()
    for _ in range(math.ceil(math.log2(H)) if H > 1 else 0):  # paths of 1, 2, 4, … edges
        reach = (reach @ reach).clamp(max=1.0)
    lowest = (reach > 0).to(torch.uint8).argmax(-1)  # the first unit that each reaches
    return lowest.unique(return_inverse=True)[1]
