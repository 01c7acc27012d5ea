r"""Where what came next stands in a list of guesses: hit rates and reciprocal ranks.

Of V candidates let a have a higher score than the one that came, and m the same, itself included.
Those that tie are in random order, and each figure is the mean over the orders, which no trick of
sorting can change:

.. math::
    \mathrm{hit@}k = \min(\max((k - a) / m, 0), 1), \qquad
    \mathrm{RR} = \frac{1}{m} \sum_{r = a + 1}^{a + m} \frac{1}{r}

(McSherry & Najork, "Computing information retrieval performance measures efficiently in the
presence of tied scores", ECIR 2008.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import at_least

__all__ = ["Ranks", "ranks_of"]


class Ranks(NamedTuple):
    """What stands before each thing that came, and beside it; see :func:`ranks_of`.

    ``better`` is how many candidates have a higher score, and ``tied`` how many have the same, the
    thing itself included; int64, of the shape of what came.
    """

    better: Tensor
    tied: Tensor

    def hit(self, k: int) -> Tensor:
        """Return how likely it is among the first k, float64: 0 or 1 where nothing ties.

        :raises ValueError: unless k is a whole number of 1 or more.
        """
        if not at_least(1, k):
            raise ValueError(f"Ranks.hit: k is {k!r}, expected 1 or more; write ranks.hit(5).")
        return ((k - self.better) / self.tied.double()).clamp(0.0, 1.0)

    def reciprocal(self) -> Tensor:
        """Return the expected reciprocal rank, float64; its mean is the MRR."""
        most = int((self.better + self.tied).max()) if self.better.numel() else 0
        r = torch.arange(1, most + 1, dtype=torch.float64, device=self.better.device)
        harmonic = torch.cat([r.new_zeros(1), (1.0 / r).cumsum(0)])  # H_0, ..., H_most
        return (harmonic[self.better + self.tied] - harmonic[self.better]) / self.tied


def ranks_of(scores: Any, x: Any) -> Ranks:
    """Rank the V candidates by falling score, and find what came among them.

    :param Tensor scores: ``(..., V)``: log-probabilities, as a model predicts them, or anything
        else that is higher for what is more likely.
    :param Tensor x: what came, from 0 to V - 1, ``(...)``.
    :returns: :class:`Ranks`, of the shape of ``x``. Choose cells by a mask, and then take means.
    :raises TypeError: if one of them is no tensor, or ``x`` has no whole numbers.
    :raises ValueError: if the shapes do not fit, ``x`` is out of range, or a score is NaN.

    Example::

        >>> scores = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]).log()
        >>> ranks = ranks_of(scores, torch.tensor([0, 2]))
        >>> ranks.hit(1).mean(), ranks.reciprocal().mean()
        (tensor(0.5000, dtype=torch.float64), tensor(0.6667, dtype=torch.float64))
    """
    for name, value in (("scores", scores), ("x", x)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"ranks_of: {name} is a {type(value).__name__}, expected a tensor; write "
                f"torch.as_tensor({name})."
            )
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"ranks_of: x has dtype {x.dtype}, expected integers; write x.long().")
    if scores.dim() == 0 or scores.shape[:-1] != x.shape or not scores.shape[-1]:
        raise ValueError(
            f"ranks_of: scores have shape {tuple(scores.shape)} and x {tuple(x.shape)}, expected "
            "(..., V) and (...); write ranks_of(log_probs, words) with (T, B, V) and (T, B)."
        )
    V = scores.shape[-1]
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= V):
        raise ValueError(
            f"ranks_of: found x from {int(x.min())} to {int(x.max())}, expected 0 to V - 1 = "
            f"{V - 1}. Leave padding out first: ranks_of(log_probs[mask], words[mask])."
        )
    if bool(scores.isnan().any()):
        raise ValueError("ranks_of: scores hold NaN, expected numbers that can be compared.")
    own = scores.gather(-1, x.long().unsqueeze(-1))  # (..., 1)
    return Ranks((scores > own).sum(-1), (scores == own).sum(-1))
