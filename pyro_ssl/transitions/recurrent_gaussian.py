r"""A Gaussian head over a recurrent cell that reads the latents.

.. math::
    s_t = \mathrm{cell}(s_{t-1}, [z_{t-1}; 1_{t=1}; u_t]), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{N}(\mu(s_t), \mathrm{diag}\, \sigma^2(s_t)).

With an LSTM it is Zheng et al. 2017 (arXiv 1711.11179), section 3, Example 1, eq. (9). At the first
step z_0 = 0, and the start flag tells it from a latent that happens to be 0.

Next file to read: ``distribution.py``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import positive_size
from .cells import LSTMCell, RecurrentCell
from .gaussian import GaussianStepper, GaussianTransition, Moments
from .linear_add import linear_add
from .multiplicative import MultiplicativeLSTMCell
from .recurrent_base import RecurrentBase

__all__ = [
    "GaussianLSTMTransition",
    "GaussianMultiplicativeLSTMTransition",
    "RecurrentGaussianTransition",
]


class RecurrentGaussianTransition(RecurrentBase, GaussianTransition):
    r"""p(z_t | z_{1:t-1}) = N(μ_t, diag σ_t²) with h_t from a cell over z_{1:t-1}.

    μ_t = W_μ h_t + b_μ, to which ``residual`` adds z_{t-1}, and σ_t = softplus(W_σ h_t + b_σ) +
    ``min_scale``.

    :param int dim: D, the dimension of z_t.
    :param RecurrentCell cell: reads D+1 numbers, z_{t-1} and the start flag, and after them the
        exogenous inputs, if it has room for more.
    :param float dropout: in ``train()`` mode, probability of dropping a unit of h_t before the
        output layer, on teacher-forced paths only: learning sees it, the samplers never do.
    :param bool residual: let the mean be a step from z_{t-1}: slow paths are then easy to learn.
    :param float min_scale: what the standard deviations never fall below, positive.
    :raises ValueError: if the cell's ``input_size`` is less than D+1, or ``min_scale`` is not
        positive.

    *Reference*: Zheng et al., "State Space LSTM Models with Particle MCMC Inference", 2017,
    section 3, eq. (9).

    Example::

        >>> from pyro_ssl.transitions import LSTMCell
        >>> transition = RecurrentGaussianTransition(2, LSTMCell(input_size=2 + 1, hidden_size=8))
        >>> transition.log_prob(torch.randn(3, 5, 2)).shape     # (B, T, D)
        torch.Size([3, 5])
    """

    def __init__(
        self,
        dim: int,
        cell: RecurrentCell,
        *,
        dropout: float = 0.0,
        residual: bool = False,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__(dim)
        if not min_scale > 0:
            raise ValueError(
                f"{type(self).__name__}: min_scale must be positive, found {min_scale}; a scale "
                "that may fall to 0 is no density."
            )
        of = "the latent's dimensions and the start flag"
        self._read_with(cell, self.dim + 1, dropout, of)
        self.head = nn.Linear(cell.hidden_size, 2 * self.dim)
        self.residual, self.min_scale = bool(residual), float(min_scale)

    def _input_map(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights of z_{t-1}, ``(G, D)``, of the start ``(G,)`` and of inputs, and the bias."""
        weight, bias = self.cell.input_map()
        return weight[:, : self.dim], weight[:, self.dim], weight[:, self.dim + 1 :], bias

    def _moments(self, out: Tensor, z_prev: Tensor | None) -> Moments:
        """What the output layer's ``(..., 2D)`` mean; ``z_prev`` is ``None`` where it is 0."""
        mean, raw = out.chunk(2, -1)
        if self.residual and z_prev is not None:
            mean = mean + z_prev
        # Contiguous: softplus of every other pair of numbers is not vectorised.
        return Moments(mean, F.softplus(raw.contiguous()) + self.min_scale)

    def step_moments(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Moments, Any]:
        """One step, differentiable and over any leading dimensions; see the base class."""
        latent, start, exogenous, bias = self._input_map()
        projected = bias + start if z_prev is None else F.linear(z_prev, latent, bias)
        if inputs is not None:
            projected = projected + F.linear(inputs, exogenous)
        state = self.cell.advance(projected, state)
        return self._moments(self.head(state.h), z_prev), state

    def path_moments(self, z: Tensor, inputs: Tensor | None = None) -> Moments:
        """Teacher-forced moments by one call of the cell over the sequence; see the base class."""
        batch_shape, T = z.shape[:-2], z.shape[-2]
        previous = F.pad(z, (0, 0, 1, 0))[..., :T, :]  # z_{0:T-1} with z_0 = 0
        x = previous.reshape(math.prod(batch_shape), T, self.dim).transpose(0, 1)
        start = torch.zeros_like(x[..., :1])
        start[:1] = 1.0
        h = self._hidden(torch.cat([x, start], -1), inputs, batch_shape)
        return self._moments(self.head(h), previous)

    @torch.no_grad()
    def stepper(self, inputs: Tensor | None = None) -> GaussianStepper:
        """Step function with the weights arranged once per sweep; see the base class."""
        scale, advance, hidden_scale = self.cell.stepper()
        latent, start, exogenous, bias = self._input_map()
        latent, start, bias = (latent * scale[:, None]).T.contiguous(), start * scale, bias * scale
        addends = None if inputs is None else F.linear(inputs, exogenous * scale[:, None], bias)
        head_weight, head_bias = hidden_scale * self.head.weight, self.head.bias
        buffer = bias.new_empty(0)  # (N, G), reused: fresh pages cost more than the product

        @torch.no_grad()
        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Moments, Any]:
            addend = bias if addends is None else addends[t]
            if z_prev is None:  # the cell may overwrite what it is given: no shared rows
                projected = (addend + start).expand(len(state.h), -1).contiguous()
            else:
                projected = torch.addmm(addend, z_prev, latent, out=buffer)
            state = advance(projected, state)
            return self._moments(linear_add(state.h, head_weight, head_bias), z_prev), state

        return step


class GaussianLSTMTransition(RecurrentGaussianTransition):
    """p(z_t | z_{1:t-1}) = N(μ_t, diag σ_t²) with h_t from an LSTM over z_{1:t-1}.

    :param int dim: D, the dimension of z_t.
    :param int hidden_size: H, the number of LSTM units.
    :param int input_size: exogenous inputs per step, joined to z_{t-1}.
    :param float dropout: see :class:`RecurrentGaussianTransition`.
    :param bool residual: likewise.
    :param float min_scale: likewise.

    Example::

        >>> transition = GaussianLSTMTransition(dim=2, hidden_size=8)
        >>> transition.log_prob(torch.randn(3, 5, 2)).shape     # (B, T, D)
        torch.Size([3, 5])
    """

    def __init__(
        self,
        dim: int,
        hidden_size: int,
        *,
        input_size: int = 0,
        dropout: float = 0.0,
        residual: bool = False,
        min_scale: float = 1e-3,
    ) -> None:
        cell = LSTMCell(positive_size("dim", dim) + 1 + input_size, hidden_size)
        super().__init__(dim, cell, dropout=dropout, residual=residual, min_scale=min_scale)


class GaussianMultiplicativeLSTMTransition(RecurrentGaussianTransition):
    """As :class:`GaussianLSTMTransition`, with a multiplicative LSTM (Krause et al. 2016).

    z_{t-1} scales what is read of h_{t-1}: where z is 0 and there are no inputs, the past reaches
    the gates through the memory c alone.

    :param int dim: D, the dimension of z_t.
    :param int hidden_size: H, the number of units.
    :param int input_size: exogenous inputs per step, joined to z_{t-1}.
    :param float dropout: see :class:`RecurrentGaussianTransition`.
    :param bool residual: likewise.
    :param float min_scale: likewise.
    :param cell: ``squash``, ``weight_norm``, ``variational_dropout`` and ``forget_bias`` of
        :class:`MultiplicativeLSTMCell`.

    Example::

        >>> transition = GaussianMultiplicativeLSTMTransition(dim=2, hidden_size=8)
        >>> transition.log_prob(torch.randn(3, 5, 2)).shape     # (B, T, D)
        torch.Size([3, 5])
    """

    def __init__(
        self,
        dim: int,
        hidden_size: int,
        *,
        input_size: int = 0,
        dropout: float = 0.0,
        residual: bool = False,
        min_scale: float = 1e-3,
        **cell: Any,
    ) -> None:
        reads = positive_size("dim", dim) + 1 + input_size
        super().__init__(
            dim,
            MultiplicativeLSTMCell(reads, hidden_size, **cell),
            dropout=dropout,
            residual=residual,
            min_scale=min_scale,
        )
