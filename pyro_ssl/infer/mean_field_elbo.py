r"""The factorised posterior q(z) = Π_t q_t(z_t), for Pyro's own ``SVI``: the baseline.

.. math::
    \mathrm{ELBO} = \underbrace{\sum_t \mathrm{E}_{q_t} [\log p(x_t \mid z_t) - \log q_t(z_t)]
    }_{\text{exact: sums over } K} + \mathrm{E}_q [\log p(z_{1:T})]

The last term couples all steps through the recurrent transition. With any (K, K) table a,

.. math::
    \mathrm{E}_q \log p(z) = \sum_t \underbrace{q_{t-1}^\top a \, q_t}_{\text{exact}}
    + \sum_t \mathrm{E}_{q(z_{<t})} \underbrace{\sum_k q_t(k)
    [\log p(k \mid z_{<t}) - a_{z_{t-1} k}]}_{r_t(z_{<t})}

so only r_t is estimated, by draws of z from q: what the transition knows beyond z_{t-1}. Its
gradient has an exact part (through q_t and the transition) and a score-function part (through the
draws z_{<t}), where each draw's future Σ_{u>t} r_u is compared with the mean of the other draws'.
The table is the running mean of log p(k | z_{<t}) given z_{t-1}, of earlier steps only, so that
value and gradient stay unbiased; for a Markov transition r_t vanishes, and nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..arguments import at_least
from ..errors import NonFiniteError
from ..reading.checks import check_transition_learns
from ..reading.context import all_or_nothing
from ..reading.program import ModelRun, Program
from ..steps import steps_within
from .mean_field import MeanFieldGuide
from .mean_field_parts import check_covered, parts_of

__all__ = ["MeanFieldELBO"]


class MeanFieldELBO(Trace_ELBO):
    """ELBO of a :class:`MeanFieldGuide`, exact but for what couples steps beyond neighbours.

    Give it to Pyro's ``SVI`` as ``loss``, with a :class:`MeanFieldGuide`, or an ``AutoGuideList``
    that has one and guides of other latent sites, which are drawn once per evaluation. See the
    module's docstring for what is estimated.

    :param int num_particles: S, draws of each path, at least 2: each is the others' baseline.

    A step also updates the guide's Dirichlet estimates in closed form. What is low is the variance
    of the gradient; the value may vary more than ``Trace_ELBO``'s, in which log p - log q is nearly
    constant where q is nearly the posterior.
    """

    def __init__(self, num_particles: int = 2, **kwargs: Any) -> None:
        if not at_least(2, num_particles):
            raise ValueError(
                f"num_particles is {num_particles}, expected at least 2: the mean of the other "
                "draws is the baseline of each."
            )
        super().__init__(num_particles=num_particles, **kwargs)

    @all_or_nothing
    def loss(
        self, model: Callable[..., Any], guide: MeanFieldGuide, *args: Any, **kwargs: Any
    ) -> float:
        """Return -ELBO, estimated where it must be.

        :raises NonFiniteError: if it is not finite, as in the other methods.
        """
        with torch.no_grad():
            return float(self._evaluate(guide, args, kwargs).loss)

    @all_or_nothing
    def differentiable_loss(
        self, model: Callable[..., Any], guide: MeanFieldGuide, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return -ELBO, with a gradient that is unbiased."""
        return self._evaluate(guide, args, kwargs).loss

    @all_or_nothing
    def loss_and_grads(
        self, model: Callable[..., Any], guide: MeanFieldGuide, *args: Any, **kwargs: Any
    ) -> float:
        """Return -ELBO and leave the gradients in the parameters; update the guide's estimates.

        :raises NonFiniteError: if the ELBO is not finite; nothing was updated.
        """
        found = self._evaluate(guide, args, kwargs)
        guide = found.guide
        if is_validation_enabled() and not guide.counts:
            check_transition_learns(found.run)
        counts = guide.expected_counts(found.run, found.q)
        if found.loss.requires_grad:
            found.loss.backward()
        guide.markov_part(found.run).add(found.previous, found.log_p, found.active)
        guide.update(counts)
        return float(found.loss.detach())

    def _evaluate(
        self, guide: MeanFieldGuide, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Evaluation:
        guide, others, log_q_others = parts_of(guide, args, kwargs)
        run = guide.read(Program(guide.model, args, kwargs), others=others)
        check_covered(guide, others)
        for name in run.params:  # ``Program.run`` hides them from SVI, which has to know them
            pyro.param(name)
        loop, table, S = run.loop, run.grid.table(), self.num_particles
        log_q = guide.log_q(run, table)
        q, K = log_q.exp(), log_q.shape[-1]
        active = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device)  # (B, T)
        if run.grid.lengths is not None:
            active = steps_within(run.grid.lengths, loop.num_steps).T
        entropy = -(q * torch.where(q > 0, log_q, 0.0)).sum(-1)  # (B, T)
        emission = (q * torch.where(q > 0, table.transpose(0, 1), 0.0)).sum(-1)

        z = torch.multinomial(q.detach().reshape(-1, K), S, replacement=True)  # (B T, S)
        z = z.T.reshape(S, *q.shape[:2])
        inputs = None if run.inputs is None else run.inputs.transpose(0, 1)
        log_p = run.transition.path_logits(z, inputs).log_softmax(-1)  # (S, B, T, K)
        previous = torch.cat([torch.full_like(z[..., :1], K), z[..., :-1]], -1)

        pairs = guide.markov_part(run).table()  # (K + 1, K)
        neighbours = torch.cat(
            [pairs[K].expand(len(q), 1, K), q[:, :-1] @ pairs[:K]], 1
        )  # E_q[a_{z_{t-1} k}], (B, T, K)
        markov = (q * neighbours).sum(-1)
        residual = (q * (log_p - pairs[previous])).sum(-1)  # r_t, (S, B, T)
        if run.grid.transition_scale is not None:
            weight = active * run.grid.transition_scale.unsqueeze(-1)
        else:
            weight = active.to(q.dtype)
        markov, residual = markov * weight, residual * weight

        # Σ_{u>t} r_u of each draw, less the mean of the other draws'
        future = residual.detach().flip(-1).cumsum(-1).flip(-1) - residual.detach()
        advantage = (future - future.mean(0)) * (S / (S - 1))
        score = log_q.expand(S, -1, -1, -1).gather(-1, z.unsqueeze(-1)).squeeze(-1)
        score = (advantage * torch.where(active, score, 0.0)).sum() / S

        elbo = (torch.where(active, entropy, 0.0) + emission + markov).sum()
        elbo = (elbo + residual.sum() / S) * run.subsample_factor
        elbo = elbo + self._elsewhere(run) - log_q_others
        score = score * run.subsample_factor
        loss = -(elbo + score - score.detach())
        if not bool(loss.isfinite()):
            raise NonFiniteError(
                f'Site "{loop.name}": the ELBO is {elbo.item()}, expected a finite number; q gives '
                "weight to a path of probability 0, or a parameter is NaN. Nothing was updated."
            )
        return _Evaluation(loss, guide, run, q.detach(), previous, log_p.detach(), active)

    def _elsewhere(self, run: ModelRun) -> Tensor:
        """What sites outside the loop add to the ELBO: data, and latent sites' priors."""
        return run.log_elsewhere(observed=True) + run.log_elsewhere(observed=False)


class _Evaluation(NamedTuple):
    """One evaluation of the ELBO, and what the guide learns from it."""

    loss: Tensor
    guide: MeanFieldGuide
    run: ModelRun
    q: Tensor  # (B, T, K)
    previous: Tensor  # z_{t-1} of each draw, K at t=0: (S, B, T)
    log_p: Tensor  # (S, B, T, K)
    active: Tensor  # (B, T)
