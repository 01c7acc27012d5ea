r"""A Gaussian head over a recurrent cell that reads the latents.

.. math::
    s_t = \mathrm{cell}(s_{t-1}, [z_{t-1}; 1_{t=1}; u_t]), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{N}(\mu(s_t), \mathrm{diag}\, \sigma^2(s_t)).

With an LSTM it is Zheng et al. 2017 (arXiv 1711.11179), section 3, Example 1, eq. (9). At the first
step z_0 = 0, and the start flag tells it from a latent that happens to be 0. A cell may read the
increments z_{t-1} - z_{t-2} in place of z_{t-1}: what it learns then holds wherever the path goes.

Next file to read: ``distribution.py``.
"""

from __future__ import annotations

import math
from collections import namedtuple
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells import LSTMCell, MultiplicativeLSTMCell, RecurrentCell
from ..cells.linear_add import linear_add
from ..errors import positive_size
from .gaussian import GaussianStepper, GaussianTransition, Moments
from .recurrent_base import RecurrentBase

__all__ = [
    "GaussianLSTMTransition",
    "GaussianMultiplicativeLSTMTransition",
    "RecurrentGaussianTransition",
]

READS = ("positions", "increments")


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
        The first latent, which has none to step from, is then N(m, diag s²), with m and s learned
        apart (``initial_mean``, ``log_initial_scale``); they start as the standard normal.
    :param float min_scale: what the standard deviations never fall below, positive.
    :param str reads: ``"positions"``, z_{t-1}; or ``"increments"``, (z_{t-1} - z_{t-2}) /
        ``increment_scale`` and 0 while there is none, which asks for ``residual``: the law of a
        step is then the same wherever the path is, also where no path was while it was learned.
    :raises ValueError: if the cell's ``input_size`` is less than D+1, ``min_scale`` is not
        positive, or increments are read without ``residual``.

    *Reference*: Zheng et al., "State Space LSTM Models with Particle MCMC Inference", 2017,
    section 3, eq. (9).

    Example::

        >>> from pyro_ssl.cells import LSTMCell
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
        reads: str = "positions",
    ) -> None:
        super().__init__(dim)
        if not min_scale > 0:
            raise ValueError(
                f"{type(self).__name__}: min_scale must be positive, found {min_scale}; a scale "
                "that may fall to 0 is no density."
            )
        if reads not in READS or reads == "increments" and not residual:
            raise ValueError(
                f'{type(self).__name__}: reads="{reads}" with residual={residual}, expected one of '
                f"{READS}, and increments with residual=True alone: they do not say where z is."
            )
        of = "the latent's dimensions and the start flag"
        self._read_with(cell, self.dim + 1, dropout, of)
        self._cell_state_type: Any = type(cell.initial_state(()))
        self.head = nn.Linear(cell.hidden_size, 2 * self.dim)
        self.residual, self.min_scale = bool(residual), float(min_scale)
        if self.residual:
            zeros = self.head.bias.new_zeros
            self.initial_mean = nn.Parameter(zeros(self.dim))
            self.log_initial_scale = nn.Parameter(zeros(self.dim))
        self.reads = reads
        #: what increments are divided by: about their size, for the cell to tell them apart
        self.increment_scale = 1.0

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> Any:
        """Return the cell's state before the first latent, and with increments [z_0; 0]."""
        state = self.cell.initial_state(batch_shape)
        if self.reads == "positions":
            return state
        last = self.head.bias.new_zeros((*batch_shape, self.dim + 1))
        return _with_last(self._cell_state_type)(*state, last)

    def _read(self, z_prev: Tensor | None, state: Any) -> tuple[Tensor | None, Any, Any]:
        """What the cell reads of z_{t-1}, its state, and a function that packs its next one.

        With increments the state ends in ``last``, [z_{t-2}; 1], which is 0 while there is none.
        """
        if self.reads == "positions":
            return z_prev, state, lambda after: after
        *of_cell, last = state
        cell_state = self._cell_state_type(*of_cell)
        pack = _with_last(self._cell_state_type)
        if z_prev is None:
            return None, cell_state, lambda after: pack(*after, last)
        increment = (z_prev - last[..., :-1]) * (last[..., -1:] / self.increment_scale)
        now = F.pad(z_prev, (0, 1), value=1.0)
        return increment, cell_state, lambda after: pack(*after, now)

    def _input_map(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights of z_{t-1}, ``(G, D)``, of the start ``(G,)`` and of inputs, and the bias."""
        weight, bias = self.cell.input_map()
        return weight[:, : self.dim], weight[:, self.dim], weight[:, self.dim + 1 :], bias

    def _moments(self, out: Tensor, z_prev: Tensor | None) -> Moments:
        """What the output layer's ``(..., 2D)`` mean; ``z_prev`` is ``None`` at the start."""
        mean, raw = out.chunk(2, -1)
        if self.residual:
            if z_prev is None:
                scale = self.log_initial_scale.exp().clamp(min=self.min_scale)
                return Moments(*(v.expand_as(mean) for v in (self.initial_mean, scale)))
            mean = mean + z_prev
        # Contiguous: softplus of every other pair of numbers is not vectorised.
        return Moments(mean, F.softplus(raw.contiguous()) + self.min_scale)

    def _path_moments(self, out: Tensor, previous: Tensor, time_dim: int) -> Moments:
        """The same of all steps of paths, the first of which has no latent before it."""
        later = self._moments(out, previous)
        if not self.residual or not out.shape[time_dim]:
            return later
        first = self._moments(out.narrow(time_dim, 0, 1), None)
        n = out.shape[time_dim] - 1
        pairs = zip(first, later, strict=True)
        return Moments(*(torch.cat([a, b.narrow(time_dim, 1, n)], time_dim) for a, b in pairs))

    def step_moments(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Moments, Any]:
        """One step, differentiable and over any leading dimensions; see the base class."""
        latent, start, exogenous, bias = self._input_map()
        read, cell_state, pack = self._read(z_prev, state)
        projected = bias + start if read is None else F.linear(read, latent, bias)
        if inputs is not None:
            projected = projected + F.linear(inputs, exogenous)
        cell_state = self.cell.advance(projected, cell_state)
        return self._moments(self.head(cell_state.h), z_prev), pack(cell_state)

    def path_moments(self, z: Tensor, inputs: Tensor | None = None) -> Moments:
        """Teacher-forced moments by one call of the cell over the sequence; see the base class."""
        batch_shape, T = z.shape[:-2], z.shape[-2]
        previous = F.pad(z, (0, 0, 1, 0))[..., :T, :]  # z_{0:T-1} with z_0 = 0
        read = previous
        if self.reads == "increments":
            steps = z.diff(dim=-2)[..., : max(T - 2, 0), :] / self.increment_scale
            read = F.pad(steps, (0, 0, min(T, 2), 0))  # nothing was read before z_2
        x = read.reshape(math.prod(batch_shape), T, self.dim).transpose(0, 1)
        start = torch.zeros_like(x[..., :1])
        start[:1] = 1.0
        h = self._hidden(torch.cat([x, start], -1), inputs, batch_shape)
        return self._path_moments(self.head(h), previous, -2)

    def restore(self, carried: Any) -> Any:
        """Return the state in the cell's own units; see the base class."""
        if self.reads == "positions":
            return self.cell.restore(carried)
        *of_cell, last = carried
        cell_state = self.cell.restore(self._cell_state_type(*of_cell))
        return type(carried)(*cell_state, last)

    @torch.no_grad()
    def replay(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> Tensor:
        """By one call of the cell over the rest of the paths; see the base class."""
        first = torch.zeros_like(z[0]) if z_prev is None else z_prev
        previous = torch.cat([first.unsqueeze(0), z[:-1]])
        start = torch.zeros_like(previous[..., :1])
        if z_prev is None:
            start[0] = 1.0
        read, cell_state = previous, state
        if self.reads == "increments":
            first_read, cell_state, _ = self._read(z_prev, state)
            read = previous.diff(dim=0) / self.increment_scale
            if z_prev is None:
                read[:1] = 0.0  # z_1 is no increment
            first_read = torch.zeros_like(first) if first_read is None else first_read
            read = torch.cat([first_read.unsqueeze(0), read])
        x = torch.cat([read, start] if inputs is None else [read, start, inputs], -1)
        out = self.head(self.cell.replay(x, cell_state))
        moments = (
            self._path_moments(out, previous, 0) if z_prev is None else self._moments(out, previous)
        )
        return dist.Normal(*moments, validate_args=False).log_prob(z).sum(-1)

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
            read, cell_state, pack = self._read(z_prev, state)
            if read is None:  # the cell may overwrite what it is given: no shared rows
                projected = (addend + start).expand(len(state.h), -1).contiguous()
            else:
                projected = torch.addmm(addend, read, latent, out=buffer)
            after = advance(projected, cell_state)
            moments = self._moments(linear_add(after.h, head_weight, head_bias), z_prev)
            # A view of a parameter wants gradients even where none are taken.
            return Moments(*(value.detach() for value in moments)), pack(after)

        return step


@cache
def _with_last(cell_state: Any) -> Any:
    """The type of a cell's state and the last latent that was read."""
    return namedtuple(f"{cell_state.__name__}AndLast", [*cell_state._fields, "last"])


class GaussianLSTMTransition(RecurrentGaussianTransition):
    """p(z_t | z_{1:t-1}) = N(μ_t, diag σ_t²) with h_t from an LSTM over z_{1:t-1}.

    :param int dim: D, the dimension of z_t.
    :param int hidden_size: H, the number of LSTM units.
    :param int input_size: exogenous inputs per step, joined to z_{t-1}.
    :param float dropout: see :class:`RecurrentGaussianTransition`.
    :param bool residual: likewise.
    :param float min_scale: likewise.
    :param str reads: likewise.

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
        reads: str = "positions",
    ) -> None:
        cell = LSTMCell(positive_size("dim", dim) + 1 + input_size, hidden_size)
        super().__init__(
            dim, cell, dropout=dropout, residual=residual, min_scale=min_scale, reads=reads
        )


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
    :param str reads: likewise.
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
        reads: str = "positions",
        **cell: Any,
    ) -> None:
        cell_input_size = positive_size("dim", dim) + 1 + input_size
        super().__init__(
            dim,
            MultiplicativeLSTMCell(cell_input_size, hidden_size, **cell),
            dropout=dropout,
            residual=residual,
            min_scale=min_scale,
            reads=reads,
        )
