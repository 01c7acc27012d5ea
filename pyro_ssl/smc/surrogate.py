r"""Markov surrogates of a transition: where the twist β of ``twist.py`` comes from.

A surrogate is a chain whose step resembles the transition's, averaged over all that came before
z_{t-1}. Its backward messages,

.. math:: β_{t-1}(j) ∝ \sum_k A_{jk} \, p(x_t \mid z_t = k) \, β_t(k), \qquad β_T = 1,

are p(x_{t:T} | z_{t-1} = j) of that chain, one (B, K) x (K, K) product a step. Over vectors the
chain is z_t = F z_{t-1} + c + N(0, Q), and β the backward information filter. The sweep stays exact
with any of them; :func:`fit_surrogate` takes the transition's parameters and nothing of the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from ..gradients import evaluating
from ..kernels.messages import compiled_messages
from ..steps import steps_within
from ..transitions import (
    DiscreteTransition,
    GaussianTransition,
    LinearGaussianTransition,
    MarkovTransition,
    Transition,
)
from .emissions import Emission, QuadraticEmission, TableEmission
from .roll_out import Draw, run_on

__all__ = ["LinearSurrogate", "MarkovSurrogate", "Surrogate", "fit_surrogate"]

#: share of the uniform distribution in each row of A: β never falls below it over K
FLOOR = 0.02
#: steps of prior paths that a surrogate is fitted to, in all
NUM_STEPS = 50_000
#: steps' worth of the mean over all steps in the matrix of each step
LEAN = 10.0
#: more entries than this, and all steps share one matrix
MAX_ENTRIES = 2**24
#: sequences raised to more powers than this share the messages of power 1
MAX_POWERS = 16


class Surrogate(ABC):
    """A chain in place of p(z_t | z_{1:t-1})."""

    @abstractmethod
    def twist(
        self, emission: Emission, lengths: Tensor | None = None, scale: Tensor | None = None
    ) -> Emission:
        """Return log β_t(z_t) of the chain under an emission; 0 at every sequence's last step.

        :param Tensor lengths: ``(B,)``.
        :param Tensor scale: power of p(z_t | z_{1:t-1}), ``(B,)``.
        """


class MarkovSurrogate(Surrogate):
    """A Markov chain over K states.

    :param Tensor matrix: p(z_t = k | z_{t-1} = j) in row j, ``(K, K)``; or ``(T, K, K)``, of which
        entry t leads to step t.
    :param float floor: share of the uniform distribution that is mixed into each row.
    """

    def __init__(self, matrix: Tensor, floor: float = FLOOR) -> None:
        self.matrix = (1.0 - floor) * matrix.detach() + floor / matrix.shape[-1]

    @classmethod
    def from_sums(cls, total: Tensor, count: Tensor) -> MarkovSurrogate:
        """Make the mean of p(z_t | z_{1:t-1}) by z_{t-1}; rows hardly met lean on the mean row.

        :param Tensor total: sums of p(z_t = k | z_{1:t-1}) over steps of z_{t-1} = j in row j,
            ``(K, K)``; or ``(T, K, K)``, each step's own, which lean on their mean over all steps.
        :param Tensor count: how many steps these are, ``(K,)`` or ``(T, K)``.
        """
        pooled, n = (total, count) if total.dim() == 2 else (total.sum(0), count.sum(0))
        mean = (pooled.sum(0) + 1.0 / total.shape[-1]) / (n.sum() + 1.0)
        pooled = (pooled + mean) / (n.unsqueeze(-1) + 1.0)
        if total.dim() == 2:
            return cls(pooled)
        return cls((total + LEAN * pooled) / (count.unsqueeze(-1) + LEAN))

    @torch.no_grad()
    def twist(
        self, emission: Emission, lengths: Tensor | None = None, scale: Tensor | None = None
    ) -> TableEmission:
        """Return the backward messages; see the base class."""
        assert isinstance(emission, TableEmission)
        table = emission.table
        if scale is None:
            return TableEmission(self._messages(self.matrix, table, lengths))
        powers, group = scale.unique(return_inverse=True)
        if len(powers) > MAX_POWERS:
            return self.twist(emission, lengths)
        log_beta = torch.zeros_like(table)
        for i, power in enumerate(powers):
            index = (group == i).nonzero().squeeze(-1)
            some = None if lengths is None else lengths[index]
            log_beta[:, index] = self._messages(self.matrix**power, table[:, index], some)
        return TableEmission(log_beta)

    def _messages(self, matrix: Tensor, table: Tensor, lengths: Tensor | None) -> Tensor:
        """log β_t(k), of maximum 0, ``(T, B, K)``."""
        T = len(table)
        finfo = torch.finfo(table.dtype)
        emission = (table - table.amax(-1, keepdim=True).clamp_(min=finfo.min)).exp_()
        back = matrix.to(table).mT.contiguous()
        found = compiled_messages(back, emission, lengths)
        if found is not None:
            return found.clamp_(min=finfo.tiny).log_()
        active = None if lengths is None else steps_within(lengths, T).unsqueeze(-1)
        beta = torch.ones_like(table)
        for t in range(T - 1, 0, -1):
            now = (emission[t] * beta[t]) @ (back if back.dim() == 2 else back[t])
            greatest = now.amax(-1, keepdim=True)
            possible = greatest > 0  # else no path explains x_t: the sweep itself will say so
            if active is not None:
                possible &= active[t]
            beta[t - 1] = torch.where(possible, now / greatest, 1.0)
        return beta.clamp_(min=finfo.tiny).log_()


class LinearSurrogate(Surrogate):
    """z_t = F z_{t-1} + c + N(0, Q).

    :param Tensor matrix: F, ``(D, D)``.
    :param Tensor offset: c, ``(D,)``.
    :param Tensor covariance: Q, ``(D, D)``.
    :param Tensor center: where log β is expanded, ``(D,)``; by default 0.
    """

    def __init__(
        self, matrix: Tensor, offset: Tensor, covariance: Tensor, center: Tensor | None = None
    ) -> None:
        # Products of many small matrices: float64 costs nothing and keeps large offsets exact.
        self.matrix, self.covariance = matrix.detach().double(), covariance.detach().double()
        center = torch.zeros_like(offset) if center is None else center
        self.center = center.detach().double()
        # of z - center
        self.offset = offset.detach().double() + self.matrix @ self.center - self.center

    @torch.no_grad()
    def twist(
        self, emission: Emission, lengths: Tensor | None = None, scale: Tensor | None = None
    ) -> QuadraticEmission:
        """Return the backward information filter's messages; see the base class."""
        assert isinstance(emission, QuadraticEmission)
        function = emission.function
        m, L = function.center.double(), function.precision.double()
        T, B, D = m.shape
        h = function.linear.double() + (L @ (m - self.center).unsqueeze(-1)).squeeze(-1)
        covariance = self.covariance.expand(B, D, D)
        if scale is not None:  # N(z; μ, Q) to the power s is N(z; μ, Q / s)
            covariance = covariance / scale.double()[:, None, None]
        eye = torch.eye(D, dtype=h.dtype, device=h.device)
        active = None if lengths is None else steps_within(lengths, T)
        precision, linear = torch.zeros_like(L), torch.zeros_like(h)
        for t in range(T - 1, 0, -1):
            J, b = precision[t] + L[t], linear[t] + h[t]  # of p(x_t | z_t) β_t(z_t)
            # Fᵀ (I + J Q)⁻¹ [J F, b - J c]
            right = torch.cat([J @ self.matrix, (b - J @ self.offset).unsqueeze(-1)], -1)
            both = self.matrix.mT @ torch.linalg.solve(eye + J @ covariance, right)
            J, b = both[..., :D], both[..., D]
            if active is not None:
                J = torch.where(active[t, :, None, None], J, 0.0)
                b = torch.where(active[t, :, None], b, 0.0)
            precision[t - 1], linear[t - 1] = 0.5 * (J + J.mT), b
        center = self.center.expand(T, B, D)
        parts = (center, torch.zeros_like(h[..., 0]), linear, precision)
        return QuadraticEmission(*(part.to(function.center) for part in parts))


@torch.no_grad()
def fit_surrogate(
    transition: Transition,
    num_steps: int,
    *,
    inputs: Tensor | None = None,
    num_paths: int | None = None,
) -> Surrogate:
    """Fit a chain to a transition: to p(z_t | z_{1:t-1}), given z_{t-1}, along paths of its own.

    It is a function of the parameters and of random numbers alone, so a sweep that is twisted by
    it leaves the posterior invariant. A chain is its own surrogate.

    :param int num_steps: T.
    :param Tensor inputs: exogenous inputs, ``(T, B, input_size)``; the chain of states then has a
        matrix for each step.
    :param int num_paths: by default so many that they have 50,000 steps.
    """
    if type(transition) is MarkovTransition and inputs is None:
        return MarkovSurrogate(transition.transition_logits.softmax(-1), floor=1e-6)
    if type(transition) is LinearGaussianTransition:
        covariance = torch.diag(transition.scale.square())
        # The chain has one offset for all steps and sequences: the mean one.
        drift = transition.drift(None if inputs is None else inputs.mean((0, 1)))
        return LinearSurrogate(transition.matrix, drift, covariance, transition.initial_mean)
    num_paths = num_paths or min(max(NUM_STEPS // max(num_steps, 1), 50), 2000)
    if inputs is not None:
        num_paths = max(num_paths, inputs.shape[1])
        inputs = inputs[:, torch.arange(num_paths, device=inputs.device) % inputs.shape[1]]
    state = transition.initial_state((num_paths,))
    draws = run_on(transition, None, state, range(num_steps), inputs, num_paths)
    if isinstance(transition, DiscreteTransition):
        by_step = inputs is not None and num_steps * transition.num_states**2 <= MAX_ENTRIES
        return MarkovSurrogate.from_sums(*_sum_over(transition, draws, num_steps, by_step))
    return _fit_linear(draws)


@torch.no_grad()
def surrogate_along(
    transition: DiscreteTransition,
    path: Tensor,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum p(z_t | z_{1:t-1}) by z_{t-1} along given paths, for :meth:`MarkovSurrogate.from_sums`.

    :param Tensor path: ``(T, B)``.
    :param Tensor inputs: ``(T, B, input_size)``.
    """
    with evaluating(transition):
        logits = transition.path_logits(path.T, None if inputs is None else inputs.transpose(0, 1))
    p = logits.softmax(-1).transpose(0, 1)[1:]  # (T - 1, B, K)
    if lengths is not None:
        p = p * steps_within(lengths, len(path))[1:].unsqueeze(-1)
    K, z_prev = p.shape[-1], path[:-1].reshape(-1)
    total, count = p.new_zeros(K, K), p.new_zeros(K)
    return (
        total.index_add_(0, z_prev, p.reshape(-1, K)),
        count.index_add_(0, z_prev, p.sum(-1).view(-1)),
    )


def _sum_over(
    transition: DiscreteTransition, draws: Iterator[Draw], num_steps: int, by_step: bool
) -> tuple[Tensor, Tensor]:
    """Sum p(z_t | z_{1:t-1}) by z_{t-1}, of all steps or of each."""
    K, like = transition.num_states, transition.like
    shape = (num_steps,) if by_step else ()
    total, count = like.new_zeros(*shape, K, K), like.new_zeros(*shape, K)
    for t, draw in enumerate(draws):
        if draw.z_prev is not None:
            into, met = (total[t], count[t]) if by_step else (total, count)
            into.index_add_(0, draw.z_prev, draw.predicted)
            met.index_add_(0, draw.z_prev, torch.ones_like(draw.predicted[:, 0]))
    return total, count


@torch.no_grad()
def linear_along(
    transition: GaussianTransition,
    path: Tensor,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
) -> LinearSurrogate:
    """Fit a linear chain along given paths ``(T, B, D)``; see :func:`surrogate_along`."""
    inputs = None if inputs is None else inputs.transpose(0, 1)
    with evaluating(transition):
        moments = transition.path_moments(path.transpose(0, 1), inputs)
    past, mean, scale = path[:-1], *(value.transpose(0, 1)[1:] for value in moments)
    if lengths is None:
        return _regress(past.flatten(0, 1), mean.flatten(0, 1), scale.flatten(0, 1))
    active = steps_within(lengths, len(path))[1:]
    return _regress(past[active], mean[active], scale[active])


def _fit_linear(draws: Iterator[Draw]) -> LinearSurrogate:
    """Fit a linear chain along prior paths."""
    z, predicted = zip(*((draw.z, draw.predicted) for draw in draws), strict=True)
    mean, scale = (torch.cat(values)[len(z[0]) :] for values in zip(*predicted, strict=True))
    return _regress(torch.cat(z)[: -len(z[0])], mean, scale)


def _regress(past: Tensor, mean: Tensor, scale: Tensor) -> LinearSurrogate:
    """Regress E[z_t | z_{1:t-1}] on z_{t-1}, of N steps; Q is what that leaves, and the noise."""
    x, y = past.double(), mean.double()
    if not len(x):
        nothing = x.new_zeros(x.shape[1])
        return LinearSurrogate(torch.diag(nothing), nothing, torch.diag(nothing + 1.0))
    center, middle = x.mean(0), y.mean(0)
    spread = x.std(0, correction=0).clamp(min=torch.finfo(x.dtype).tiny)
    away = (x - center) / spread
    # Ridge in units of the spread, so small that it only tells apart what the paths do not.
    gram = away.mT @ away / len(x) + 1e-9 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    cross = away.mT @ (y - middle) / len(x)
    matrix = (torch.linalg.solve(gram, cross) / spread.unsqueeze(-1)).mT
    rest = (y - middle) - (x - center) @ matrix.mT
    covariance = rest.mT @ rest / len(x) + torch.diag(scale.double().square().mean(0))
    return LinearSurrogate(matrix, middle - matrix @ center, covariance, center)
