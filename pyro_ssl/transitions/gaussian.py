r"""Transitions over R^D: the protocol's Gaussian half.

.. math:: z_t \mid z_{1:t-1} \sim \mathrm{N}(\mu(s_t), \mathrm{diag}\, \sigma^2(s_t))

(Zheng et al. 2017, arXiv 1711.11179, section 3, Example 1, eq. 9). Subclasses give the moments;
stepping, scoring and the samplers' stepper follow.

Next files to read: ``recurrent_gaussian.py``; ``linear_gaussian.py``, which has exact answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import whole
from .base import Transition

__all__ = ["GaussianStepper", "GaussianTransition", "Moments"]


class Moments(NamedTuple):
    """``mean`` and ``scale`` (standard deviations) of p(z_t | z_{1:t-1}), each ``(..., D)``."""

    mean: Tensor
    scale: Tensor


#: ``stepper(z_prev, state, t) -> (moments, state)``; see :meth:`GaussianTransition.stepper`.
GaussianStepper = Callable[[Tensor | None, Any, int], tuple[Moments, Any]]


class GaussianTransition(Transition):
    """A transition over R^D with diagonal covariance: subclasses give the moments.

    :param int dim: D, the dimension of z_t.

    Write ``initial_state`` and :meth:`step_moments`. Override :meth:`path_moments` and ``replay``
    where one fused call beats the loop, and :meth:`stepper` where work can be done once per sweep.

    Example, a random walk without parameters whose steps widen over time::

        >>> class Time(NamedTuple):
        ...     t: Tensor  # (...)
        >>> class Widening(GaussianTransition):
        ...     def initial_state(self, batch_shape):
        ...         return Time(self.like.new_ones(batch_shape))
        ...     def step_moments(self, z_prev, state, inputs=None):
        ...         scale = state.t.sqrt().unsqueeze(-1).expand(*state.t.shape, self.dim)
        ...         mean = torch.zeros_like(scale) if z_prev is None else z_prev
        ...         return Moments(mean, scale), Time(state.t + 1.0)
        >>> Widening(2).path_moments(torch.zeros(1, 4, 2)).scale[0, :, 0]
        tensor([1.0000, 1.4142, 1.7321, 2.0000])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = whole(type(self).__name__, "dim", dim, 1)

    @property
    def event_shape(self) -> torch.Size:
        """``(D,)``."""
        return torch.Size((self.dim,))

    def step_moments(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Moments, Any]:
        """Return mean and scale of p(z_t | z_{1:t-1}), each ``(..., D)``, and the new state.

        :param Tensor z_prev: z_{t-1}, ``(..., D)``; ``None`` at the first step.
        :param state: what the previous call (or ``initial_state``) returned.
        :param Tensor inputs: exogenous inputs of step t, ``(..., input_size)``.
        """
        raise NotImplementedError

    def step(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[dist.Independent, Any]:
        """Advance by one latent; see :meth:`Transition.step`."""
        (mean, scale), state = self.step_moments(z_prev, state, inputs)
        return dist.Normal(mean, scale).to_event(1), state

    def path_moments(self, z: Tensor, inputs: Tensor | None = None) -> Moments:
        """Moments of every step of a given path: ``(..., T, D)`` to twice ``(..., T, D)``."""
        if not z.shape[-2]:
            return Moments(torch.zeros_like(z), torch.ones_like(z))
        steps = self._along(self.step_moments, z, None, self.initial_state(z.shape[:-2]), inputs)
        pairs = [[value.expand_as(z_t) for value in moments] for moments, z_t in steps]
        return Moments(*(torch.stack(values, -2) for values in zip(*pairs, strict=True)))

    def log_prob(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced log-densities, ``(..., T, D)`` to ``(..., T)``.

        See :meth:`Transition.log_prob`.

        :raises ValueError: if z or the inputs do not fit.
        """
        self._check_path("log_prob", z, inputs)
        mean, scale = self.path_moments(z, inputs)
        return dist.Normal(mean, scale, validate_args=False).log_prob(z).sum(-1)

    def stepper(self, inputs: Tensor | None = None) -> GaussianStepper:
        """Return a step function that gives moments ``(N, D)``; see :meth:`Transition.stepper`."""
        self._check_inputs(f"{type(self).__name__}.stepper", inputs, ("T", "N"))

        @torch.no_grad()
        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Moments, Any]:
            moments, state = self.step_moments(z_prev, state, None if inputs is None else inputs[t])
            # A view of a parameter requires grad even under no_grad.
            return Moments(*(value.detach() for value in moments)), state

        return step
