r"""A model cut to a few sequences and steps, where its posterior is known exactly.

Over K states all paths are enumerated. Over vectors, a chain

.. math:: z_t \mid z_{t-1} \sim \mathrm{N}(A z_{t-1} + b, \mathrm{diag}\, q^2)

with a quadratic log p(x_t | z_t) makes z_{1:T} one normal vector of T D numbers, whose precision
is that of the chain plus that of the emission.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..exact import Enumeration, enumerate_paths
from ..smc import QuadraticEmission, TableEmission, conditional_smc, fit_surrogate
from ..smc.sweep import Sweep
from ..steps import steps_within
from ..transitions import DiscreteTransition, LinearGaussianTransition
from .invariance import chi_square, chi_square_tail
from .verify_model import Subject

__all__ = ["Cut", "ExactCut", "LinearCut", "StatesCut", "row_cost"]


def row_cost(subject: Subject) -> float:
    """About how many operations it takes to move one particle by one step."""
    transition = subject.run.transition
    weights = sum(parameter.numel() for parameter in transition.parameters())
    return 2.0 * weights + 30.0 * subject.table.shape[-1] + 2_000.0


class Cut:
    """Some sequences and the first steps of a model, swept as often as one likes.

    :param Tensor index: the sequences, ``(B,)``.
    :param int num_steps: T.
    """

    def __init__(self, subject: Subject, index: Tensor, num_steps: int) -> None:
        run, emission = subject.run, subject.emission
        assert isinstance(emission, TableEmission | QuadraticEmission)
        self.transition, self.num_steps, self.num_sequences = run.transition, num_steps, len(index)
        self.emission = emission.select(index).split(num_steps)[0]
        grid, inputs = run.grid, run.inputs
        self.lengths = None if grid.lengths is None else grid.lengths[index].clamp(max=num_steps)
        scale = grid.transition_scale
        self.scale = None if scale is None else scale[index]
        self.inputs = None if inputs is None else inputs[:num_steps, index]
        self._surrogate: Any = None

    def sweep(
        self,
        num_copies: int,
        num_particles: int,
        reference: Tensor | None = None,
        *,
        twisted: bool,
        ancestor_sampling: int = 0,
    ) -> Sweep:
        """Sweep copies side by side: sequence b of copy c is in place c B + b.

        :param Tensor reference: ``(T, C B, ...)``.
        """
        index = torch.arange(self.num_sequences, device=self.transition.like.device)
        index = index.repeat(num_copies)
        emission = self.emission.select(index)
        lengths = None if self.lengths is None else self.lengths[index]
        scale = None if self.scale is None else self.scale[index]
        inputs, twist = None if self.inputs is None else self.inputs[:, index], None
        if twisted:
            if self._surrogate is None:
                self._surrogate = fit_surrogate(self.transition, self.num_steps, inputs=self.inputs)
            twist = self._surrogate.twist(emission, lengths, scale)
        return conditional_smc(
            self.transition,
            emission,
            num_particles,
            reference,
            lengths=lengths,
            inputs=inputs,
            ancestor_sampling=ancestor_sampling,
            transition_scale=scale,
            twist=twist,
        )


class ExactCut(Cut, ABC):
    """A cut whose posterior is known."""

    #: log p(x) of each sequence, float64 ``(B,)``
    log_evidence: Tensor

    @abstractmethod
    def draw(self, num_copies: int) -> Tensor:
        """Draw paths from the posterior, ``(T, C B, ...)``."""

    @abstractmethod
    def p_value(self, paths: Tensor) -> float:
        """Return the p-value of: these paths ``(T, C B, ...)`` are posterior draws."""


class StatesCut(ExactCut):
    """All K^T paths of a few sequences."""

    def __init__(self, subject: Subject, index: Tensor, num_steps: int) -> None:
        super().__init__(subject, index, num_steps)
        assert isinstance(self.emission, TableEmission)
        table = self.emission.table
        assert isinstance(self.transition, DiscreteTransition)
        prior = enumerate_paths(
            self.transition,
            torch.zeros_like(table),
            inputs=self.inputs,
            lengths=self.lengths,
        )
        log_prior = prior.log_joint.double()
        if self.scale is not None:
            finite = log_prior > -torch.inf
            log_prior = torch.where(finite, log_prior * self.scale[:, None], -torch.inf)
        if self.lengths is not None:
            within = steps_within(self.lengths, num_steps).unsqueeze(-1)
            table = torch.where(within, table, 0.0)
        steps = torch.arange(num_steps, device=table.device)
        log_x = table.double()[steps, :, prior.paths].sum(1).T  # (B, N)
        self.exact = Enumeration(prior.paths, log_prior + log_x)
        self.log_evidence = self.exact.log_evidence

    def draw(self, num_copies: int) -> Tensor:
        """Draw paths by their number; see the base class."""
        index = torch.multinomial(self.exact.posterior, num_copies, replacement=True)  # (B, C)
        return self.exact.paths[index.T].flatten(0, 1).T.contiguous()

    def _index(self, paths: Tensor) -> Tensor:
        """Numbers ``(B, C)`` of paths ``(T, C B)``."""
        return self.exact.index(paths.T.unflatten(0, (-1, self.num_sequences))).T

    def p_value(self, paths: Tensor) -> float:
        """Compare how often each path came, by chi-square; see the base class."""
        index = self._index(paths)
        counts = torch.zeros_like(self.exact.posterior)
        counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype))
        tests = [chi_square(*each) for each in zip(counts, self.exact.posterior, strict=True)]
        return chi_square_tail(sum(s for s, _ in tests), sum(d for _, d in tests))


class LinearCut(ExactCut):
    """A linear Gaussian chain under a quadratic emission: one normal vector for each sequence.

    No sequence may end before the cut.
    """

    def __init__(self, subject: Subject, index: Tensor, num_steps: int) -> None:
        super().__init__(subject, index, num_steps)
        assert isinstance(self.emission, QuadraticEmission)
        assert isinstance(self.transition, LinearGaussianTransition)
        whiten, offset, log_scale = _whitened(self.transition, num_steps)
        B, D = self.num_sequences, self.transition.dim
        s = torch.ones(B, dtype=torch.float64, device=whiten.device)
        if self.scale is not None:
            s = self.scale.double()
        function = self.emission.function.each(lambda part: part.double())
        curved = (function.precision @ function.center.unsqueeze(-1)).squeeze(-1)
        h = (function.linear + curved).transpose(0, 1).flatten(1)  # (B, T D)
        constant = function.constant - (function.center * (function.linear + 0.5 * curved)).sum(-1)
        precision = s[:, None, None] * (whiten.T @ whiten)
        for t in range(num_steps):
            at = slice(t * D, (t + 1) * D)
            precision[:, at, at] += function.precision[t]
        linear = s[:, None] * (whiten.T @ offset) + h
        self.root = torch.linalg.cholesky(precision)  # (B, T D, T D)
        self.mean = torch.cholesky_solve(linear.unsqueeze(-1), self.root).squeeze(-1)
        half_log_det = self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        n = num_steps * D
        log_prior = -0.5 * offset.square().sum() - log_scale - 0.5 * n * math.log(2 * math.pi)
        self.log_evidence = (
            constant.sum(0) + s * log_prior + 0.5 * (linear * self.mean).sum(-1) - half_log_det
        ) + 0.5 * n * math.log(2 * math.pi)

    def draw(self, num_copies: int) -> Tensor:
        """Draw from the normal; see the base class."""
        B, n = self.mean.shape
        noise = torch.randn(num_copies, B, n, 1, dtype=torch.float64, device=self.mean.device)
        away = torch.linalg.solve_triangular(self.root.mT, noise, upper=True).squeeze(-1)
        path = (self.mean + away).reshape(num_copies * B, self.num_steps, -1)
        return path.transpose(0, 1).to(self.transition.like).contiguous()

    def _white(self, paths: Tensor) -> Tensor:
        """Standard normal numbers ``(C, B, T D)`` of posterior draws."""
        flat = paths.double().transpose(0, 1).flatten(1).unflatten(0, (-1, self.num_sequences))
        return ((flat - self.mean).unsqueeze(-2) @ self.root).squeeze(-2)

    def p_value(self, paths: Tensor) -> float:
        """Compare the first two moments of the whitened paths; see the base class.

        Of all their z-scores the largest, times how many there are.
        """
        white = self._white(paths)
        C, _, n = white.shape
        eye = torch.eye(n, dtype=white.dtype, device=white.device)
        second = torch.einsum("cbi,cbj->bij", white, white) / C - eye
        first = white.mean(0) * math.sqrt(C)
        z = max(float(first.abs().max()), float((second / (1.0 + eye).sqrt()).abs().max() * C**0.5))
        count = self.num_sequences * (n + n * (n + 1) // 2)
        return min(1.0, count * math.erfc(z / math.sqrt(2)))


def _whitened(chain: LinearGaussianTransition, num_steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """G, c and Σ log q, float64, for which G z - c is standard normal noise."""
    D, A = chain.dim, chain.matrix.detach().double()
    first, later = chain.initial_scale.detach().double(), chain.scale.detach().double()
    n = num_steps * D
    whiten = torch.zeros(n, n, dtype=torch.float64, device=A.device)
    offset = torch.zeros(n, dtype=torch.float64, device=A.device)
    for t in range(num_steps):
        at, before = slice(t * D, (t + 1) * D), slice((t - 1) * D, t * D)
        scale = later if t else first
        whiten[at, at] = torch.diag(1.0 / scale)
        mean = chain.offset if t else chain.initial_mean
        offset[at] = mean.detach().double() / scale
        if t:
            whiten[at, before] = -A / scale.unsqueeze(-1)
    return whiten, offset, first.log().sum() + (num_steps - 1) * later.log().sum()
