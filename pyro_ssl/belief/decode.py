r"""Joint states of k binary units: the product belief over all 2^k, and the likeliest m.

Under a product belief the log-probability of a joint state is that of the likeliest one, less the
sum of |logit p_j| over the units j in which the two differ. So the m likeliest states belong to the
m subsets of these k numbers with the smallest sums. They are found unit by unit, always keeping the
m smallest sums so far: k merges of 2m numbers in place of 2^k sums.

Next file to read: ``graph.py``, which units depend on which.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_tensor, check_unit, whole

__all__ = ["JointStates", "most_probable_states", "product_belief"]

#: joint beliefs over more units than this are refused: 2^k numbers each
MAX_UNITS = 12


class JointStates(NamedTuple):
    """Joint states, the likeliest first: ``states`` bool ``(..., m, k)``, ``log_probs``
    ``(..., m)``.
    """

    states: Tensor
    log_probs: Tensor


def product_belief(probs: Tensor) -> Tensor:
    """Return the probabilities of all joint states, ``(..., k)`` to ``(..., 2^k)``.

    State n has the bits of the number n, unit 0 the most significant, as
    :func:`~pyro_ssl.belief.joint_states` lists them.

    :param Tensor probs: probability that each unit is 1.
    :raises ValueError: if there are more than ``MAX_UNITS`` units.

    Example::

        >>> product_belief(torch.tensor([0.9, 0.2]))           # 00, 01, 10, 11
        tensor([0.0800, 0.0200, 0.7200, 0.1800])
    """
    check_tensor("product_belief", "probs", probs, (..., "k"), write="probs[None] for one unit")
    check_unit("product_belief", "probs", probs)
    if probs.shape[-1] > MAX_UNITS:
        raise ValueError(
            f"product_belief: {probs.shape[-1]} units have 2^{probs.shape[-1]} joint states, "
            f"expected at most {MAX_UNITS} units; write most_probable_states(probs, m), or choose "
            "units: probs[..., :10]."
        )
    joint = probs.new_ones(*probs.shape[:-1], 1)
    for p in probs.unbind(-1):
        pair = torch.stack([1.0 - p, p], -1)
        joint = (joint.unsqueeze(-1) * pair.unsqueeze(-2)).flatten(-2)
    return joint


@torch.no_grad()
def most_probable_states(
    probs: Tensor | None, num_states: int, *, logits: Tensor | None = None
) -> JointStates:
    """Return the m likeliest joint states of any number of units, exactly.

    :param Tensor probs: probability that each unit is 1, ``(..., k)``.
    :param int num_states: m, at most 2^k.
    :param Tensor logits: log-odds in place of ``probs``, which would round 1 - 1e-20 to 1.
    :raises ValueError: if both or neither are given, or m is not from 1 to 2^k.

    Example::

        >>> found = most_probable_states(torch.tensor([0.9, 0.2]), 2)
        >>> found.states.int().tolist(), found.log_probs.exp()
        ([[1, 0], [1, 1]], tensor([0.7200, 0.1800]))
    """
    if (probs is None) == (logits is None):
        raise ValueError(
            "most_probable_states: expected either probs or logits; write "
            "most_probable_states(probs, m), or most_probable_states(None, m, logits=logits)."
        )
    where = "most_probable_states"
    if logits is None:
        assert probs is not None
        check_tensor(where, "probs", probs, (..., "k"), write="probs[None] for one unit")
        check_unit(where, "probs", probs)
        logits = torch.logit(probs)
    check_tensor(where, "logits", logits, (..., "k"), write="logits[None] for one unit")
    k, m = logits.shape[-1], whole(where, "num_states", num_states, 1)
    if k < 31 and m > 2**k:
        raise ValueError(
            f"most_probable_states: num_states is {m}, expected from 1 to 2^{k}, as many as {k} "
            "units have."
        )
    cost, chosen = logits.new_zeros(*logits.shape[:-1], 1), []
    for flip in logits.abs().unbind(-1):
        both = torch.cat([cost, cost + flip.unsqueeze(-1)], -1)
        cost, kept = both.topk(min(m, both.shape[-1]), largest=False)
        chosen.append(kept)
    slot = torch.arange(cost.shape[-1], device=cost.device).expand(cost.shape)
    flipped: list[Tensor] = []
    for kept in reversed(chosen):
        slot = kept.gather(-1, slot)
        before = _width(len(chosen) - len(flipped) - 1, m)  # states kept before this unit
        flipped.append(slot >= before)
        slot = slot % before
    flips = torch.stack(flipped[::-1], -1) if flipped else slot.new_zeros((*slot.shape, 0)).bool()
    likeliest = F.logsigmoid(logits.abs()).sum(-1, keepdim=True)
    return JointStates((logits > 0).unsqueeze(-2) ^ flips, likeliest - cost)


def _width(num_units: int, m: int) -> int:
    """How many states are kept of so many units."""
    return m if num_units >= 31 else min(m, 2**num_units)
