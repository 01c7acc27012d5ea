"""The E-steps of a topical SSL, each with its M-step: what a fit does with its data.

Next file to read: ``topical.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.infer import SVI
from pyro.optim import AdamW
from torch import Tensor

from ..distributed import current
from ..infer import MarkovEM, MeanFieldELBO, MeanFieldGuide, StochasticEM
from ..infer.run_state import optimiser_state, put_optimiser
from ..infer.sharded import check_alone
from ..infer.warm_start import batches_of, draw_all, teach_transition
from ..reading.program import ModelRun, Program
from ..transitions import DiscreteTransition
from .door import active_cells

__all__ = ["INFERENCE", "Learner", "make_learner"]

#: E-steps: conditional SMC, exact; unconditional SMC (with one particle: LLA), biased; the
#: factorised posterior, by Pyro's ``SVI``
INFERENCE = ("particle_gibbs", "smc", "mean_field")


class Learner(NamedTuple):
    """One way of learning topics.

    ``step`` takes the model's arguments, learns from them, and returns the loss in nats and the
    share of latents that it renewed (NaN where there are no paths). ``start_from`` takes a fitted
    HMM of the same model and ``batches`` of the model's arguments, and leaves the transition as it
    is. ``parts`` are the objects that a step changes.
    """

    step: Callable[..., tuple[float, float]]
    start_from: Callable[..., None]
    estimates: StochasticEM | MeanFieldGuide
    parts: dict[str, Any]

    def epoch(
        self, words: Tensor, lengths: Tensor | None, batch_size: int | None
    ) -> tuple[float, float]:
        """Learn from all documents, or from minibatches in turn; return the means of their steps.

        Each counts by its documents: the last minibatch may be smaller, and its loss, which is
        scaled to all of them, would otherwise weigh as much as the others'.

        :returns: the loss in nats per word, and the share of latents renewed.
        """
        num_words, B = int(active_cells(words, lengths).sum()), words.shape[1]
        ranks = current()
        parts: list[tuple[Tensor, ...]] = [()]
        if batch_size is not None and batch_size < B:
            parts = [(index,) for index in ranks.minibatches(B, batch_size, words.device)]
        elif ranks.active:
            parts = [(ranks.part(torch.arange(B, device=words.device)),)]
        sizes = [len(index[0]) if index else B for index in parts]
        share = [float(ranks.totals("an epoch", size)[0]) / B for size in sizes]
        steps = [self.step(words, lengths, *index) for index in parts]
        loss, moved = (
            sum(n * value for n, value in zip(share, values, strict=True))
            for values in zip(*steps, strict=True)
        )
        return loss / max(num_words, 1), moved

    def begin(
        self,
        hmm: MarkovEM,
        transition: DiscreteTransition,
        words: Tensor,
        lengths: Tensor | None,
        block: int,
        **how: Any,
    ) -> None:
        """Start from a fitted HMM of the same model, of whose paths the transition learns first.

        :param int block: documents in memory at a time.
        :param how: ``num_steps``, ``optim`` and ``batch_size`` of
            :func:`~pyro_ssl.infer.warm_start.teach_transition`.
        """
        batches, ranks = batches_of(words, lengths, block), current()
        own = ranks.part(torch.arange(words.shape[1], device=words.device))
        lengths = None if lengths is None else lengths[own]
        if how["batch_size"] is not None:
            how["batch_size"] = max(how["batch_size"] // ranks.size, 1)
        paths = partial(draw_all, hmm, [Program(hmm.model, batch) for batch in batches])
        teach_transition(transition, paths, lengths=lengths, **how)
        self.start_from(hmm, batches=batches)

    def go_on(self, phi: Any, optimiser: dict[str, Any], rate: float) -> None:
        """Go on from topics, and from an optimiser's state, at another learning rate."""
        em = self.parts["em"]
        em._globals.values, em._current = {"phi": phi}, {"phi": phi}
        at_rate = {
            name: {**one, "param_groups": [{**group, "lr": rate} for group in one["param_groups"]]}
            for name, one in optimiser.items()
        }
        put_optimiser(em.optim, at_rate)

    def optimiser_state(self) -> dict[str, Any]:
        """Return the state of the optimiser, by parameter."""
        return optimiser_state(self.parts["em"].optim)

    def counts_of(self, words: Tensor, active: Tensor, index: Tensor) -> Tensor:
        """Return counts of some documents' words by topic, as last drawn, float64 ``(K, V)``."""
        em = self.parts["em"]
        z, (K, V) = em._memory.by_site["z"].T[: len(words), index], em.values["phi"].shape
        pairs = (z * V + words[:, index])[active[:, index]]
        return torch.bincount(pairs, minlength=K * V).view(K, V).double()

    def topics(self) -> tuple[Tensor, Tensor]:
        """Return p(word | topic), ``(K, V)``, and each topic's share of the words, ``(K,)``."""
        counts = self.estimates.counts["phi"]
        share = counts.sum(-1).double()
        phi = self.estimates.values["phi"]
        return phi.clone(), (share / share.sum()).to(phi)


def make_learner(
    inference: str,
    model: Callable[..., Any],
    num_particles: int,
    *,
    num_sweeps: int,
    num_gradient_steps: int,
    learning_rate: float,
    weight_decay: float,
    ancestor_sampling: int | None,
    twist: Any,
    draw_topics: bool | None,
    averaging: float,
) -> Learner:
    """Return the learner of that name; its arguments are those of :meth:`TopicalSSL.fit`.

    :raises ValueError: if ``inference`` is none of :data:`INFERENCE`.
    """
    if inference not in INFERENCE:
        raise ValueError(f'inference is "{inference}", expected one of {INFERENCE}.')
    if inference == "mean_field":
        check_alone('inference="mean_field"')
    optim = AdamW(partial(_optim_args, learning_rate, weight_decay))
    if inference == "mean_field":
        guide = MeanFieldGuide(model, averaging=averaging)
        svi = SVI(model, guide, optim, loss=_WithoutPriors(max(num_particles, 2)))

        def ascend(*args: Any) -> tuple[float, float]:
            losses = [svi.step(*args) for _ in range(num_gradient_steps)]
            return losses[0], math.nan

        return Learner(ascend, guide.start_from, guide, {"guide": guide, "optim": optim})
    conditional = inference == "particle_gibbs"
    em = StochasticEM(
        model,
        optim,
        num_particles,
        conditional=conditional,
        num_sweeps=num_sweeps,
        num_gradient_steps=num_gradient_steps,
        ancestor_sampling=ancestor_sampling,
        twist=twist,
        dirichlet="mean",
        averaging=averaging,
        draw_dirichlet=conditional if draw_topics is None else draw_topics,
    )

    def step(*args: Any) -> tuple[float, float]:
        return em.step(*args), em.change_rate

    return Learner(step, partial(em.start_from, transition_steps=0), em, {"em": em})


class _WithoutPriors(MeanFieldELBO):
    """The ELBO of topics and words alone: log p(φ) is a density, and can have any size."""

    def _elsewhere(self, run: ModelRun) -> Tensor:
        return run.log_elsewhere(observed=True)


def _optim_args(learning_rate: float, weight_decay: float, name: str) -> dict[str, float]:
    """AdamW's arguments for a parameter of that name, the LSTM's or the factors'."""
    if name.endswith(".logits"):
        return {"lr": 10.0 * learning_rate, "weight_decay": 0.0}
    return {"lr": learning_rate, "weight_decay": weight_decay}
