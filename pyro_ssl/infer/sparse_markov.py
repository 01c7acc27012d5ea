r"""An HMM whose prior empties the states that data have no need of: K is an upper bound.

Variational Bayes for HMMs (MacKay 1997, "Ensemble learning for hidden Markov models"; Beal 2003,
chapter 3), with a sparse Dirichlet over the K states in each row of the chain,

.. math:: A_{i·} \sim \mathrm{Dir}(α / K, …, α / K), \qquad φ_k \sim \mathrm{Dir}(β_k),

the truncation, or weak limit, of a Dirichlet process with concentration α in each row (Ishwaran &
Zarepour 2002, "Exact and approximate sum representations for the Dirichlet process"). The factors
q(A) and q(φ) are Dirichlets of prior plus expected counts. The E-step is exact, under

.. math:: \tilde A_{ij} = e^{E \log A_{ij}} = e^{ψ(n_{ij} + α/K) - ψ(n_{i·} + α)}, \qquad
          \tilde φ_{kv} = e^{ψ(n_{kv} + β_{kv}) - ψ(n_{k·} + β_{k·})},

whose rows add up to less than 1, and the less, the fewer counts they have: about
:math:`e^{-(V - 1) / (2 n_{k·})}`. So a state pays for its parameters, and one of two that mean the
same loses its share to the other, until it is empty.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from ..errors import LatentSiteError
from ..reading.program import ModelRun, Program
from .dirichlet import normalised
from .expected import Expected
from .markov_em import MarkovEM

__all__ = ["SparseMarkovEM", "emptied", "expected_logs", "restricted"]


def expected_logs(weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`e^{E \log p}` of rows p ~ Dir(weights): as probabilities, and log row sums.

    :param Tensor weights: float64, ``(..., V)``.

    Example::

        >>> p, log_sum = expected_logs(torch.tensor([[2.0, 2.0], [0.1, 0.1]]))
        >>> p[0].tolist(), (log_sum.exp() < 1.0).tolist()
        ([0.5, 0.5], [True, True])
    """
    logs = weights.digamma() - weights.sum(-1, keepdim=True).digamma()
    log_sum = logs.logsumexp(-1)
    return (logs - log_sum.unsqueeze(-1)).exp(), log_sum


class SparseMarkovEM(MarkovEM):
    """Fit the HMM of a model by variational Bayes, so that states that are not needed are empty.

    Its estimates are the means of q, and all else is as of :class:`MarkovEM`; a step returns minus
    the bound on log p(x), which no step lowers.

    :param model: as for :class:`MarkovEM`. Each step's observation is one draw from a row of each
        Dirichlet site.
    :param float sparsity: α, how many states a row of the chain has use for, in the sense of a
        Dirichlet process.
    :raises ValueError: if it is no positive number.

    Example::

        >>> from pyro_ssl import TopicalSSL
        >>> hmm, words = SparseMarkovEM(TopicalSSL(6, 9).model), torch.randint(9, (12, 8))
        >>> losses = [hmm.step(words) for _ in range(60)]
        >>> int((hmm.counts["phi"].sum(-1) > 1.0).sum()) < 6
        True
    """

    def __init__(self, model: Callable[..., Any], *, sparsity: float = 1.0) -> None:
        if not 0.0 < sparsity < math.inf:
            raise ValueError(
                f"SparseMarkovEM: sparsity is {sparsity}, expected a positive number; write "
                "sparsity=1.0."
            )
        super().__init__(model, dirichlet="mean", smoothing=sparsity)
        #: weights of q: of the chain's start ``(K,)`` and rows ``(K, K)``, and of each site
        self._q: dict[str, Tensor] | None = None

    def start_from(self, initial: Tensor, matrix: Tensor, **values: Tensor) -> SparseMarkovEM:
        """Begin here, as :meth:`MarkovEM.start_from`: what q said before is forgotten."""
        super().start_from(initial, matrix, **values)
        self._q = None
        return self

    @property
    def visits(self) -> Tensor:
        """Expected steps in each state, by the last step, float64 ``(K,)``."""
        q, K = self._weights, len(self.initial)
        prior = self.smoothing / K * (1 + K)
        return (q[" start"] + q[" moves"].sum(0) - prior).clamp(min=0.0)

    @property
    def _weights(self) -> dict[str, Tensor]:
        if self._q is None:
            raise RuntimeError("Nothing is fitted yet; write hmm.step(*args) first.")
        return self._q

    def without(self, state: int) -> SparseMarkovEM:
        """Return a copy in which a state is empty: what q says of it is the prior."""
        q = {name: weights.clone() for name, weights in self._weights.items()}
        twin, alpha = copy.copy(self), self.smoothing / len(self.initial)
        q[" start"][state] = alpha
        q[" moves"][state], q[" moves"][:, state] = alpha, alpha
        for name, site in self._globals.sites.items():
            q[name][state] = site.concentration[state].double()
        twin._q = q
        return twin

    def _expect(self, program: Program) -> tuple[ModelRun, Expected]:
        """Expected counts under q: the model runs at what stands for its mean logarithms."""
        if self._q is None:
            run, found = super()._expect(program)
        else:
            means = self._chain, self._globals.values
            p = {name: expected_logs(weights)[0] for name, weights in self._q.items()}
            like = self.initial
            tiny = torch.finfo(like.dtype).tiny
            p = {name: value.to(like).clamp(min=tiny) for name, value in p.items()}
            self._chain, self._globals.values = (p.pop(" start"), p.pop(" moves")), p
            try:
                run, found = super()._expect(program)
            finally:
                self._chain, self._globals.values = means
        visits = found.moves.sum(0) + found.start
        for name, n in found.counts.items():
            if n.shape[:-1] != visits.shape or not torch.allclose(
                n.sum(-1), visits, rtol=1e-3, atol=1e-3
            ):
                raise LatentSiteError(
                    f'Site "{name}": SparseMarkovEM found {n.sum(-1).tolist()} draws from its rows '
                    f"in states that are visited {visits.tolist()} times, expected one draw from "
                    "row z at each step; write MarkovEM(model)."
                )
        return run, found

    def _weighed(self, run: ModelRun, table: Tensor) -> Tensor:
        """Add what rows lack of 1: of the sites at each step, of the chain at each but the last."""
        if self._q is None:
            return table
        lacks = {name: expected_logs(weights)[1].to(table) for name, weights in self._q.items()}
        start, leaving = lacks.pop(" start"), lacks.pop(" moves")
        T, lengths = len(table), run.grid.lengths
        steps = torch.arange(T, device=table.device).unsqueeze(-1)
        ends = (torch.full_like(table[0, :, 0], T) if lengths is None else lengths) - 1
        table = table + torch.where((steps < ends).unsqueeze(-1), leaving, 0.0)
        first = (steps == 0) & (ends >= 0)
        table = table + torch.where(first.unsqueeze(-1), start, 0.0)
        return table + torch.stack([*lacks.values()]).sum(0) if lacks else table

    def _estimate(self, total: Expected) -> float:
        """Update q; return minus the bound before it."""
        loss = super()._estimate(total)
        alpha = self.smoothing / len(self.initial)
        prior = {name: site.concentration.double() for name, site in self._globals.sites.items()}
        prior |= {" start": torch.full_like(total.start, alpha)}
        prior |= {" moves": torch.full_like(total.moves, alpha)}
        if self._q is not None:
            for name, weights in self._q.items():
                loss += float(kl_divergence(Dirichlet(weights), Dirichlet(prior[name])).sum())
        counts = total.counts | {" start": total.start, " moves": total.moves}
        self._q = {name: prior[name] + counts[name].clamp(min=0.0) for name in prior}
        return loss


def emptied(
    hmm: SparseMarkovEM, epoch: Callable[[SparseMarkovEM], float], num_steps: int = 15
) -> SparseMarkovEM:
    """Try to do without each state, the least visited first; keep what raises the bound.

    The deletions of Hughes, Stephenson & Sudderth 2015 ("Scalable adaptation of state complexity
    for nonparametric hidden Markov models"): steps alone take very long to empty a state.

    :param epoch: makes a step on all data, and returns what :meth:`SparseMarkovEM.epoch` does.
    :param int num_steps: after which a trial is compared.
    """
    loss, tried = epoch(hmm), set[int]()
    while True:
        left = [k for k in hmm.visits.argsort().tolist() if k not in tried and hmm.visits[k] > 0.5]
        if len(left) < 2:
            return hmm
        trial = hmm.without(left[0])
        tried.add(left[0])
        for _ in range(num_steps):
            found = epoch(trial)
        if found < loss:
            hmm, loss = trial, found


def restricted(hmm: MarkovEM, model: Callable[..., Any], states: Tensor | None = None) -> MarkovEM:
    """Return the fit of some states alone, for a model of so many; by default of all.

    :param Tensor states: their numbers, ``(K',)``, whose rows are then scaled up to 1.
    """
    kept = torch.arange(len(hmm.initial), device=hmm.initial.device) if states is None else states
    matrix = normalised(hmm.matrix[kept][:, kept], hmm.matrix.dtype)
    values = {name: value[kept] for name, value in hmm.values.items()}
    twin = MarkovEM(model, smoothing=hmm.smoothing)
    twin.start_from(normalised(hmm.initial[kept]), matrix, **values)
    twin._globals.counts = {name: n[kept] for name, n in hmm.counts.items()}
    return twin
