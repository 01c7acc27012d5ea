"""The E-steps of a topical SSL, each with its M-step: what a fit does with its data.

Next file to read: ``topical.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pyro.infer import SVI
from pyro.optim import AdamW
from torch import Tensor

from ..arguments import hides_progbar
from ..distributed import current
from ..infer import MarkovEM, MeanFieldELBO, MeanFieldGuide, StochasticEM
from ..infer.memory import available_memory, check_fits, gradient_bytes, sweep_bytes
from ..infer.run_state import optimiser_state, put_optimiser
from ..infer.sharded import check_alone
from ..infer.small import smallest
from ..infer.warm_start import batches_of, draw_all, teach_transition, within
from ..reading.program import ModelRun, Program
from ..steps import minibatches_by_length
from ..transitions import DiscreteTransition
from .corpus_words import CorpusWords, PathsOnDemand
from .topics import check_hmm

__all__ = ["INFERENCE", "Learner", "check_fit", "make_learner"]

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
        self,
        words: Tensor | CorpusWords,
        lengths: Tensor | None,
        batch_size: int | None,
        disable_progbar: bool | None = None,
    ) -> tuple[float, float]:
        """Learn from all documents, or from minibatches in turn; return the means of their steps.

        Each counts by its documents: the last minibatch may be smaller, and its loss, which is
        scaled to all of them, would otherwise weigh as much as the others'. Minibatches of a corpus
        are of similar lengths, but over ranks.

        :param bool disable_progbar: show none within an epoch that is long.
        :returns: the loss in nats per word, and the share of latents renewed.
        """
        num_words = words.shape.numel() if lengths is None else int(lengths.sum())
        B, ranks, on_disk = words.shape[1], current(), isinstance(words, CorpusWords)
        parts: list[tuple[Tensor, ...]] = [()]
        if batch_size is not None and batch_size < B:
            each = ranks.minibatches(B, batch_size, words.device)
            if lengths is not None and on_disk and not ranks.active:
                each = minibatches_by_length(torch.cat(each), lengths, batch_size)
            parts = [(index,) for index in each]
        elif ranks.active or on_disk:
            parts = [(ranks.part(torch.arange(B, device=words.device)),)]
        sizes = [len(index[0]) if index else B for index in parts]
        share = [float(ranks.totals("an epoch", size)[0]) / B for size in sizes]
        disable = hides_progbar(disable_progbar)
        steps = [self.step(words, lengths, *index) for index in within(parts, disable)]
        loss, moved = (
            sum(n * value for n, value in zip(share, values, strict=True))
            for values in zip(*steps, strict=True)
        )
        return loss / max(num_words, 1), moved

    def begin(
        self,
        hmm: MarkovEM,
        transition: DiscreteTransition,
        words: Tensor | CorpusWords,
        lengths: Tensor | None,
        block: int,
        **how: Any,
    ) -> None:
        """Start from a fitted HMM of the same model, of whose paths the transition learns first.

        In minibatches the paths of these alone are drawn.

        :param int block: documents in memory at a time.
        :param how: ``num_steps``, ``optim`` and ``batch_size`` of
            :func:`~pyro_ssl.infer.warm_start.teach_transition`.
        """
        batches, ranks = batches_of(words, lengths, block), current()
        own = ranks.part(torch.arange(words.shape[1], device=words.device))
        paths: Callable[[], Any]
        paths = partial(draw_all, hmm, [Program(hmm.model, batch) for batch in batches])
        if how["batch_size"] is not None:
            how["batch_size"] = max(how["batch_size"] // ranks.size, 1)
            if how["batch_size"] < len(own):
                paths = partial(PathsOnDemand, hmm, words, lengths, own)
        lengths = None if lengths is None else lengths[own]
        teach_transition(transition, paths, lengths=lengths, **how)
        self.start_from(hmm, batches=batches)

    def go_on(
        self,
        phi: Any,
        optimiser: dict[str, Any],
        rate: float,
        paths: Tensor | None,
        words: Tensor,
        lengths: Tensor | None,
        block: int,
    ) -> None:
        """Go on from topics, and from an optimiser's state, at another learning rate.

        :param Tensor paths: ``(T, R)`` of the first R documents: their topics count from the first
            step on, which would otherwise know no words but its minibatch's.
        :param int block: documents in memory at a time.
        """
        em, values = self.parts["em"], {"phi": phi}
        em._globals.values, em._current = dict(values), dict(values)
        at_rate = {
            name: {**one, "param_groups": [{**group, "lr": rate} for group in one["param_groups"]]}
            for name, one in optimiser.items()
        }
        put_optimiser(em.optim, at_rate)
        if paths is None or not paths.shape[1]:
            return
        counts: dict[str, Tensor] = {}
        for index in torch.arange(paths.shape[1], device=words.device).split(block):
            program = Program(em._model, (words, lengths, index))
            run = program.run(values) if counts else em._read(program, values)[0]
            path = F.pad(paths[:, index].long(), (0, 0, 0, len(words) - len(paths)))
            counts = em._keep(run, path, counts)
        em._path_counts, share = counts, paths.shape[1] / words.shape[1]
        em._globals.counts = {name: n / share for name, n in counts.items()}

    def optimiser_state(self) -> dict[str, Any]:
        """Return the state of the optimiser, by parameter."""
        return optimiser_state(self.parts["em"].optim)

    @property
    def paths(self) -> Tensor:
        """Topics of all documents, as last drawn, ``(T, B)`` in the smallest type."""
        z = self.parts["em"]._memory.by_site["z"].T
        return smallest(z, len(self.estimates.values["phi"]) - 1)

    def counts_of(self, words: Tensor, active: Tensor, index: Tensor) -> Tensor:
        """Return counts of some documents' words by topic, as last drawn, float64 ``(K, V)``."""
        z, (K, V) = self.paths[: len(words), index], self.estimates.values["phi"].shape
        pairs = (z.long() * V + words[:, index])[active[:, index]]
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
    draw_transition: bool | None,
    averaging: float,
    paths_folder: str | os.PathLike[str] | None = None,
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
        draw_transition=conditional if draw_transition is None else draw_transition,
        paths_folder=paths_folder,
    )

    def step(*args: Any) -> tuple[float, float]:
        return em.step(*args), em.change_rate

    return Learner(step, partial(em.start_from, transition_steps=0), em, {"em": em})


def check_fit(
    model: Any,
    inference: str,
    words: Tensor | CorpusWords,
    batch_size: int | None,
    markov: MarkovEM | None,
) -> None:
    """Check what a fit is given, before its HMM takes its time.

    :param model: a :class:`TopicalSSL`.
    :raises ValueError: if the HMM does not fit the model, or the data are a corpus on disk and the
        E-step keeps more than a path of each text.
    :raises NotEnoughMemory: if a step cannot fit in memory.
    """
    check_hmm(markov, model.num_topics, len(model.vocabulary))
    if inference == "mean_field" and isinstance(words, CorpusWords):
        raise ValueError(
            'TopicalSSL.fit: found inference="mean_field" and a corpus on disk, expected an '
            "E-step that keeps one path of each text: the factors of all words do not fit in "
            'memory. Write inference="particle_gibbs", or "smc".'
        )
    if words.device.type != "cpu" or inference == "mean_field":
        return
    (T, N), K, itemsize = words.shape, model.num_topics, model.transition.like.element_size()
    needed = sweep_bytes(T, N, 1, K, itemsize, states=True) | gradient_bytes(T, N, K, itemsize)
    size = min(batch_size or N, N)
    step = {what: n * size // max(N * current().size, 1) for what, n in needed.items()}
    fitting = (available_memory() or 0) // 4 * N // max(sum(needed.values()), 1)
    where = f"TopicalSSL.fit: a step of {size:,} texts of up to {T} words"
    check_fits(where, step, f"batch_size={max(fitting, 1)}, or less, or cut texts into passages")


class _WithoutPriors(MeanFieldELBO):
    """The ELBO of topics and words alone: log p(φ) is a density, and can have any size."""

    def _elsewhere(self, run: ModelRun) -> Tensor:
        return run.log_elsewhere(observed=True)


def _optim_args(learning_rate: float, weight_decay: float, name: str) -> dict[str, float]:
    """AdamW's arguments for a parameter of that name, the LSTM's or the factors'."""
    if name.endswith(".logits"):
        return {"lr": 10.0 * learning_rate, "weight_decay": 0.0}
    return {"lr": learning_rate, "weight_decay": weight_decay}
