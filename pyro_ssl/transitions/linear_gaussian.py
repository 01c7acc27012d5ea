"""A linear Gaussian chain as transition: with a linear emission the Kalman filter is its oracle.

Next file to read: ``pyro_ssl/infer/kalman.py``, the exact answers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussian import GaussianTransition, Moments

__all__ = ["LinearGaussianState", "LinearGaussianTransition"]


class LinearGaussianState(NamedTuple):
    """A chain needs no state beyond z_{t-1}: ``batch``, ``(..., 0)``, says its shape alone."""

    batch: Tensor


class LinearGaussianTransition(GaussianTransition):
    """z_1 ~ N(m, diag s²) and z_t ~ N(A z_{t-1} + b, diag q²): a vector autoregression.

    What is left out is learnable, and starts as the standard random walk: A = 1, b = m = 0,
    q = s = 1. What is given is kept, and may be sampled in the model.

    :param int dim: D.
    :param Tensor matrix: A, ``(D, D)``.
    :param Tensor offset: b, ``(D,)``.
    :param Tensor scale: q, ``(D,)``, positive.
    :param Tensor initial_mean: m, ``(D,)``.
    :param Tensor initial_scale: s, ``(D,)``, positive.
    :raises ValueError: on a shape that does not fit.

    Example::

        >>> chain = LinearGaussianTransition(2, matrix=0.9 * torch.eye(2), scale=torch.ones(2))
        >>> chain.log_prob(torch.randn(3, 5, 2)).shape     # (B, T, D)
        torch.Size([3, 5])
        >>> sorted(name for name, _ in chain.named_parameters())
        ['initial_mean', 'log_initial_scale', 'offset']
    """

    matrix: Tensor
    offset: Tensor
    log_scale: Tensor
    initial_mean: Tensor
    log_initial_scale: Tensor

    def __init__(
        self,
        dim: int,
        *,
        matrix: Tensor | None = None,
        offset: Tensor | None = None,
        scale: Tensor | None = None,
        initial_mean: Tensor | None = None,
        initial_scale: Tensor | None = None,
    ) -> None:
        super().__init__(dim)
        D = self.dim
        self._keep("matrix", matrix, (D, D))
        self._keep("offset", offset, (D,))
        self._keep("scale", scale, (D,), log=True)
        self._keep("initial_mean", initial_mean, (D,))
        self._keep("initial_scale", initial_scale, (D,), log=True)

    def _keep(
        self, name: str, value: Tensor | None, shape: tuple[int, ...], log: bool = False
    ) -> None:
        """A given value as a buffer, through which gradients pass; else a parameter."""
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(
                f"LinearGaussianTransition: {name} has shape {tuple(value.shape)}, expected "
                f"{shape}; write LinearGaussianTransition({self.dim}, matrix=A, scale=q) with A "
                "(D, D) and the others (D,)."
            )
        full_name = f"log_{name}" if log else name
        if value is not None:
            self.register_buffer(full_name, value.log() if log else value)
            return
        like: dict[str, Any] = {
            "device": torch.get_default_device(),
            "dtype": torch.get_default_dtype(),
        }
        start = torch.zeros(shape, **like) if len(shape) == 1 else torch.eye(shape[0], **like)
        self.register_parameter(full_name, nn.Parameter(start))

    @property
    def scale(self) -> Tensor:
        """q, the standard deviations of a step, ``(D,)``."""
        return self.log_scale.exp()

    @property
    def initial_scale(self) -> Tensor:
        """s, the standard deviations of z_1, ``(D,)``."""
        return self.log_initial_scale.exp()

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> LinearGaussianState:
        """Return the state that holds nothing, for a batch."""
        return LinearGaussianState(self.offset.new_zeros((*batch_shape, 0)))

    def step_moments(
        self, z_prev: Tensor | None, state: LinearGaussianState, inputs: Tensor | None = None
    ) -> tuple[Moments, LinearGaussianState]:
        """m and s, then A z_{t-1} + b and q; see the base class."""
        if z_prev is None:
            shape = state.batch.shape[:-1] + self.event_shape
            moments = Moments(self.initial_mean.expand(shape), self.initial_scale.expand(shape))
            return moments, state
        mean = F.linear(z_prev, self.matrix, self.offset)
        return Moments(mean, self.scale.expand_as(mean)), state

    def path_moments(self, z: Tensor, inputs: Tensor | None = None) -> Moments:
        """Teacher-forced moments by one product; see the base class."""
        T, first = z.shape[-2], z.shape[:-2] + (1, self.dim)
        later = F.linear(z[..., :-1, :], self.matrix, self.offset)
        mean = torch.cat([self.initial_mean.expand(first), later], -2)
        scale = torch.cat([self.initial_scale.expand(first), self.scale.expand_as(later)], -2)
        return Moments(mean[..., :T, :], scale[..., :T, :])
