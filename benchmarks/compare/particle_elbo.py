"""The same model learned by the particle filter's bound (FIVO, VSMC), by Pyro's own ``SVI``."""

from __future__ import annotations

import time
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from pyro.optim import AdamW
from torch import Tensor

from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    ParticleFilter,
    StochasticEM,
    TopicalSSL,
    ssl_transition,
)
from pyro_ssl.infer import ParticleELBO
from pyro_ssl.models import EpochRecord

__all__ = ["Learner", "no_guide"]


def no_guide(*args: Any) -> None:
    """All that a guide could be over is a parameter, or a path."""


class Learner:
    """Topics as softmax of a parameter, whose prior in the log-odds is the Dirichlet's.

    It starts where stochastic EM starts: topics from the HMM, the transition taught by its paths.

    :param TopicalSSL ssl: gives its transition and its prior.
    :param MarkovEM hmm: of the same model.
    :param words, lengths: what the HMM's paths are of.
    :param int num_particles: P.
    :param float learning_rate: of the transition; the topics' is five times it.
    """

    def __init__(
        self,
        ssl: TopicalSSL,
        hmm: MarkovEM,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        num_particles: int,
        num_gradient_steps: int,
        concentration: float = 0.1,
        transition_steps: int = 60,
        learning_rate: float = 0.01,
        batch_size: int | None = None,
    ) -> None:
        self.transition: LSTMTransition = ssl.transition
        self.concentration, self.batch_size = concentration, batch_size
        self.num_gradient_steps = num_gradient_steps
        em = StochasticEM(ssl.model, AdamW({"lr": learning_rate, "weight_decay": 0.0}))
        em.start_from(hmm.for_model(ssl.model), words, lengths, transition_steps=transition_steps)
        self.logits = hmm.values["phi"].clamp(min=1e-8).log()
        pyro.clear_param_store()
        rates = {"logits": 5 * learning_rate}
        optim = AdamW(lambda name: {"lr": rates.get(name, learning_rate), "weight_decay": 0.0})
        self.loss = ParticleELBO(num_particles)
        self.svi = SVI(self.model, no_guide, optim, loss=self.loss)

    def model(
        self, words: Tensor, lengths: Tensor | None = None, index: Tensor | None = None
    ) -> None:
        """TopicalSSL's, with topics as a parameter."""
        pyro.module("transition", self.transition)
        log_phi = pyro.param("logits", self.logits).log_softmax(-1)
        pyro.factor("prior", self.concentration * log_phi.sum())
        with pyro.plate("documents", words.shape[1], subsample=index):
            if index is not None:
                words, lengths = words[:, index], None if lengths is None else lengths[index]
            for t, z in ssl_transition("z", self.transition, len(words), lengths=lengths):
                pyro.sample("x", dist.Categorical(logits=log_phi[z]), obs=words[t])

    def epoch(self, words: Tensor, lengths: Tensor | None) -> float:
        """Go through the data once; return the bound per word."""
        order = torch.randperm(words.shape[1], device=words.device)
        parts = order.split(self.batch_size or len(order))
        losses = [
            self.svi.step(words, lengths, index) / len(parts)
            for index in parts
            for _ in range(self.num_gradient_steps)
        ]
        return sum(losses) / self.num_gradient_steps / words.numel()

    @property
    def phi(self) -> Tensor:
        """The topics, ``(K, V)``."""
        return pyro.param("logits").detach().softmax(-1)

    def perplexity(self, data: tuple[Any, ...], num_particles: int, start: int = 0) -> float:
        """By the same twisted filter as all other methods."""
        return ParticleFilter(self.model, num_particles).perplexity(*data, start=start)

    def fit(self, train: Any, valid: Any, num_epochs: int, patience: int) -> list[EpochRecord]:
        """Learn until validation stops; keep the best epoch."""
        history: list[EpochRecord] = []
        best: dict[str, Tensor] = {}
        for epoch in range(1, num_epochs + 1):
            started = time.perf_counter()
            loss = self.epoch(*train)
            seconds = time.perf_counter() - started
            score = self.perplexity(valid[:2], 20, valid[2])
            history.append(EpochRecord(epoch, loss, float("nan"), score, seconds))
            kept = min(history, key=lambda record: record.score).epoch
            if kept == epoch:
                best = {n: v.detach().clone() for n, v in pyro.get_param_store().items()}
            if epoch - kept >= patience:
                break
        with torch.no_grad():
            for name, value in best.items():
                pyro.param(name).copy_(value)
        return history
