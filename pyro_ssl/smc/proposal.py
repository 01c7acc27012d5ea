r"""What a sweep asks of one kind of latent: a look-ahead weight, a proposal, and its weight.

``sweep.py`` is the algorithm; ``discrete.py``, ``gaussian.py`` and ``expanded.py`` are its three
proposals. An exact one knows α_t and γ_t of ``sweep.py`` in closed form, so that all particles
weigh the same. One that is not exact has to ask for log p(x_t | z_t) within the sweep: its methods
are generators, which yield what the body of the user's loop is to meet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["Asks", "LookAhead", "Proposal"]

R = TypeVar("R")

#: A computation that may ask the user's loop body: it yields (t, z) for it, and returns R.
Asks = Generator[tuple[Tensor, Tensor], None, R]


class LookAhead(NamedTuple):
    """α_t of all particles, and γ_t.

    ``alpha`` ``(B, P)`` is α_t over exp(``shift``), ``shift`` ``(B,)``: one for all particles of a
    sequence, so that their weights stay comparable. ``gamma`` is what :meth:`Proposal.draw` draws
    from. All may be overwritten by the next step.
    """

    alpha: Tensor
    shift: Tensor
    gamma: Any


class Proposal(ABC):
    """p(z_t | z_{1:t-1}) p(x_t | z_t) as one step of the sweep meets it, and how to draw from it.

    B sequences of P particles each; their *rows* are B·P, sequence by sequence.
    """

    #: ``()`` for discrete latents, ``(D,)`` for vectors
    event_shape: torch.Size
    dtype: torch.dtype

    @abstractmethod
    def prior(self, predicted: Any) -> Any:
        """p(z_t | z_{1:t-1}) of all particles, of what the transition's stepper returned."""

    @abstractmethod
    def look_ahead(self, t: int, prior: Any) -> Asks[LookAhead]:
        """Return α_t and γ_t."""

    @abstractmethod
    def draw(self, t: int, gamma: Any, rows: Tensor) -> Tensor:
        """Draw z_t from γ_t of the given rows ``(B P,)``: ``(B, P) + event_shape``."""

    def log_weight(self, t: int, gamma: Any, rows: Tensor, z: Tensor) -> Asks[Tensor | None]:
        """Return log w_t ``(B, P)`` of z, drawn from the given rows; ``None`` if all are equal."""
        return None
        yield  # makes this a generator, as that of every proposal

    @abstractmethod
    def log_prior(self, prior: Any, z: Tensor) -> Tensor:
        """log p(z_t | z_{1:t-1}) of one z per sequence, ``(B,) + event_shape``: ``(B, P)``."""

    @abstractmethod
    def scaled(self, log_prior: Tensor, which: Tensor | slice = slice(None)) -> Tensor:
        """log p(z_t | z_{1:t-1}) ``(..., N, P or 1)`` to the power that the user asked for.

        :param which: the N sequences, by their indices; by default all.
        """

    def finish(self) -> None:
        """Called once, after the last step, for warnings about the whole sweep."""
        return None
