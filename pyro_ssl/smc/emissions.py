"""log p(x_t | z_t) as an object: what a sweep is given of the observations.

Three kinds: a table over K states, a quadratic function over R^D, and (in ``reading``, for it has
to run the user's model) the body of the user's loop. Each makes the proposal that is right for it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..arguments import check_kind, check_tensor, whole
from ..transitions import DiscreteTransition, GaussianTransition, Transition
from .discrete import StatesProposal
from .gaussian import QuadraticProposal
from .proposal import Asks, Proposal
from .quadratic import Quadratic
from .randomness import Randomness

__all__ = ["Emission", "QuadraticEmission", "TableEmission", "does_not_fit"]

R = TypeVar("R")


class Emission(ABC):
    """log p(x_t | z_t) for T steps of B sequences."""

    #: T, B
    shape: tuple[int, int]
    #: whether :meth:`split` can cut it at a step
    can_be_split = True

    def check(self, transition: Transition) -> None:  # noqa: B027
        """Check that it is of the transition's latents; by default there is nothing to check.

        :raises TypeError: if the latents are of another kind.
        :raises ValueError: if sizes, dtypes or devices are others.
        """

    @abstractmethod
    def proposal(
        self,
        transition: Transition,
        num_particles: int,
        scale: Tensor | None,
        randomness: Randomness,
    ) -> Proposal:
        """Return the proposal of one sweep; it takes all random numbers that it will need.

        :param Tensor scale: power of p(z_t | z_{1:t-1}), ``(B,)``, or ``None``.
        """

    def run(self, sweep: Asks[R]) -> R:
        """Run a sweep to its end, and answer what it asks."""
        try:
            next(sweep)
        except StopIteration as stop:
            return stop.value
        raise AssertionError(f"a sweep that is given a {type(self).__name__} asked for it")

    @abstractmethod
    def times(self, twist: Emission) -> Emission:
        """Return log p(x_t | z_t) + log β_t(z_t): what a twisted sweep draws by (``twist.py``).

        :param Emission twist: log β_t, of the same kind of latent and as many steps and sequences.
        """

    def log_prob(self, t: int, z: Tensor) -> Tensor:
        """Return log p(x_t | z_t = z) of z ``(B, P) + event_shape``: ``(B, P)``.

        :raises TypeError: if the emission is not known without running the user's model.
        """
        raise TypeError(
            f"{type(self).__name__}: it is not known step by step, expected a TableEmission or a "
            "QuadraticEmission as a twist."
        )

    @abstractmethod
    def beside(self, others: Sequence[Emission]) -> Emission | None:
        """Return this emission and others side by side, as one of as many sequences in all.

        ``None`` where they cannot be swept as one.
        """

    @abstractmethod
    def split(self, t: int) -> tuple[Emission, Emission]:
        """Return the first t steps, and the others.

        :raises TypeError: if the emission is not known step by step.
        :raises ValueError: if t is not from 0 to T.
        """

    def _check_cut(self, t: int) -> None:
        T = self.shape[0]
        if whole(type(self).__name__, "t", t, 0) > T:
            raise ValueError(
                f"{type(self).__name__}: t is {t}, expected 0 to T = {T}; write split({T})."
            )

    @abstractmethod
    def log_predictive(self, paths: Tensor, state_probs: Tensor | None) -> Tensor:
        """Return log p̂(x_t), ``(T, B)``, averaged over particles that were rolled out.

        :param Tensor paths: ``(T, B, P) + event_shape``.
        :param Tensor state_probs: p̂(z_t = k), ``(T, B, K)``, where latents are discrete.
        """


class TableEmission(Emission):
    """log p(x_t | z_t = k) of K states.

    :param Tensor table: ``(T, B, K)``; every row has a finite entry.
    """

    def __init__(self, table: Tensor) -> None:
        write = "table[:, None] for one sequence (T, K)"
        check_tensor("TableEmission", "table", table, ("T", "B", "K"), some="K", write=write)
        self.table = table
        self.shape = (table.shape[0], table.shape[1])

    def check(self, transition: Transition) -> None:
        """Compare K, dtype and device; see the base class."""
        write = "LSTMTransition(table.shape[-1], hidden_size=8)"
        check_kind("TableEmission", "transition", transition, DiscreteTransition, write)
        assert isinstance(transition, DiscreteTransition)
        shape, like = (*self.shape, transition.num_states), transition.like
        write = f"{type(transition).__name__} with K = {self.table.shape[-1]} states"
        check_tensor("TableEmission", "table", self.table, shape, like=like, write=write)

    def proposal(
        self,
        transition: Transition,
        num_particles: int,
        scale: Tensor | None,
        randomness: Randomness,
    ) -> StatesProposal:
        """Return the exact proposal; see the base class."""
        return StatesProposal(self.table, num_particles, scale, randomness)

    def times(self, twist: Emission) -> TableEmission:
        """Add tables; see the base class."""
        if not isinstance(twist, TableEmission) or twist.table.shape != self.table.shape:
            raise does_not_fit(twist, f"a TableEmission of {tuple(self.table.shape)} (T, B, K)")
        return TableEmission(self.table + twist.table)

    def log_prob(self, t: int, z: Tensor) -> Tensor:
        """Look z up; see the base class."""
        return self.table[t].gather(-1, z)

    def beside(self, others: Sequence[Emission]) -> TableEmission:
        """Return tables side by side; see the base class."""
        return TableEmission(torch.cat([e.table for e in (self, *others)], 1))  # type: ignore[attr-defined]

    def select(self, index: Tensor) -> TableEmission:
        """Return some of the sequences, ``(N,)``; of several chains, those of the first."""
        return TableEmission(self.table[:, index])

    def split(self, t: int) -> tuple[TableEmission, TableEmission]:
        """Cut the table; see the base class."""
        self._check_cut(t)
        return TableEmission(self.table[:t]), TableEmission(self.table[t:])

    def log_predictive(self, paths: Tensor, state_probs: Tensor | None) -> Tensor:
        """Return log Σ_k p̂(z_t = k) p(x_t | z_t = k); see the base class."""
        assert state_probs is not None
        return (state_probs.log() + self.table).logsumexp(-1)


class QuadraticEmission(Emission):
    r"""log p(x_t | z_t) as a quadratic function of z_t in R^D: exact where x is linear-Gaussian.

    .. math:: c + b^\top (z - m) - \tfrac12 (z - m)^\top Λ (z - m)

    :param Tensor center: m, ``(T, B, D)``.
    :param Tensor constant: c, ``(T, B)``.
    :param Tensor linear: b, ``(T, B, D)``.
    :param Tensor precision: Λ, ``(T, B, D, D)``, positive semi-definite.
    """

    def __init__(self, center: Tensor, constant: Tensor, linear: Tensor, precision: Tensor) -> None:
        write = "center[:, None] for one sequence (T, D)"
        check_tensor("QuadraticEmission", "center", center, ("T", "B", "D"), some="D", write=write)
        T, B, D = center.shape
        rest = {"constant": (constant, (T, B)), "linear": (linear, (T, B, D))}
        rest["precision"] = (precision, (T, B, D, D))
        for name, (value, shape) in rest.items():
            write = "center (T, B, D), constant (T, B), linear (T, B, D), precision (T, B, D, D)"
            check_tensor("QuadraticEmission", name, value, shape, like=center, write=write)
        self.function = Quadratic(center, constant, linear, precision)
        self.shape = (center.shape[0], center.shape[1])

    def check(self, transition: Transition) -> None:
        """Compare D, dtype and device; see the base class."""
        write = "GaussianLSTMTransition(center.shape[-1], hidden_size=8)"
        check_kind("QuadraticEmission", "transition", transition, GaussianTransition, write)
        shape = (*self.shape, *transition.event_shape)
        center, write = self.function.center, f"a {type(transition).__name__} over as many numbers"
        check_tensor(
            "QuadraticEmission", "center", center, shape, like=transition.like, write=write
        )

    def proposal(
        self,
        transition: Transition,
        num_particles: int,
        scale: Tensor | None,
        randomness: Randomness,
    ) -> QuadraticProposal:
        """Return the exact proposal; see the base class."""
        return QuadraticProposal(self.function, num_particles, scale, randomness)

    def times(self, twist: Emission) -> QuadraticEmission:
        """Add functions; see the base class."""
        shape = tuple(self.function.center.shape)
        if not isinstance(twist, QuadraticEmission) or twist.function.center.shape != shape:
            raise does_not_fit(twist, f"a QuadraticEmission of {shape} (T, B, D)")
        return QuadraticEmission(*self.function.plus(twist.function))

    def log_prob(self, t: int, z: Tensor) -> Tensor:
        """Evaluate the function; see the base class."""
        return self.function.each(lambda part: part[t].unsqueeze(1)).value(z)

    def beside(self, others: Sequence[Emission]) -> QuadraticEmission | None:
        """Return functions side by side; see the base class."""
        functions = [e.function for e in (self, *others) if isinstance(e, QuadraticEmission)]
        if len(functions) <= len(others):  # under the values of another chain it is none
            return None
        return QuadraticEmission(*(torch.cat(parts, 1) for parts in zip(*functions, strict=True)))

    def select(self, index: Tensor) -> QuadraticEmission:
        """Return some of the sequences, ``(N,)``; of several chains, those of the first."""
        return QuadraticEmission(*self.function.each(lambda part: part[:, index]))

    def split(self, t: int) -> tuple[QuadraticEmission, QuadraticEmission]:
        """Cut all four tensors; see the base class."""
        self._check_cut(t)
        before, after = zip(*((part[:t], part[t:]) for part in self.function), strict=True)
        return QuadraticEmission(*before), QuadraticEmission(*after)

    def log_predictive(self, paths: Tensor, state_probs: Tensor | None) -> Tensor:
        """Return log mean_p p(x_t | z_t^p); see the base class."""
        at_draws = self.function.value(paths.movedim(2, 0))  # (P, T, B)
        return at_draws.logsumexp(0) - math.log(paths.shape[2])


def does_not_fit(twist: Emission, expected: str) -> ValueError:
    """The error of a twist that is of other latents, steps or sequences than the emission."""
    shape = twist.table.shape if isinstance(twist, TableEmission) else twist.shape
    found = f"{type(twist).__name__} of {tuple(shape)}"
    return ValueError(f"The twist is a {found}, expected {expected}, as the emission is.")
