"""The sample sites of an IMV-LSTM: the variable that explains a target, and the targets."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

__all__ = ["sample_targets"]


def sample_targets(log_weights: Tensor, means: Tensor, scales: Tensor, y: Tensor | None) -> None:
    """Sample ``variable`` and ``y``, within the plate of B windows.

    :param Tensor log_weights: ``(B, N)``, and the targets share a variable, being one event; or
        ``(B, N, Y)``, and each in a plate has one of its own.
    :param Tensor means: ``(B, N, Y)``, as ``scales``.
    :param Tensor y: ``(B, Y)``; ``None`` to draw them.
    """
    enumerated = {"enumerate": "parallel"}
    window = torch.arange(len(means), device=means.device)
    if log_weights.dim() == 2:
        z = pyro.sample("variable", dist.Categorical(logits=log_weights), infer=enumerated)
        normal = dist.Normal(Vindex(means)[window, z, :], Vindex(scales)[window, z, :])
        pyro.sample("y", normal.to_event(1), obs=y)
        return
    logits, means, scales = (part.permute(2, 0, 1) for part in (log_weights, means, scales))
    target = torch.arange(len(means), device=means.device).unsqueeze(-1)
    with pyro.plate("targets", len(means), dim=-2):
        z = pyro.sample("variable", dist.Categorical(logits=logits), infer=enumerated)
        moments = (Vindex(part)[target, window, z] for part in (means, scales))
        pyro.sample("y", dist.Normal(*moments), obs=None if y is None else y.T)
