"""A linear Gaussian chain: with a linear emission the Kalman filter is exact.

Next file to read: ``pyro_ssl/exact/kalman.py``, the exact answers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_positive, check_tensor, whole
from .gaussian import GaussianTransition, Moments

__all__ = ["LinearGaussianState", "LinearGaussianTransition"]


class LinearGaussianState(NamedTuple):
    """A chain needs no state beyond z_{t-1}: ``batch``, ``(..., 0)``, only has the batch shape."""

    batch: Tensor


class LinearGaussianTransition(GaussianTransition):
    """z_1 ~ N(m, diag s²) and z_t ~ N(A z_{t-1} + b, diag q²): a vector autoregression.

    With exogenous inputs u_t the mean of z_t is A z_{t-1} + b + G u_t; z_1 reads none.

    Tensors that are given are kept as they are, and may be sampled in the model. Those left out are
    parameters, of the dtype and device of the others, and start as the standard random walk: A = 1,
    b = m = G = 0, q = s = 1.

    :param int dim: D.
    :param Tensor matrix: A, ``(D, D)``.
    :param Tensor offset: b, ``(D,)``.
    :param Tensor scale: q, ``(D,)``, positive.
    :param Tensor initial_mean: m, ``(D,)``.
    :param Tensor initial_scale: s, ``(D,)``, positive.
    :param int input_size: U, how many exogenous inputs a step reads.
    :param Tensor input_matrix: G, ``(D, U)``.
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
    #: G, ``(D, U)``; ``None`` where there are no inputs
    input_matrix: Tensor | None

    def __init__(
        self,
        dim: int,
        *,
        matrix: Tensor | None = None,
        offset: Tensor | None = None,
        scale: Tensor | None = None,
        initial_mean: Tensor | None = None,
        initial_scale: Tensor | None = None,
        input_size: int = 0,
        input_matrix: Tensor | None = None,
    ) -> None:
        super().__init__(dim)
        self.input_size = whole("LinearGaussianTransition", "input_size", input_size, 0)
        values = {"matrix": matrix, "offset": offset, "log_scale": scale}
        values |= {"initial_mean": initial_mean, "log_initial_scale": initial_scale}
        if self.input_size or input_matrix is not None:
            values["input_matrix"] = input_matrix
        for name, value in values.items():
            if value is not None:
                self._keep(name, value)
        zeros = self.like.new_zeros(self.dim)
        starts = {"matrix": torch.diag(zeros + 1.0)}
        starts["input_matrix"] = zeros.new_zeros(self.dim, self.input_size)
        for name, value in values.items():
            if value is None:
                self.register_parameter(name, nn.Parameter(starts.get(name, zeros).clone()))
        if "input_matrix" not in values:
            self.input_matrix = None

    def _keep(self, name: str, value: Tensor) -> None:
        """Make a given value a buffer, through which gradients pass."""
        D, given_as, where = self.dim, name.removeprefix("log_"), "LinearGaussianTransition"
        shapes = {"matrix": (D, D), "input_matrix": (D, self.input_size)}
        shape = shapes.get(name, (D,))
        write = f"{where}({D}, matrix=A, scale=q) with A (D, D) and the others (D,)"
        if name == "input_matrix":
            write = f"{where}({D}, input_matrix=G, input_size=U) with G (D, U)"
        like = next(iter(self._buffers.values()), None)  # the first that was given
        check_tensor(where, given_as, value, shape, like=like, write=write)
        if name != given_as:
            check_positive(where, given_as, value)
        self.register_buffer(name, value if name == given_as else value.log())

    @property
    def scale(self) -> Tensor:
        """q, the standard deviations of a step, ``(D,)``."""
        return self.log_scale.exp()

    @property
    def initial_scale(self) -> Tensor:
        """s, the standard deviations of z_1, ``(D,)``."""
        return self.log_initial_scale.exp()

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> LinearGaussianState:
        """Return the empty state of a batch."""
        return LinearGaussianState(self.offset.new_zeros((*batch_shape, 0)))

    def step_moments(
        self, z_prev: Tensor | None, state: LinearGaussianState, inputs: Tensor | None = None
    ) -> tuple[Moments, LinearGaussianState]:
        """m and s, then A z_{t-1} + b and q; see the base class."""
        if z_prev is None:
            shape = state.batch.shape[:-1] + self.event_shape
            moments = Moments(self.initial_mean.expand(shape), self.initial_scale.expand(shape))
            return moments, state
        mean = self.ahead(z_prev, inputs)
        return Moments(mean, self.scale.expand_as(mean)), state

    def drift(self, inputs: Tensor | None) -> Tensor:
        """b + G u_t, what a step adds to A z_{t-1}: ``(..., U)`` to ``(..., D)``."""
        if inputs is None or self.input_matrix is None:
            return self.offset
        return F.linear(inputs, self.input_matrix, self.offset)

    def ahead(self, z_prev: Tensor, inputs: Tensor | None = None) -> Tensor:
        """A z_{t-1} + b + G u_t, the mean of z_t: ``(..., D)``."""
        if inputs is None:
            return F.linear(z_prev, self.matrix, self.offset)
        return F.linear(z_prev, self.matrix) + self.drift(inputs)

    def path_moments(self, z: Tensor, inputs: Tensor | None = None) -> Moments:
        """Teacher-forced moments by one product; see the base class."""
        T, first = z.shape[-2], z.shape[:-2] + (1, self.dim)
        inputs = None if inputs is None else inputs[..., 1:, :]
        later = self.ahead(z[..., :-1, :], inputs)
        mean = torch.cat([self.initial_mean.expand(first), later], -2)
        scale = torch.cat([self.initial_scale.expand(first), self.scale.expand_as(later)], -2)
        return Moments(mean[..., :T, :], scale[..., :T, :])
