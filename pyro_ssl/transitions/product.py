r"""Several independent chains as one: the transition of a factorial model.

.. math:: p(a_t, b_t \mid a_{1:t-1}, b_{1:t-1}) = p(a_t \mid a_{1:t-1}) \, p(b_t \mid b_{1:t-1})

(Ghahramani and Jordan 1997, "Factorial hidden Markov models"). The chains are independent a priori
alone: data that hang on both couple them, and a sampler that moves them together mixes better than
one that moves each given the others. The state is the tuple of the chains' states, numbered as
``a * K_b + b``: the last chain runs fastest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import check_range
from .base import DiscreteTransition, Stepper

__all__ = ["ProductState", "ProductTransition", "join_states", "split_states"]


def split_states(z: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the states of each chain, of states of their product.

    :param sizes: K of each chain, in order.

    Example::

        >>> split_states(torch.tensor([0, 1, 2, 5]), (2, 3))
        (tensor([0, 0, 0, 1]), tensor([0, 1, 2, 2]))
    """
    parts = []
    for size in reversed(sizes):
        parts.append(z % size)
        z = z // size
    return tuple(reversed(parts))


def join_states(parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Return the states of the product, of those of each chain: what :func:`split_states` undoes.

    Example::

        >>> join_states((torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 2])), (2, 3))
        tensor([0, 1, 2, 5])
    """
    z = parts[0]
    for part, size in zip(parts[1:], sizes[1:], strict=True):
        z = z * size + part
    return z


class ProductState(tuple[Any, ...]):
    """The states of the chains, in order; ``ProductState(*states)``, as a NamedTuple is made."""

    __slots__ = ()

    def __new__(cls, *states: Any) -> ProductState:  # noqa: D102
        return super().__new__(cls, states)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class ProductTransition(DiscreteTransition):
    """Independent chains side by side, as one transition over the tuples of their states.

    ``ssl_transition`` makes it of a dict of transitions; make one to read the states of a sweep.

    :param transitions: two :class:`DiscreteTransition` or more. Exogenous inputs are those of each
        that reads any, one after the other.
    :raises TypeError: if one is of another kind.

    Example::

        >>> from pyro_ssl import LSTMTransition, MarkovTransition
        >>> both = ProductTransition([LSTMTransition(2, hidden_size=4), MarkovTransition(3)])
        >>> both.num_states
        6
        >>> z = both.join((torch.tensor([[0, 1, 1]]), torch.tensor([[2, 0, 2]])))
        >>> z, both.log_prob(z).shape
        (tensor([[2, 3, 5]]), torch.Size([1, 3]))
    """

    def __init__(self, transitions: Iterable[DiscreteTransition]) -> None:
        parts = list(transitions)
        for part in parts:
            if not isinstance(part, DiscreteTransition):
                raise TypeError(
                    f"ProductTransition: one of the transitions is a {type(part).__name__}, "
                    "expected a DiscreteTransition each: tuples of states are numbered, and there "
                    "are none of vectors. Write ProductTransition([LSTMTransition(K, H), ...])."
                )
        if not parts:
            raise TypeError(
                "ProductTransition: there is no transition, expected one at least; write "
                "ProductTransition([LSTMTransition(K, H), MarkovTransition(K)])."
            )
        sizes = tuple(part.num_states for part in parts)
        super().__init__(math.prod(sizes))
        self.sizes = sizes
        self.transitions = nn.ModuleList(parts)
        self.input_size = sum(part.input_size for part in parts)
        self.training = any(part.training for part in parts)

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the states of each chain, of states of the product, of the same shape."""
        return split_states(z, self.sizes)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the states of the product, of those of each chain."""
        return join_states(parts, self.sizes)

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> ProductState:
        """Return the state of each chain before its first latent."""
        return ProductState(*(part.initial_state(batch_shape) for part in self._parts()))

    def step_logits(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Tensor, ProductState]:
        """The sum of the chains' logits for every tuple of states; see the base class."""
        steps = [
            part.step_logits(*one)
            for part, *one in zip(
                self._parts(), self._split(z_prev), state, self._inputs(inputs), strict=True
            )
        ]
        return _outer_sum([logits for logits, _ in steps]), ProductState(*(s for _, s in steps))

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced logits ``(..., T, K)`` by a call of each chain; see the base class."""
        each = zip(self._parts(), self.split(z), self._inputs(inputs), strict=True)
        return _outer_sum([part.path_logits(z, u) for part, z, u in each])

    def log_prob(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """The chains' log-probabilities added up, ``(..., T)``; see the base class.

        :raises ValueError: if z are not int64 from 0 to K - 1, or the inputs do not fit.
        """
        self._check_path("log_prob", z, inputs)
        write = "z.clamp(min=0) where padding is -1, or ProductTransition.join of the chains'"
        check_range("ProductTransition.log_prob", "z", z, self.num_states, write)
        each = zip(self._parts(), self.split(z), self._inputs(inputs), strict=True)
        return torch.stack([part.log_prob(z, u) for part, z, u in each]).sum(0)

    @torch.no_grad()
    def replay(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> Tensor:
        """By each chain's own replay; see the base class."""
        each = zip(
            *(self._parts(), self.split(z), self._split(z_prev), state, self._inputs(inputs)),
            strict=True,
        )
        return torch.stack([part.replay(*one) for part, *one in each]).sum(0)

    def stepper(self, inputs: Tensor | None = None) -> Stepper:
        """Return a step function of the chains' own; see the base class."""
        self._check_inputs("ProductTransition.stepper", inputs, ("T", "N"))
        steppers = [
            part.stepper(u) for part, u in zip(self._parts(), self._inputs(inputs), strict=True)
        ]

        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Tensor, Any]:
            each = zip(steppers, self._split(z_prev), state, strict=True)
            steps = [one(z, s, t) for one, z, s in each]
            return _outer_sum([logits for logits, _ in steps]), ProductState(*(s for _, s in steps))

        return step

    def _parts(self) -> list[Any]:
        return list(self.transitions)

    def _split(self, z: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(self.sizes) if z is None else self.split(z)

    def _inputs(self, inputs: Tensor | None) -> list[Tensor | None]:
        """Of each chain its own inputs, ``None`` where it reads none."""
        sizes = [part.input_size for part in self._parts()]
        if inputs is None:
            return [None] * len(sizes)
        each = inputs.split(sizes, -1)
        return [u if size else None for u, size in zip(each, sizes, strict=True)]


def _outer_sum(logits: Sequence[Tensor]) -> Tensor:
    """Logits ``(..., K)`` of tuples of states, of ``(..., K_i)`` that may broadcast.

    softmax(a ⊕ b) = softmax(a) ⊗ softmax(b) whatever constants are in a and b, so none is
    normalised first.
    """
    total = logits[0]
    for more in logits[1:]:
        total = (total.unsqueeze(-1) + more.unsqueeze(-2)).flatten(-2)
    return total
