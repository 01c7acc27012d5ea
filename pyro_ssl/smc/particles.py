"""What the steps of a sweep leave, before a path is chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Particles"]


class Particles(NamedTuple):
    """All particles of a sweep; its fields are those of :class:`~pyro_ssl.smc.Sweep`."""

    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    state: Any
    chosen_by: Tensor
    weights: Tensor | None
