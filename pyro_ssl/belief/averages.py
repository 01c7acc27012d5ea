"""What a comparison of predictions comes to, whatever is predicted."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

__all__ = ["Fidelity", "averaged"]


class Fidelity(NamedTuple):
    """How near a surrogate's predictions are to a reference's.

    ``num_states`` of the surrogate, 0 where it has none to count; ``kl`` is the mean of
    KL(reference ‖ surrogate) over steps, in nats, ``kl_error`` its standard error over sequences
    (NaN for one), ``kl_by_step`` ``(T,)`` its mean at each step; ``agreement`` is the share of
    steps at which both have the same most probable symbol, NaN of measurements; the two
    perplexities are of the data, of measurements exp(-mean log density).
    """

    num_states: int
    kl: float
    kl_error: float
    kl_by_step: Tensor
    agreement: float
    reference_perplexity: float
    surrogate_perplexity: float


def averaged(kl: Tensor, active: Tensor) -> tuple[float, float, Tensor]:
    """Return the mean over steps, its standard error over sequences, and the mean of each step.

    :param Tensor kl: ``(T, B)``, 0 where ``active`` is false.
    """
    count, B = active.sum(), kl.shape[1]
    mean = kl.sum() / count
    # Sequences are the independent units: a ratio of sums, linearised.
    spread = (kl.sum(0) - mean * active.sum(0)).square().sum() / max(B - 1, 1)
    error = float((B * spread).sqrt() / count) if B > 1 else math.nan
    return float(mean), error, kl.sum(1) / active.sum(1).clamp(min=1)
