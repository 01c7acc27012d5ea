"""The distribution of a whole latent path, with event shape ``(T,)`` or ``(T, D)``, for Pyro.

T is a dimension of the event on purpose. If log p(z_t | z_{1:t-1}) were spread over a time plate,
``Trace_ELBO`` would treat log p(z_{t+1} | z_t) as independent of z_t, and drop it from z_t's cost.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ..arguments import broadcast_shapes, check_kind, check_lengths, check_tensor, sizes_of, whole
from ..steps import steps_within
from .base import DiscreteTransition, Transition

__all__ = ["PathDistribution"]


class PathDistribution(TorchDistribution):
    """p(z_{1:T}) of batch shape ``(...)`` and event shape ``(T,) + transition.event_shape``.

    :param Transition transition: p(z_t | z_{1:t-1}) of each step.
    :param int num_steps: T.
    :param Tensor inputs: exogenous inputs, batch first, ``(..., T, input_size)``.
    :param Tensor lengths: ``(...)``; steps at or past a sequence's length add nothing to
        ``log_prob`` and are drawn as 0.
    :param torch.Size batch_shape: batch shape beyond that of ``inputs`` and ``lengths``.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(
        self,
        transition: Transition,
        num_steps: int,
        *,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
        batch_shape: torch.Size | tuple[int, ...] = (),
        validate_args: bool | None = None,
    ) -> None:
        where, kind = "PathDistribution", Transition
        check_kind(where, "transition", transition, kind, "LSTMTransition(K, hidden_size=8)")
        num_steps, batch_shape = whole(where, "num_steps", num_steps, 0), torch.Size(batch_shape)
        transition._check_inputs(where, inputs, (..., num_steps))
        if lengths is not None:
            B = lengths.numel() if isinstance(lengths, Tensor) else 1
            flat = lengths.reshape(-1) if isinstance(lengths, Tensor) else lengths
            check_lengths(where, flat, num_steps, B, transition.like.device)
        self.transition, self.num_steps = transition, num_steps
        self.inputs, self.lengths = inputs, lengths
        batch_shape = broadcast_shapes(
            batch_shape,
            () if inputs is None else inputs.shape[:-2],
            () if lengths is None else lengths.shape,
        )
        event_shape = torch.Size((num_steps,)) + transition.event_shape
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """Integers in ``0..K-1`` where the transition is discrete, reals where it is not."""
        inner: constraints.Constraint = constraints.real
        if isinstance(self.transition, DiscreteTransition):
            inner = constraints.integer_interval(0, self.transition.num_states - 1)
        return constraints.independent(inner, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> PathDistribution:
        """Return the same distribution over a larger batch."""
        return PathDistribution(
            self.transition,
            self.num_steps,
            inputs=self.inputs,
            lengths=self.lengths,
            batch_shape=batch_shape,
            validate_args=False,
        )

    def _zero_past_length(self, value: Tensor, num_event_dims: int = 0) -> Tensor:
        """Put 0 into the steps ``(..., T) + (...)`` at or past each sequence's length."""
        if self.lengths is None:
            return value
        past = ~steps_within(self.lengths, self.num_steps, time_first=False)
        return value.masked_fill(past.reshape(past.shape + (1,) * num_event_dims), 0)

    def _inputs_for(self, batch_shape: torch.Size) -> Tensor | None:
        if self.inputs is None:
            return None
        return self.inputs.expand(batch_shape + self.inputs.shape[-2:])

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = torch.Size()) -> Tensor:
        """Draw paths step by step, ``sample_shape + batch_shape + event_shape``."""
        num_event_dims = len(self.transition.event_shape)
        sizes = sizes_of("PathDistribution.sample", "sample_shape", sample_shape)
        batch_shape = sizes + self.batch_shape
        inputs = self._inputs_for(batch_shape)
        state, z_prev, path = self.transition.initial_state(batch_shape), None, []
        for t in range(self.num_steps):
            p, state = self.transition.step(
                z_prev, state, None if inputs is None else inputs[..., t, :]
            )
            z_prev = p.expand(batch_shape).sample()
            path.append(z_prev)
        if not path:
            is_states = isinstance(self.transition, DiscreteTransition)
            dtype = torch.long if is_states else self.transition.like.dtype
            return self.transition.like.new_zeros(batch_shape + self.event_shape, dtype=dtype)
        return self._zero_past_length(torch.stack(path, -1 - num_event_dims), num_event_dims)

    def log_prob(self, value: Tensor) -> Tensor:
        """Teacher-forced log p(z_{1:T}), one fused call: ``(...) + event_shape`` to ``(...)``."""
        time_dim = -len(self.event_shape)
        where, event = "PathDistribution.log_prob", tuple(self.event_shape)
        is_states, like = len(event) == 1, self.transition.like
        check_tensor(
            where,
            "value",
            value,
            (..., *event),
            like=like,
            integer=is_states,
            write="value.T for paths (T, B)",
        )
        if self._validate_args and value.numel():  # torch cannot look at no sequence
            self._validate_sample(value)
        batch_shape = broadcast_shapes(value.shape[:time_dim], self.batch_shape)
        value = value.expand(batch_shape + value.shape[time_dim:])
        log_p = self.transition.log_prob(value, self._inputs_for(batch_shape))
        return self._zero_past_length(log_p).sum(-1)
