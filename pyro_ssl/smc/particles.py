"""What a sweep is given, checked, and what its steps leave before a path is chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..transitions import Transition
from .emissions import Emission
from .randomness import ANCESTORS, Randomness

__all__ = ["Particles", "Standing", "Sweep", "SweepArguments"]


class Standing(NamedTuple):
    """Where the particles of a sweep stand: all that its next step depends on.

    ``z`` ``(B, P) + event_shape`` is their last latent, ``None`` before the first, ``state`` the
    transition's before it reads that, rows ``(B P, ...)``, and ``weights`` ``(B, P)`` are of mean
    1, ``None`` if all are equal.
    """

    z: Tensor | None
    state: Any
    weights: Tensor | None


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
    #: particles that it goes on from, ``None`` where it begins
    start: Standing | None = None
    #: whether particles of all steps are kept; else those of two steps, in turn
    keeps_history: bool = True

    def draw_ancestors(self, numbers: Randomness, num_steps: int) -> Tensor:
        """Return uniforms that draw the ancestors of some steps: a systematic scheme takes one."""
        size = 1 if self.resampling == "systematic" else self.num_particles
        return numbers.uniform(ANCESTORS, num_steps, size, torch.float64)


class Particles(NamedTuple):
    """All particles of a sweep; its fields are those of :class:`~pyro_ssl.smc.Sweep`."""

    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    state: Any
    chosen_by: Tensor
    weights: Tensor | None
    step_weights: Tensor | None = None

    @property
    def standing(self) -> Standing:
        """Where they stand after the last step, of which there is one at least."""
        last = (len(self.log_likelihood) - 1) % len(self.z)
        return Standing(self.z[last], self.state, self.weights)


class Sweep(NamedTuple):
    """What one sweep of (conditional) SMC returns.

    ``path`` ``(T, B)`` is the drawn path, 0 past a sequence's length; D follows where latents are
    vectors. ``z`` and ``ancestors`` ``(T, B, P)``: particle p at step t holds ``z[t, :, p]`` and
    continues particle ``ancestors[t, :, p]`` of step t - 1. ``log_likelihood`` ``(T, B)`` float64
    is log mean_p α_t^p = log p̂(x_t | x_{1:t-1}) — its sum over t the log of an unbiased evidence
    estimate, when there was no reference. It is -inf or NaN where all particles of a sequence
    had weight zero, or NaN; such a sequence's draws mean nothing. ``state`` is the cell's state
    after the last step, rows ``(B P, ...)``, and means nothing of a sequence that ended before;
    ``weights`` ``(B, P)`` are those of the particles there, of mean 1, ``None`` where all are
    equal. ``chosen_by`` ``(T, B, P)`` float64 is what ancestors were drawn by, w_{t-1} α_t over a
    constant of the step and sequence. ``step_weights`` ``(T, B, P)`` are the weights after each
    step, of mean 1: those of p(z_t | x_{1:t}); ``None`` where all are equal, and of a twisted
    sweep.
    """

    path: Tensor
    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    state: Any
    chosen_by: Tensor
    weights: Tensor | None = None
    step_weights: Tensor | None = None

    @property
    def effective_size(self) -> Tensor:
        """(Σ_p w)² / Σ_p w² of the weights that ancestors were drawn by, float64 ``(T, B)``.

        From 1 to P; NaN where all weights are zero.
        """
        return self.chosen_by.sum(-1).square() / self.chosen_by.square().sum(-1)

    @property
    def failed(self) -> Tensor:
        """Sequences whose particles all died, bool ``(B,)``."""
        return ~self.log_likelihood.isfinite().all(0)
