"""A start away from the symmetric plateau: an exact HMM, and a transition that its paths teach.

Stochastic EM from random parameters sits on a plateau for very long. The HMM that a model becomes
with a Markov chain as transition is fitted exactly, in seconds; draws of its paths then teach the
transition.

Next file to read: ``markov_em.py``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteError, at_least
from ..steps import steps_within
from ..transitions import DiscreteTransition
from .markov_em import MarkovEM

__all__ = ["check_steps", "fit_markov", "teach_transition"]


def fit_markov(
    model: Callable[..., Any],
    data: Tensor,
    lengths: Tensor | None = None,
    *,
    valid: tuple[Any, ...] | None = None,
    num_steps: int = 150,
    num_starts: int = 3,
) -> MarkovEM:
    """Fit a model's HMM from several random starts, and keep the best.

    With validation data, the best of every tenth iteration of each start; without, the start of
    the highest likelihood.

    :param model: a Pyro model of ``(data, lengths)``, as :class:`MarkovEM` takes it.
    :param Tensor data: what the model observes, time first.
    :param Tensor lengths: ``(B,)``.
    :param valid: ``(data, lengths)`` or ``(data, lengths, start)`` to choose by, scored from step
        ``start`` on.
    :param int num_steps: EM iterations from each start, one at least.
    :param int num_starts: random starts, one at least.
    :raises ValueError: if either is less than 1.

    Example::

        >>> from pyro_ssl import TopicalSSL
        >>> words = torch.randint(6, (7, 4))
        >>> hmm = fit_markov(TopicalSSL(3, 6, hidden_size=8).model, words, num_steps=5)
        >>> hmm.matrix.shape
        torch.Size([3, 3])
    """
    if not at_least(1, num_steps, num_starts):
        raise ValueError(
            f"fit_markov: num_steps is {num_steps} and num_starts {num_starts}, expected at least "
            "1 of each."
        )
    best: MarkovEM | None = None
    lowest = math.inf
    for _ in range(num_starts):
        hmm = MarkovEM(model, dirichlet="mean")
        for i in range(1, num_steps + 1):
            score = hmm.step(data, lengths)
            if i < num_steps and (valid is None or i % 10):
                continue
            if valid is not None:
                *held_out, start = (*valid, 0)[:3]
                score = hmm.perplexity(*held_out, start=start)
            if best is None or score < lowest:
                best, lowest = copy.copy(hmm), score
    assert best is not None
    return best


def check_steps(who: str, num_steps: int, transition_steps: int) -> None:
    """Check how many steps a warm start is to make.

    :raises ValueError: unless both are integers, 1 at least of the HMM's.
    """
    if not (at_least(1, num_steps) and at_least(0, transition_steps)):
        raise ValueError(
            f"{who}: num_steps is {num_steps} and transition_steps {transition_steps}, expected "
            "integers, at least 1 and 0."
        )


def teach_transition(
    transition: DiscreteTransition,
    draw: Callable[[], Tensor],
    num_steps: int,
    optim: Callable[[list[nn.Parameter]], Any],
    *,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
    batch_size: int | None = None,
) -> None:
    """Train a transition on the paths of another one, drawn anew in every pass over the sequences.

    :param draw: returns paths, int64 ``(B, T)``, as :meth:`MarkovEM.sample_paths` does.
    :param int num_steps: gradient steps.
    :param optim: a Pyro optimiser.
    :param Tensor lengths: ``(B,)``; by default every path has T steps.
    :param Tensor inputs: exogenous inputs, ``(T, B, input_size)``.
    :param int batch_size: sequences in a step, chosen at random; by default all.
    :raises NonFiniteError: if the transition gives a path no finite log-probability.
    """
    parameters = [p for p in transition.parameters() if p.requires_grad]
    if not parameters:
        return
    training = transition.training
    transition.train()
    try:
        while num_steps > 0:
            z = draw()
            B, T = z.shape
            for index in torch.randperm(B, device=z.device).split(batch_size or B)[:num_steps]:
                u = None if inputs is None else inputs[:, index].transpose(0, 1)
                log_p = transition.log_prob(z[index], u).T  # (T, index)
                if lengths is not None:
                    log_p = torch.where(steps_within(lengths[index], T), log_p, 0.0)
                # Of all sequences, as in stochastic EM, so that Adam and weight decay weigh alike.
                loss = -log_p.sum() * (B / len(index))
                if not bool(loss.isfinite()):
                    raise NonFiniteError(
                        f"The transition's log p(z) is {-loss.item()} of paths that it is to "
                        "learn, expected a finite number; check its parameters and inputs for "
                        "NaN (a learning rate that is too large?)."
                    )
                loss.backward()
                optim(parameters)
                for parameter in parameters:
                    parameter.grad = None
                num_steps -= 1
    finally:
        transition.train(training)
