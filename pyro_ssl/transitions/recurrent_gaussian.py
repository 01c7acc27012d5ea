r"""A Gaussian head over a recurrent cell that reads the latents.

.. math::
    s_t = \mathrm{cell}(s_{t-1}, [z_{t-1}; 1_{t=1}; u_t]), \qquad
    z_t \mid z_{1:t-1} \sim \mathrm{N}(\mu(s_t), \mathrm{diag}\, \sigma^2(s_t)).

With an LSTM it is Zheng et al. 2017 (arXiv 1711.11179), section 3, Example 1, eq. (9). At the first
step z_0 = 0, and the start flag distinguishes it from a latent that happens to be 0. A cell may
read the increments z_{t-1} - z_{t-2} in place of z_{t-1}: its prediction of the next increment then
does not depend on where the path is. And it may only correct a linear chain, A z_{t-1} + b + G u_t:
what the chain explains need not be learned by the cell.

Next files to read: ``recurrent_base.py``, what it shares with the categorical head; ``lstm.py``,
the ready-made ones.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_kind, check_share
from ..cells import RecurrentCell
from .gaussian import GaussianStepper, GaussianTransition, Moments
from .linear_gaussian import LinearGaussianTransition
from .recurrent_base import RecurrentBase

__all__ = ["ReadState", "RecurrentGaussianTransition"]

READS = ("positions", "increments")


class ReadState(NamedTuple):
    """State of the Gaussian head: the cell's, and where the next increment starts.

    ``last`` is [z_{t-2}; 1], ``(..., D+1)``, and 0 while there is no z_{t-2}. It is empty,
    ``(..., 0)``, where positions are read.
    """

    cell: Any
    last: Tensor


class RecurrentGaussianTransition(RecurrentBase, GaussianTransition):
    r"""p(z_t | z_{1:t-1}) = N(μ_t, diag σ_t²) with h_t from a cell over z_{1:t-1}.

    μ_t = W_μ h_t + b_μ, to which ``residual`` adds z_{t-1}, and σ_t = softplus(W_σ h_t + b_σ) +
    ``min_scale``.

    :param int dim: D, the dimension of z_t.
    :param RecurrentCell cell: reads D+1 numbers, z_{t-1} and the start flag, and after them the
        exogenous inputs, if it has room for more.
    :param float dropout: in ``train()`` mode, probability of dropping a unit of h_t before the
        output layer, on teacher-forced paths only: learning sees it, the samplers never do.
    :param bool residual: let the mean be a step from z_{t-1}, which makes slow paths easy to learn.
        The first latent has none to step from, and is then N(m, diag s²) with parameters of its
        own (``initial_mean``, ``log_initial_scale``), initially the standard normal.
    :param float min_scale: lower bound of the standard deviations, positive; a buffer.
    :param str reads: ``"positions"``, z_{t-1}; or ``"increments"``, (z_{t-1} - z_{t-2}) /
        ``increment_scale`` and 0 while there is no z_{t-2}; these need ``residual=True``.
    :param float increment_scale: about the size of an increment, positive, so that the cell reads
        numbers of about 1; a buffer.
    :param LinearGaussianTransition around: a chain that the cell corrects: μ_t is its mean
        A z_{t-1} + b + G u_t and q (W_μ h_t + b_μ), and σ_t is q (softplus(W_σ h_t + b_σ) +
        ``min_scale``). z_1 is the chain's. With ``head.weight`` 0 it is the chain, but for σ_t.
    :raises ValueError: if ``around`` does not fit, the cell's ``input_size`` is less than D+1, a
        scale is not positive, or increments are read without ``residual``.

    *Reference*: Zheng et al., "State Space LSTM Models with Particle MCMC Inference", 2017,
    section 3, eq. (9).

    Example::

        >>> from pyro_ssl.cells import LSTMCell
        >>> transition = RecurrentGaussianTransition(2, LSTMCell(input_size=2 + 1, hidden_size=8))
        >>> transition.log_prob(torch.randn(3, 5, 2)).shape     # (B, T, D)
        torch.Size([3, 5])
    """

    min_scale: Tensor
    increment_scale: Tensor

    def __init__(
        self,
        dim: int,
        cell: RecurrentCell,
        *,
        dropout: float = 0.0,
        residual: bool = False,
        min_scale: float = 1e-3,
        reads: str = "positions",
        increment_scale: float = 1.0,
        around: LinearGaussianTransition | None = None,
    ) -> None:
        super().__init__(dim)
        scales = {"min_scale": min_scale, "increment_scale": increment_scale}
        self.check_options(dropout=dropout, residual=residual, reads=reads, around=around, **scales)
        of = "the latent's dimensions and the start flag"
        self._build(cell, self.dim + 1, of, 2 * self.dim, dropout)
        self.residual, self.reads, self.around = bool(residual), reads, around
        if around is not None and (around.dim, around.input_size) != (self.dim, self.input_size):
            raise ValueError(
                f"{type(self).__name__}: around has {around.dim} latents and {around.input_size} "
                f"inputs, expected {self.dim} and {self.input_size}, as the cell; write "
                f"LinearGaussianTransition({self.dim}, input_size={self.input_size})."
            )
        if self.residual and around is None:
            zeros = self.head.bias.new_zeros
            self.initial_mean = nn.Parameter(zeros(self.dim))
            self.log_initial_scale = nn.Parameter(zeros(self.dim))
        for name, value in scales.items():
            self.register_buffer(name, self.head.bias.new_tensor(float(value)))

    @classmethod
    def check_options(
        cls,
        *,
        dropout: float = 0.0,
        residual: bool = False,
        min_scale: float = 1e-3,
        reads: str = "positions",
        increment_scale: float = 1.0,
        around: LinearGaussianTransition | None = None,
    ) -> None:
        """Check the constructor's options, before a cell is made, which draws its weights.

        :raises TypeError: if ``around`` is of another class.
        :raises ValueError: if one is out of range.
        """
        if around is not None:
            write = f"{cls.__name__}(dim, ..., around=LinearGaussianTransition(dim))"
            check_kind(cls.__name__, "around", around, LinearGaussianTransition, write)
            residual = True
        check_share(cls.__name__, "dropout", dropout)
        for name, value in {"min_scale": min_scale, "increment_scale": increment_scale}.items():
            if not 0 < value < math.inf:
                raise ValueError(
                    f"{cls.__name__}: {name} must be positive, found {value}; expected a "
                    "number in units of the latents. Leave it out for the default."
                )
        if reads not in READS or reads == "increments" and not residual:
            raise ValueError(
                f'{cls.__name__}: reads="{reads}" with residual={residual}, expected one of '
                f"{READS}, and increments with residual=True only, since they do not determine z."
            )

    def __setattr__(self, name: str, value: Any) -> None:
        """Fill a scale's buffer where a number is assigned to it."""
        if name in ("min_scale", "increment_scale") and isinstance(value, int | float):
            self._buffers[name].fill_(value)  # type: ignore[union-attr]
        else:
            super().__setattr__(name, value)

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> ReadState:
        """Return the cell's state before the first latent, and no z_{t-2}."""
        size = self.dim + 1 if self.reads == "increments" else 0
        last = self.head.bias.new_zeros((*batch_shape, size))
        return ReadState(self.cell.initial_state(batch_shape), last)

    def _cell_state(self, state: ReadState) -> Any:
        return state.cell

    # --------------------------------------------------------------------- what the cell reads

    def _increment(self, z: Tensor, last: Tensor) -> Tensor:
        return (z - last[..., :-1]) * (last[..., -1:] / self.increment_scale)

    def _encode_step(self, z_prev: Tensor | None, last: Tensor) -> tuple[Tensor | None, Tensor]:
        """What the cell reads of z_{t-1}, ``None`` at the start, and ``last`` of the next state."""
        if z_prev is None or self.reads == "positions":
            return z_prev, last
        return self._increment(z_prev, last), F.pad(z_prev, (0, 1), value=1.0)

    def _encode(self, previous: Tensor, at_start: bool, state: ReadState | None) -> list[Tensor]:
        read, start = previous, torch.zeros_like(previous[..., :1])
        if at_start:
            start[0] = 1.0
        if self.reads == "increments":
            later = F.pad(previous[:-1], (0, 1), value=1.0)
            first = later.new_zeros(*previous.shape[1:-1], self.dim + 1)
            last = torch.cat([(first if state is None else state.last).unsqueeze(0), later])
            if at_start:
                last[:2, :, -1] = 0.0  # z_0 is no latent: no increments to it or from it
            read = self._increment(previous, last)
        return [read, start]

    # --------------------------------------------------------------------- what becomes of h

    def _initial_moments(self) -> Moments:
        """Moments of z_1, each ``(D,)``, where the mean is a step from z_{t-1}."""
        if self.around is not None:
            return Moments(self.around.initial_mean, self.around.initial_scale)
        scale = self.log_initial_scale.exp().clamp(min=self.min_scale)
        return Moments(self.initial_mean, scale)

    @property
    def _steps_from_last(self) -> bool:
        """Whether the mean is a step from z_{t-1}, so that z_1 has moments of its own."""
        return self.residual or self.around is not None

    def _moments(self, out: Tensor, z_prev: Tensor | None, inputs: Tensor | None = None) -> Moments:
        """Moments from the output layer's ``(..., 2D)``; ``z_prev`` is ``None`` at the start."""
        mean, raw = out.chunk(2, -1)
        if self._steps_from_last and z_prev is None:
            return Moments(*(v.expand_as(mean) for v in self._initial_moments()))
        # Contiguous: softplus of strided numbers is not vectorised.
        scale = F.softplus(raw.contiguous()) + self.min_scale
        if z_prev is None:
            return Moments(mean, scale)
        if self.around is not None:
            unit = self.around.scale
            return Moments(self.around.ahead(z_prev, inputs) + unit * mean, unit * scale)
        return Moments(mean + z_prev if self.residual else mean, scale)

    def _path_moments(
        self,
        out: Tensor,
        previous: Tensor,
        at_start: bool,
        time_dim: int,
        inputs: Tensor | None,
    ) -> Moments:
        """Moments of all steps of paths; if ``at_start``, no latent is before the first."""
        later, T = self._moments(out, previous, inputs), out.shape[time_dim]
        if not (self._steps_from_last and at_start and T):
            return later
        first = self._moments(out.narrow(time_dim, 0, 1), None)
        pairs = zip(first, later, strict=True)
        return Moments(*(torch.cat([a, b.narrow(time_dim, 1, T - 1)], time_dim) for a, b in pairs))

    def _score(
        self, out: Tensor, z: Tensor, previous: Tensor, at_start: bool, inputs: Tensor | None
    ) -> Tensor:
        moments = self._path_moments(out, previous, at_start, 0, inputs)
        return dist.Normal(*moments, validate_args=False).log_prob(z).sum(-1)

    def step_moments(
        self, z_prev: Tensor | None, state: ReadState, inputs: Tensor | None = None
    ) -> tuple[Moments, ReadState]:
        """One step, differentiable and over any leading dimensions; see the base class."""
        encoding, exogenous, bias = self._input_map()
        latent, start = encoding[:, :-1], encoding[:, -1]
        read, last = self._encode_step(z_prev, state.last)
        projected = bias + start if read is None else F.linear(read, latent, bias)
        if inputs is not None:
            projected = projected + F.linear(inputs, exogenous)
        cell = self.cell.advance(projected, state.cell)
        return self._moments(self.head(cell.h), z_prev, inputs), ReadState(cell, last)

    def path_moments(self, z: Tensor, inputs: Tensor | None = None) -> Moments:
        """Teacher-forced moments by one call of the cell over the sequence; see the base class."""
        previous = F.pad(z, (0, 0, 1, 0))[..., :-1, :]  # z_{0:T-1} with z_0 = 0
        out = self.head(self._hidden(z, inputs))
        return self._path_moments(out, previous, True, -2, inputs)

    @torch.no_grad()
    def stepper(self, inputs: Tensor | None = None) -> GaussianStepper:
        """Step function with the weights arranged once per sweep; see the base class."""
        encoding, bias, exogenous, advance, head = self._arranged(inputs)
        latent, start = encoding[:-1], encoding[-1]
        addends = None if exogenous is None else exogenous.add_(bias)
        buffer = bias.new_empty(0)  # (N, G), reused: allocating costs more than the product

        @torch.no_grad()
        def step(z_prev: Tensor | None, state: ReadState, t: int) -> tuple[Moments, ReadState]:
            addend = bias if addends is None else addends[t]
            read, last = self._encode_step(z_prev, state.last)
            if read is None:  # the cell may overwrite what it is given: no shared rows
                projected = (addend + start).expand(len(last), -1).contiguous()
            else:
                projected = torch.addmm(addend, read, latent, out=buffer)
            cell = advance(projected, state.cell)
            moments = self._moments(head(cell.h), z_prev, None if inputs is None else inputs[t])
            # A view of a parameter requires grad even under no_grad.
            return Moments(*(value.detach() for value in moments)), ReadState(cell, last)

        return step
