"""Parts of a Gaussian SSL's model and fit: the observed distribution, and an epoch of EM.

Next file to read: ``gaussian.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ..infer import StochasticEM
from .gaussian_data import Series, observed
from .gaussian_sensors import Numbers

__all__ = ["Given", "em_epoch", "observe"]

#: standard deviation at which a residual of 0 has density 1, so that it counts for nothing
NOTHING = 1.0 / math.sqrt(2.0 * math.pi)


class Given(NamedTuple):
    """What p(x_t | η) is made of, and x.

    ``x`` ``(T, B, E)``; ``mask``, of what was observed, ``(T, B)`` or ``(T, B, E)``; R, and its
    form, ``"diagonal"`` or any other; ``shift`` ``(T, B, E)``, added to η, of Gaussian noise.
    """

    x: Tensor
    mask: Tensor | None
    covariance: Tensor
    noise: str
    shift: Tensor | None = None

    def place(self, eta: Tensor, t: Tensor) -> Tensor:
        """Where x_t is expected."""
        return eta if self.shift is None else eta + self.shift[t]


def observe(given: Given) -> tuple[Callable[[Tensor, Tensor], Any], Tensor]:
    """Return p(x_t | η, t) as a function, sensors that were not observed left out, and x."""
    x, there = observed(given.x, given.mask)
    covariance, shift = given.covariance, given.shift
    if given.noise == "diagonal":
        scale = covariance.diagonal().sqrt()

        def apart(eta: Tensor, t: Tensor) -> Any:
            return Numbers(eta, there[t], scale, None if shift is None else shift[t])

        return apart, x
    some = there.any(-1)
    if bool((there.all(-1) == some).all()):

        def together(eta: Tensor, t: Tensor) -> Any:
            return dist.MultivariateNormal(given.place(eta, t), covariance).mask(some[t])

        return together, x
    root = _roots(covariance, there)

    def in_part(eta: Tensor, t: Tensor) -> Any:
        mean = torch.where(there[t], given.place(eta, t), 0.0)
        # A Cholesky factor for each cell: to check them all costs more than to use them.
        return dist.MultivariateNormal(mean, scale_tril=root[t], validate_args=False)

    return in_part, x


def _roots(covariance: Tensor, there: Tensor) -> Tensor:
    """Cholesky factors of the noise of what was observed, ``(T, B, E, E)``."""
    patterns, index = there.flatten(0, 1).unique(dim=0, return_inverse=True)
    pair = patterns.unsqueeze(-1) & patterns.unsqueeze(-2)
    own = torch.eye(len(covariance), dtype=torch.bool, device=covariance.device)
    root = torch.linalg.cholesky(torch.where(pair | own, covariance, 0.0))
    root = torch.where(own & ~pair, NOTHING, root)
    return root[index].unflatten(0, there.shape[:2])


def em_epoch(
    em: StochasticEM, data: Series, num_paths: int, batch_size: int | None
) -> tuple[float, float]:
    """One pass over all sequences; return the loss of all, and the share of latents renewed."""
    x, lengths, mask, inputs, _ = data
    B = x.shape[1]
    if batch_size is None or batch_size >= B:
        return em.step(x, lengths, mask, num_paths, inputs), em.change_rate
    copies = B * torch.arange(num_paths, device=x.device).unsqueeze(-1)
    loss = moved = 0.0
    for batch in torch.randperm(B, device=x.device).split(batch_size):
        share = len(batch) / B
        index = (batch + copies).flatten()
        loss += share * em.step(x, lengths, mask, num_paths, inputs, index)
        moved += share * em.change_rate
    return loss, moved
