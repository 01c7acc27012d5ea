"""A Markov chain as transition: it makes the model an HMM, with exact inference as its oracle."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .base import DiscreteTransition

__all__ = ["MarkovState", "MarkovTransition"]


class MarkovState(NamedTuple):
    """A Markov chain needs no state beyond z_{t-1}."""


class MarkovTransition(DiscreteTransition):
    """p(z_1) and p(z_t | z_{t-1}) of a Markov chain over K states.

    :param int num_states: K.
    :param Tensor initial: p(z_1), ``(K,)``; a learnable parameter where left out.
    :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``; likewise. Both may be
        sampled in the model: Dirichlet rows make it a Bayesian HMM.

    Example::

        >>> chain = MarkovTransition(3)
        >>> chain.log_prob(torch.tensor([[0, 1, 2]])).shape
        torch.Size([1, 3])
    """

    def __init__(
        self, num_states: int, *, initial: Tensor | None = None, matrix: Tensor | None = None
    ) -> None:
        super().__init__(num_states)
        K = self.num_states
        for name, value, shape in (("initial", initial, (K,)), ("matrix", matrix, (K, K))):
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(
                    f"MarkovTransition: {name} has shape {tuple(value.shape)}, expected {shape}; "
                    f"write MarkovTransition({K}, initial=p, matrix=A) with p (K,), A (K, K)."
                )
        # Learnable logits are parameters; given probabilities are buffers, through which gradients
        # and sampled values pass.
        self.initial_logits: Tensor
        self.transition_logits: Tensor
        if initial is None:
            self.initial_logits = nn.Parameter(torch.zeros(K))
        else:
            self.register_buffer("initial_logits", initial.log())
        if matrix is None:
            self.transition_logits = nn.Parameter(torch.zeros(K, K))
        else:
            self.register_buffer("transition_logits", matrix.log())

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> MarkovState:
        """Return the empty state."""
        return MarkovState()

    def step_logits(
        self, z_prev: Tensor | None, state: MarkovState, inputs: Tensor | None = None
    ) -> tuple[Tensor, MarkovState]:
        """Row z_{t-1} of the transition matrix, as logits; see the base class."""
        if z_prev is None:
            return self.initial_logits, state
        return self.transition_logits[z_prev], state

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced logits, by one row look-up; see the base class."""
        first = self.initial_logits.expand(z.shape[:-1] + (1, self.num_states))
        return torch.cat([first, self.transition_logits[z[..., :-1]]], -2)[..., : z.shape[-1], :]
