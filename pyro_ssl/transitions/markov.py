r"""A Markov chain as transition: it makes the model an HMM, for which inference is exact.

With exogenous inputs it is the chain of an input-output HMM (Bengio and Frasconi 1995):

.. math:: p(z_t = j \mid z_{t-1} = i, u_t) \propto A_{ij} \exp(U_j u_t).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_probabilities, check_range, check_tensor, whole
from .base import DiscreteTransition

__all__ = ["MarkovState", "MarkovTransition"]


class MarkovState(NamedTuple):
    """Empty: a Markov chain needs no state beyond z_{t-1}."""


class MarkovTransition(DiscreteTransition):
    """p(z_1) and p(z_t | z_{t-1}) of a Markov chain over K states.

    :param int num_states: K.
    :param Tensor initial: p(z_1), ``(K,)``; a learnable parameter where left out.
    :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``; likewise. Both may be
        sampled in the model: Dirichlet rows make it a Bayesian HMM.
    :param int input_size: exogenous inputs per step; each adds its row of U to the logits of every
        step, the first included. U is the parameter ``input_weight``, ``(K, input_size)``, 0 at
        first. (:class:`~pyro_ssl.MarkovEM` fits a chain without inputs in its place.)

    :raises ValueError: on a shape that does not fit, or rows that are no probabilities.

    Parameters that are left out have the dtype and the device of the tensor that is given.

    Example::

        >>> chain = MarkovTransition(3)
        >>> chain.log_prob(torch.tensor([[0, 1, 2]])).shape
        torch.Size([1, 3])
        >>> driven = MarkovTransition(3, input_size=2)
        >>> driven.log_prob(torch.tensor([[0, 1, 2]]), torch.randn(1, 3, 2)).shape
        torch.Size([1, 3])
    """

    initial_logits: Tensor
    transition_logits: Tensor

    def __init__(
        self,
        num_states: int,
        *,
        initial: Tensor | None = None,
        matrix: Tensor | None = None,
        input_size: int = 0,
    ) -> None:
        super().__init__(num_states)
        K = self.num_states
        self.input_size = whole("MarkovTransition", "input_size", input_size, 0)
        given = [("initial", initial, (K,)), ("matrix", matrix, (K, K))]
        write = f"MarkovTransition({K}, initial=p, matrix=A) with p (K,), A (K, K)"
        like = initial if isinstance(initial, Tensor) else None
        for name, value, shape in given:
            if value is not None:
                check_tensor("MarkovTransition", name, value, shape, like=like, write=write)
                check_probabilities("MarkovTransition", name, value, sums=False)
        # Given probabilities are buffers, through which gradients and sampled values pass.
        if initial is not None:
            self.register_buffer("initial_logits", initial.log())
        if matrix is not None:
            self.register_buffer("transition_logits", matrix.log())
        like = self.like
        if initial is None:
            self.initial_logits = nn.Parameter(like.new_zeros(K))
        if matrix is None:
            self.transition_logits = nn.Parameter(like.new_zeros(K, K))
        if self.input_size:
            self.input_weight = nn.Parameter(like.new_zeros(K, self.input_size))

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> MarkovState:
        """Return the empty state."""
        return MarkovState()

    def step_logits(
        self, z_prev: Tensor | None, state: MarkovState, inputs: Tensor | None = None
    ) -> tuple[Tensor, MarkovState]:
        """Row z_{t-1} of the transition matrix, as logits; see the base class."""
        logits = self.initial_logits if z_prev is None else self.transition_logits[z_prev]
        return self._driven(logits, inputs), state

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced logits, by one row look-up; see the base class."""
        write = "z.clamp(min=0) where padding is -1"  # which would be the last row
        check_range("MarkovTransition.path_logits", "z", z, self.num_states, write)
        first = self.initial_logits.expand(z.shape[:-1] + (1, self.num_states))
        logits = torch.cat([first, self.transition_logits[z[..., :-1]]], -2)
        return self._driven(logits[..., : z.shape[-1], :], inputs)

    def _driven(self, logits: Tensor, inputs: Tensor | None) -> Tensor:
        """Add the inputs' part, if the chain reads any.

        :raises ValueError: if it reads inputs that were not given, or the other way round.
        """
        self._check_has_inputs("MarkovTransition", inputs)
        return logits if inputs is None else logits + F.linear(inputs, self.input_weight)
