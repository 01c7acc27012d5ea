"""The loop that fits a topical model: an exact Markov start, epochs, and the best one kept.

What happens in an epoch's step is the E-step's choice, and nothing else: see :data:`INFERENCE`.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from pyro.infer import SVI
from torch import Tensor
from tqdm.auto import trange

from ..infer import MarkovEM, MeanFieldELBO, MeanFieldGuide, StochasticEM
from ..transitions import DiscreteTransition

__all__ = [
    "INFERENCE",
    "Data",
    "EpochRecord",
    "Learner",
    "StepSettings",
    "fit_markov",
    "keep_best",
    "make_learner",
    "teach_transition",
]

#: words and lengths
Data = tuple[Tensor, "Tensor | None"]

#: E-steps: conditional SMC, exact; unconditional SMC (with one particle: LLA), biased; the
#: factorised posterior, by Pyro's ``SVI``
INFERENCE = ("particle_gibbs", "smc", "mean_field")


class EpochRecord(NamedTuple):
    """What one epoch of :meth:`TopicalSSL.fit` came to.

    ``loss`` is -log p(z, x) in nats per token (under ``"mean_field"`` -ELBO, and at minibatches the
    mean over them); ``change_rate`` the share of latents that the epoch renewed, NaN where there
    are no paths; ``valid_perplexity`` is NaN where no validation data were given; ``seconds``
    leaves validation out.
    """

    epoch: int
    loss: float
    change_rate: float
    valid_perplexity: float
    seconds: float


class StepSettings(NamedTuple):
    """What :meth:`TopicalSSL.fit` hands to a learner; its arguments of the same names."""

    optim: Callable[..., Any]
    num_particles: int
    num_sweeps: int
    num_gradient_steps: int
    ancestor_sampling: int
    draw_topics: bool
    averaging: float


class Learner(Protocol):
    """One way of learning from data: an E-step with its M-step."""

    def start_from(self, hmm: MarkovEM, data: Data) -> None:
        """Start from a fitted HMM of the same model; the transition stays as it is."""

    def step(self, *args: Any) -> tuple[float, float]:
        """Learn from a batch; return the loss, and the share of latents renewed."""

    @property
    def phi(self) -> Tensor:
        """Estimate of p(word | topic), ``(K, V)``."""

    @property
    def counts(self) -> Tensor:
        """(Expected) counts of each word in each topic, ``(K, V)``."""


class _Sampled:
    """Paths drawn by SMC, conditional or not: stochastic EM."""

    def __init__(self, model: Any, settings: StepSettings, conditional: bool) -> None:
        self.em = StochasticEM(
            model,
            settings.optim,
            settings.num_particles,
            conditional=conditional,
            num_sweeps=settings.num_sweeps,
            num_gradient_steps=settings.num_gradient_steps,
            ancestor_sampling=settings.ancestor_sampling,
            dirichlet="mean",
            averaging=settings.averaging,
            draw_dirichlet=settings.draw_topics,
        )

    def start_from(self, hmm: MarkovEM, data: Data) -> None:
        self.em.start_from(hmm, *data, transition_steps=0)

    def step(self, *args: Any) -> tuple[float, float]:
        loss = self.em.step(*args)
        return loss, self.em.change_rate

    @property
    def phi(self) -> Tensor:
        return self.em.values["phi"]

    @property
    def counts(self) -> Tensor:
        return self.em.counts["phi"]


class _Factorised:
    """A categorical for each token, by Pyro's ``SVI``."""

    def __init__(self, model: Any, settings: StepSettings) -> None:
        self.model, self.settings = model, settings
        self.guide = MeanFieldGuide(model, averaging=settings.averaging)
        elbo = MeanFieldELBO(max(settings.num_particles, 2))
        self.svi = SVI(model, self.guide, settings.optim, loss=elbo)

    def start_from(self, hmm: MarkovEM, data: Data) -> None:
        self.guide.start_from(hmm, *data)

    def step(self, *args: Any) -> tuple[float, float]:
        losses = [self.svi.step(*args) for _ in range(self.settings.num_gradient_steps)]
        return losses[0], math.nan

    @property
    def phi(self) -> Tensor:
        return self.guide.values["phi"]

    @property
    def counts(self) -> Tensor:
        return self.guide.counts["phi"]


def make_learner(inference: str, model: Any, settings: StepSettings) -> Learner:
    """Return the learner of that name, one of :data:`INFERENCE`."""
    if inference not in INFERENCE:
        raise ValueError(f'inference is "{inference}", expected one of {INFERENCE}.')
    if inference == "mean_field":
        return _Factorised(model, settings)
    return _Sampled(model, settings, conditional=inference == "particle_gibbs")


def fit_markov(
    model: Callable[..., Any],
    data: Data,
    valid: tuple[Any, ...] | None,
    num_steps: int,
    num_starts: int,
) -> MarkovEM:
    """Fit the model's HMM from several random starts, and keep the best.

    With validation data, the best of every tenth iteration of each start; without, the start of
    the highest likelihood.
    """
    best: MarkovEM | None = None
    lowest = math.inf
    for _ in range(num_starts):
        hmm = MarkovEM(model, dirichlet="mean")
        for i in range(1, num_steps + 1):
            score = hmm.step(*data)
            if i < num_steps and (valid is None or i % 10):
                continue
            if valid is not None:
                score = hmm.perplexity(*valid[:2], start=valid[2] if len(valid) > 2 else 0)
            if best is None or score < lowest:
                best, lowest = copy.copy(hmm), score
    assert best is not None
    return best


def teach_transition(
    transition: DiscreteTransition,
    hmm: MarkovEM,
    data: Data,
    num_steps: int,
    *,
    batch_size: int | None,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """Train a transition on paths drawn from a fitted HMM's posterior, anew in every pass."""
    words, lengths = data
    optim = torch.optim.AdamW(transition.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps = torch.arange(len(words), device=words.device)
    left = num_steps
    while left > 0:
        z = hmm.sample_paths(*data)  # (B, T)
        for index in _batches(len(z), batch_size, z.device):
            if left == 0:
                break
            log_p = transition.log_prob(z[index])
            if lengths is not None:
                log_p = torch.where(steps < lengths[index].unsqueeze(-1), log_p, 0.0)
            optim.zero_grad()
            # Of all sequences, as in stochastic EM, so that Adam and weight decay weigh alike.
            (-log_p.sum() * (len(z) / len(index))).backward()
            optim.step()
            left -= 1
    optim.zero_grad()


def _batches(num_sequences: int, size: int | None, device: torch.device) -> tuple[Tensor, ...]:
    """Indices of each minibatch of one pass, in a random order."""
    return torch.randperm(num_sequences, device=device).split(size or num_sequences)


def minibatches(num_sequences: int, size: int | None, device: torch.device) -> Iterator[tuple]:
    """Yield the model's further arguments: none for all sequences at once, or their indices."""
    if size is None or size >= num_sequences:
        yield ()
        return
    for index in _batches(num_sequences, size, device):
        yield (index,)


def keep_best(
    learner: Learner,
    data: Data,
    num_epochs: int,
    *,
    batch_size: int | None,
    score: Callable[[], float],
    snapshot: Callable[[], dict[str, Tensor]],
    patience: int | None,
    callback: Callable[[EpochRecord], None] | None,
    disable_progbar: bool | None,
) -> tuple[list[EpochRecord], dict[str, Tensor]]:
    """Run the epochs; return their records, and the tensors of the best one.

    :param score: validation perplexity as it stands after an epoch, or NaN.
    :param snapshot: the tensors to keep; an empty dict is returned where no score was a number.
    """
    words, lengths = data
    num_tokens = words.numel() if lengths is None else int(lengths.sum())
    lowest, best_epoch, kept = math.inf, 0, dict[str, Tensor]()
    history: list[EpochRecord] = []
    disable = bool(os.environ.get("CI")) if disable_progbar is None else disable_progbar
    with trange(1, num_epochs + 1, desc="TopicalSSL", unit="epoch", disable=disable) as bar:
        for epoch in bar:
            started = time.perf_counter()
            steps = [
                learner.step(*data, *index)
                for index in minibatches(words.shape[1], batch_size, words.device)
            ]
            losses, moved = zip(*steps, strict=True)
            seconds = time.perf_counter() - started
            record = EpochRecord(
                epoch,
                sum(losses) / len(losses) / max(num_tokens, 1),
                sum(moved) / len(moved),
                score(),
                seconds,
            )
            history.append(record)
            bar.set_postfix(
                moved=f"{record.change_rate:.3f}",
                valid=f"{record.valid_perplexity:.1f}",
                refresh=False,
            )
            if callback is not None:
                callback(record)
            if record.valid_perplexity < lowest:
                lowest, best_epoch = record.valid_perplexity, epoch
                kept = {name: tensor.clone() for name, tensor in snapshot().items()}
            if patience is not None and kept and epoch - best_epoch >= patience:
                break
    return history, kept
