"""Weights of several epochs of a fit, for forecasts that know how unsure the weights are.

Stochastic EM never settles: paths are drawn anew in each epoch, and the weights move about as far
as the data leave them open. Forecasts by the weights of a single epoch take them for certain, and
where the data are few their intervals are too narrow; those by several epochs are a mixture.

*Reference*: Mandt, Hoffman & Blei, "Stochastic gradient descent as approximate Bayesian inference",
2017; Maddox et al., "A simple baseline for Bayesian uncertainty in deep learning", 2019.

Next file to read: ``gaussian_forecasting.py``, which forecasts by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..transitions.base import like_of

__all__ = ["kept_with", "shares", "weights_of", "with_weights"]

#: epochs from one that is kept to the next, and how many are
EVERY, KEPT = 5, 8


def weights_of(module: nn.Module) -> Tensor:
    """Return all parameters as one vector, ``(N,)``; a chain that was given has none."""
    values = [parameter.detach().flatten() for parameter in module.parameters()]
    return torch.cat(values) if values else like_of(module).new_empty(0)


def kept_with(kept: Tensor | None, module: nn.Module, epoch: int) -> Tensor | None:
    """Return the weights that are kept, ``(M, N)``, with those after an epoch if they are one."""
    if epoch % EVERY:
        return kept
    now = weights_of(module).unsqueeze(0)
    return now if kept is None else torch.cat([kept, now])[-KEPT:]


@contextmanager
def with_weights(module: nn.Module, weights: Tensor) -> Iterator[None]:
    """Let a module have other weights, ``(N,)``, for a while."""
    before = weights_of(module)
    try:
        _put(module, weights)
        yield
    finally:
        _put(module, before)


@torch.no_grad()
def _put(module: nn.Module, weights: Tensor) -> None:
    start = 0
    for parameter in module.parameters():
        size = parameter.numel()
        parameter.copy_(weights[start : start + size].view_as(parameter))
        start += size


def shares(num_particles: int, num_weights: int) -> list[int]:
    """How many particles go to each of the weights, as evenly as can be.

    Example::

        >>> shares(10, 3), shares(2, 3)
        ([4, 3, 3], [1, 1, 0])
    """
    least, more = divmod(num_particles, num_weights)
    return [least + (i < more) for i in range(num_weights)]
