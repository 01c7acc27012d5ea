"""Expected counts of an HMM: of some sequences, and added up over all of them.

They are gradients of log p(x) (Eisner 2016, "Inside-outside and forward-backward algorithms are
just backprop"): with respect to log-emissions, the posterior p(z_t | x); with respect to log
transition probabilities, expected transitions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..exact import markov_log_likelihood
from ..gradients import gradients
from .dirichlet import Counts

__all__ = ["ChainCounts", "Expected", "chain_counts"]


class ChainCounts(NamedTuple):
    """log p(x), a scalar; p(z_t = k | x), ``(T, B, K)``; expected starts ``(K,)`` and moves
    ``(K, K)``.
    """

    log_p: Tensor
    posterior: Tensor
    start: Tensor
    moves: Tensor


def chain_counts(
    initial: Tensor,
    matrix: Tensor,
    table: Tensor,
    lengths: Tensor | None = None,
    scale: Tensor | None = None,
) -> ChainCounts:
    """Return the expected counts of a Markov chain under a table ``(T, B, K)``.

    The arguments are those of :func:`~pyro_ssl.exact.markov_log_likelihood`.
    """
    with gradients():
        # What is made in inference mode has no gradient, but its copy has.
        table, log_initial, log_matrix = (
            (value.clone() if value.is_inference() else value.detach()).requires_grad_()
            for value in (table, initial.log(), matrix.log())
        )
        chain = log_initial.exp(), log_matrix.exp()
        log_p = markov_log_likelihood(*chain, table, lengths=lengths, scale=scale).sum()
        wanted = table, log_initial, log_matrix
        return ChainCounts(
            log_p.detach(), *torch.autograd.grad(log_p, wanted, materialize_grads=True)
        )


class Expected(NamedTuple):
    """Expected counts of a share of the sequences, and their log p(x); float64.

    ``start`` ``(K,)`` and ``moves`` ``(K, K)`` are those of the chain, ``counts`` those of the
    Dirichlet sites.
    """

    share: float
    log_p: Tensor
    start: Tensor
    moves: Tensor
    counts: Counts

    def plus(self, other: Expected) -> Expected:
        """Add those of other sequences."""
        return Expected(
            self.share + other.share,
            self.log_p + other.log_p,
            self.start + other.start,
            self.moves + other.moves,
            {name: n + other.counts[name] for name, n in self.counts.items()},
        )

    def scaled(self) -> Expected:
        """Scale them to all sequences."""
        if math.isclose(self.share, 1.0, abs_tol=1e-6):
            return self
        share, log_p, start, moves, counts = self
        counts = {name: n / share for name, n in counts.items()}
        return Expected(1.0, log_p / share, start / share, moves / share, counts)
