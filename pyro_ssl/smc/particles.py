"""What a sweep is given, checked, and what its steps leave before a path is chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ..transitions import Transition
from .emissions import Emission
from .randomness import Randomness

__all__ = ["Particles", "SweepArguments"]


class SweepArguments(NamedTuple):
    """Arguments of :func:`~pyro_ssl.smc.conditional_smc`, and what follows from them alone."""

    transition: Transition
    #: log p(x_t | z_t) + log β_t(z_t)
    drawn_by: Emission
    num_particles: int
    reference: Tensor | None
    lengths: Tensor | None
    #: steps within each sequence, bool ``(T, B, 1)``; ``None`` if all are
    active: Tensor | None
    inputs: Tensor | None
    resampling: str
    #: steps at which the reference's ancestor is redrawn
    redraw_at: range
    lag: int
    scale: Tensor | None
    twist: Emission | None
    randomness: Randomness

    @property
    def uniforms_per_step(self) -> int:
        """How many draw the ancestors of a step: a systematic scheme takes one."""
        return 1 if self.resampling == "systematic" else self.num_particles


class Particles(NamedTuple):
    """All particles of a sweep; its fields are those of :class:`~pyro_ssl.smc.Sweep`."""

    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    state: Any
    chosen_by: Tensor
    weights: Tensor | None
