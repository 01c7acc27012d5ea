"""What every transition must satisfy, as pytest classes to inherit.

:class:`TransitionContract` is for discrete transitions, :class:`GaussianTransitionContract` for
Gaussian ones; ``contract_base.py`` has what they share.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from ..transitions import DiscreteTransition, GaussianTransition
from .contract_base import Contract, assert_close

__all__ = ["GaussianTransitionContract", "TransitionContract"]


class TransitionContract(Contract[DiscreteTransition]):
    """What every discrete transition must satisfy; inherit it in a pytest module.

    Subclass it with a name that pytest collects, and write ``make``::

        class TestMyTransition(TransitionContract):
            def make(self, num_states=3):
                return MyTransition(num_states)

    Exogenous inputs are drawn if the transition reads any (``input_size`` numbers a step).
    """

    def make(self, num_states: int = 3) -> DiscreteTransition:
        """Return a transition with random parameters, in the default dtype; override this."""
        raise NotImplementedError

    def draw(self, transition: DiscreteTransition, shape: tuple[int, ...]) -> Tensor:
        """Return any paths, ``shape + (T,)``."""
        device = transition.like.device
        return torch.randint(transition.num_states, (*shape, self.T), device=device)

    def score(self, given: Any, z: Tensor) -> Tensor:
        """Return log p(z) under logits that broadcast against it."""
        log_p = given.log_softmax(-1).expand(*z.shape, -1)
        return log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1)

    def step_parameters(self, transition: DiscreteTransition, *args: Any) -> tuple[Any, Any]:
        """Return logits and the state."""
        return transition.step_logits(*args)

    def test_normalised(self) -> None:
        """The probabilities of all K^T paths sum to 1."""
        transition = self._make()
        states = [range(transition.num_states)] * self.T
        z = torch.tensor(list(itertools.product(*states)), device=transition.like.device)
        inputs = self.make_inputs(transition, ())
        inputs = None if inputs is None else inputs.expand(len(z), -1, -1)
        total = transition.log_prob(z, inputs).sum(-1).exp().sum()
        assert_close(total, torch.ones_like(total), 1e-10)

    def test_one_state_is_certain(self) -> None:
        """With K=1 there is one path, of probability 1."""
        transition = self._make(1)
        z, inputs = self._paths(transition, (4,))
        assert not transition.log_prob(z, inputs).any()


class GaussianTransitionContract(Contract[GaussianTransition]):
    """What every Gaussian transition must satisfy; inherit it in a pytest module.

    Subclass it with a name that pytest collects, and write ``make``::

        class TestMyTransition(GaussianTransitionContract):
            def make(self, dim=2):
                return MyTransition(dim)

    Exogenous inputs are drawn if the transition reads any (``input_size`` numbers a step).
    """

    size = 2

    def make(self, dim: int = 2) -> GaussianTransition:
        """Return a transition with random parameters, in the default dtype; override this."""
        raise NotImplementedError

    def draw(self, transition: GaussianTransition, shape: tuple[int, ...]) -> Tensor:
        """Return any paths, ``shape + (T, D)``."""
        like = transition.like
        shape = (*shape, self.T, transition.dim)
        return torch.randn(shape, device=like.device, dtype=like.dtype)

    def score(self, given: Any, z: Tensor) -> Tensor:
        """Return log N(z; mean, diag scale²), by hand."""
        mean, scale = given
        log_p = -0.5 * ((z - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
        return log_p.sum(-1)

    def step_parameters(self, transition: GaussianTransition, *args: Any) -> tuple[Any, Any]:
        """Return the moments and the state."""
        return transition.step_moments(*args)

    def test_event_is_a_vector(self) -> None:
        """``event_shape`` is (D,), and moments have the batch's shape at every step."""
        transition = self._make()
        D = transition.dim
        assert transition.event_shape == (D,)
        z, inputs = self._paths(transition, (2, 3))
        for value in transition.path_moments(z, inputs):
            assert value.shape == (2, 3, self.T, D)
        z, inputs = self._paths(transition, (6,))
        step, z_prev = self._stepper(transition, inputs), None
        state = transition.initial_state((6,))
        for t in range(self.T):
            (mean, scale), state = step(z_prev, state, t)
            assert mean.shape == scale.shape == (6, D) and bool((scale > 0).all())
            assert not (mean.requires_grad or scale.requires_grad)
            z_prev = z[:, t]

    def test_moments_are_those_of_the_distribution(self) -> None:
        """``step`` returns the normal of ``step_moments``; ``path_moments`` equals the loop."""
        transition = self._make()
        z, inputs = self._paths(transition, (4,))
        fused = transition.path_moments(z, inputs)
        looped = GaussianTransition.path_moments(transition, z, inputs)
        for found, expected in zip(fused, looped, strict=True):
            assert_close(found, expected)
        first = None if inputs is None else inputs[:, 0]
        p, _ = transition.step(None, transition.initial_state((4,)), first)
        assert_close(p.mean.expand(4, -1), fused.mean[:, 0])
        assert_close(p.stddev.expand(4, -1), fused.scale[:, 0])

    def test_density_integrates_to_one(self) -> None:
        """At D=1, over z_1, and over z_2 given z_1: the trapezoid rule, exact for these to 1e-8."""
        transition = self._make(1)
        z, inputs = self._paths(transition, (1,))
        for t in range(2):
            mean, scale = (value[0, t, 0] for value in transition.path_moments(z, inputs))
            grid = mean + scale * torch.linspace(-10, 10, 201, dtype=z.dtype, device=z.device)
            paths = z.expand(len(grid), -1, -1).clone()
            paths[:, t, 0] = grid
            u = None if inputs is None else inputs.expand(len(grid), -1, -1)
            total = torch.trapezoid(transition.log_prob(paths, u)[:, t].exp(), grid)
            assert_close(total, torch.ones_like(total), 1e-8)
