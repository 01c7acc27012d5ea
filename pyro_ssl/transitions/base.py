r"""The transition protocol: what ``ssl_transition`` and the samplers ask of p(z_t | z_{1:t-1}).

A transition is a deterministic state machine that reads the latents and emits a distribution for
the next one (Zheng et al. 2017, arXiv 1711.11179, section 3):

.. math:: s_t = \mathrm{cell}(s_{t-1}, z_{t-1}), \qquad z_t \sim p(z \mid g(s_t)).

Two views of the same law must agree to float precision: *stepping*, which the particles use, and
*teacher forcing* over a whole path in one fused call, which learning uses.
:class:`pyro_ssl.testing.TransitionContract` is the test that holds every transition to it.

Next files to read: ``cells.py``, ``recurrent.py``, ``gaussian.py``, then ``distribution.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..errors import positive_size

__all__ = ["DiscreteTransition", "Stepper", "Transition"]

#: ``stepper(z_prev, state, t) -> (logits, state)``; see :meth:`DiscreteTransition.stepper`.
Stepper = Callable[[Tensor | None, Any, int], tuple[Tensor, Any]]


def map_state(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Apply a function to every tensor of a state."""
    if isinstance(state, tuple):
        return type(state)(*[map_state(function, part) for part in state])
    return function(state)


class Transition(nn.Module):
    """p(z_t | z_{1:t-1}, inputs_{1:t}), as a state machine over the latents.

    Subclass :class:`DiscreteTransition` for z in ``{0..K-1}``, and
    :class:`~pyro_ssl.transitions.GaussianTransition` for z in R^D.
    """

    #: number of exogenous inputs per step that the transition reads (0: none)
    input_size: int = 0

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one latent z_t: ``()`` where it is discrete, ``(D,)`` where it is a vector."""
        return torch.Size()

    @property
    def like(self) -> Tensor:
        """An empty tensor of the transition's dtype and device."""
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor.detach().new_empty(())
        return torch.empty((), dtype=torch.get_default_dtype(), device=torch.get_default_device())

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> NamedTuple:
        """Return the state before the first latent, tensors of shape ``batch_shape + (...)``."""
        raise NotImplementedError

    def step(
        self, z_prev: Tensor | None, state: NamedTuple, inputs: Tensor | None = None
    ) -> tuple[dist.TorchDistribution, NamedTuple]:
        """Advance by one latent.

        :param z_prev: z_{t-1}, ``(...) + event_shape``; ``None`` at the first step.
        :param state: what the previous call (or :meth:`initial_state`) returned.
        :param inputs: exogenous inputs of step t, ``(..., input_size)``.
        :returns: p(z_t | z_{1:t-1}) of batch shape ``(...)``, and the new state.
        """
        raise NotImplementedError

    def log_prob(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced log p(z_t | z_{1:t-1}) of every step of a path, in one fused call.

        :param z: paths, ``(..., T) + event_shape``.
        :param inputs: exogenous inputs, ``(..., T, input_size)``.
        :returns: ``(..., T)``; the sum over the last dimension is log p(z_{1:T}).
        """
        raise NotImplementedError

    def stepper(
        self, inputs: Tensor | None = None
    ) -> Callable[[Tensor | None, Any, int], tuple[Any, Any]]:
        """Return the samplers' step over *rows* of particles, without gradient.

        What it returns of p(z_t | z_{1:t-1}) is the kind's: see :class:`DiscreteTransition` and
        :class:`~pyro_ssl.transitions.GaussianTransition`. One that carries its state in other units
        than :meth:`step` does needs :meth:`restore`.
        """
        raise NotImplementedError

    def restore(self, carried: Any) -> Any:
        """Return a state as :meth:`step` takes it, of one that a stepper returned."""
        return carried

    @torch.no_grad()
    def replay(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> Tensor:
        """log p(z_s | z_{1:s-1}) of paths that go on from a state, for the samplers.

        Without gradient, and without dropout in any mode. Override it where one fused call beats
        the loop.

        :param Tensor z: the rest of N paths, time first, ``(S, N) + event_shape``.
        :param z_prev: the latent before it, ``(N,) + event_shape``; ``None`` if there is none.
        :param state: of ``(N, ...)`` tensors, as :meth:`step` takes it.
        :param inputs: exogenous inputs of these steps, ``(S, N, input_size)``.
        :returns: ``(S, N)``.
        """
        out = []
        for s, value in enumerate(z):
            law, state = self.step(z_prev, state, None if inputs is None else inputs[s])
            out.append(law.log_prob(value).expand(z.shape[1:2]))
            z_prev = value
        return torch.stack(out)


class DiscreteTransition(Transition):
    """A transition over K states: subclasses say what the logits are, all else follows.

    :param int num_states: K, the number of values that z_t takes.

    Write :meth:`initial_state` and :meth:`step_logits`. Override :meth:`path_logits` where one
    fused call beats the loop, and :meth:`stepper` where work can be done once per sweep.
    """

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.num_states = positive_size("num_states", num_states)

    def step_logits(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return unnormalised logits of p(z_t | z_{1:t-1}), ``(..., K)``, and the new state."""
        raise NotImplementedError

    def step(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[dist.Categorical, Any]:
        """Advance by one latent; see :meth:`Transition.step`."""
        logits, state = self.step_logits(z_prev, state, inputs)
        return dist.Categorical(logits=logits), state

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Logits of every step of a given path: ``(..., T)`` to ``(..., T, K)``."""
        state = self.initial_state(z.shape[:-1])
        z_prev, out = None, []
        for t in range(z.shape[-1]):
            logits, state = self.step_logits(
                z_prev, state, None if inputs is None else inputs[..., t, :]
            )
            out.append(logits.expand(z.shape[:-1] + (self.num_states,)))
            z_prev = z[..., t]
        return torch.stack(out, -2)

    def log_prob(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced log-probabilities, ``(..., T)``; see :meth:`Transition.log_prob`."""
        log_p = torch.log_softmax(self.path_logits(z, inputs), -1)
        return log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1)

    def stepper(self, inputs: Tensor | None = None) -> Stepper:
        """Return a step function for one sweep over *rows* of particles, without gradient.

        The sweep flattens sequences and particles to N rows, so that resampling is one row
        gather. ``stepper(z_prev, state, t)`` takes ``(N,)`` latents and a state of ``(N, ...)``
        tensors, and returns logits ``(N, K)`` and a new state.

        :param inputs: exogenous inputs by row, ``(T, N, input_size)``.
        """

        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Tensor, Any]:
            return self.step_logits(z_prev, state, None if inputs is None else inputs[t])

        return step
