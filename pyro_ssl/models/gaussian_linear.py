"""A Gaussian SSL that starts as a linear-Gaussian model: exact EM, and a transition that is it.

Next file to read: ``gaussian.py``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..exact import LinearEmission, LinearGaussianEM, sample_kalman_paths
from ..transitions import LinearGaussianTransition, RecurrentGaussianTransition
from .gaussian_autoregression import Autoregression
from .gaussian_data import Series

__all__ = ["MIN_SHARE", "chain_to_fill", "linear_start", "start_around"]

#: least standard deviation of a step, as a share of the chain's
MIN_SHARE = 0.1
DRAWS = 4


def chain_to_fill(dim: int, input_size: int) -> LinearGaussianTransition:
    """Return a chain without parameters: exact EM finds it, and no gradient moves it."""
    ones = torch.ones(dim)
    given = {"matrix": ones.diag(), "offset": torch.zeros(dim), "scale": ones}
    given |= {"initial_mean": torch.zeros(dim), "initial_scale": ones.clone()}
    G = torch.zeros(dim, input_size) if input_size else None
    return LinearGaussianTransition(dim, **given, input_size=input_size, input_matrix=G)


def linear_start(
    data: Series, dim: int, num_steps: int, lag: Autoregression | None = None
) -> tuple[LinearGaussianEM, float, Tensor, Autoregression | None]:
    """Fit the linear-Gaussian model.

    With an autoregression it is that of what this leaves, and in each step of EM the autoregression
    is estimated first: the penalised likelihood rises in each (ECM, Meng & Rubin 1993).

    :returns: it, its mean -log p(x_t | x_{1:t-1}) of a step, draws of its latents,
        ``(T, DRAWS B, D)``, and the autoregression.
    """
    x, lengths, _, inputs, _ = data
    x = torch.where(data.seen, x, torch.nan)
    em = LinearGaussianEM(dim)
    given: dict[str, Any] = {"lengths": lengths, "inputs": inputs}
    how = {"num_steps": num_steps, "disable_progbar": True, **given}
    if lag is None:
        em.fit(x, **how)
    else:
        lag = _together(em, data._replace(x=x), lag, how)
        x = lag.residuals(Series(x)).x
    log_p = em.log_likelihood(x, **given).double().sum()
    z = sample_kalman_paths(em.transition, em.emission, x, (DRAWS,), **given)
    return em, -float(log_p) / data.num_seen, z.movedim(0, 1).flatten(1, 2), lag


def _together(
    em: LinearGaussianEM, data: Series, lag: Autoregression, how: dict[str, Any]
) -> Autoregression:
    """Fit the model and an autoregression, each to what the other leaves."""

    def revise(place: Tensor) -> Tensor:
        nonlocal lag
        lag = lag.refitted(data, place)
        return lag.residuals(data).x

    em.fit(lag.residuals(data).x, revise=revise, **how)
    return lag


@torch.no_grad()
def start_around(transition: RecurrentGaussianTransition, em: LinearGaussianEM) -> LinearEmission:
    """Let a transition be the chain that was found, without a correction yet; return C, d and R."""
    found, chain = em.transition, transition.around
    assert chain is not None
    for name, value in chain.named_buffers():
        value.copy_(getattr(found, name))
    transition.min_scale.fill_(MIN_SHARE)
    # Latents vary by 1; smooth ones move by the least of the steps.
    transition.increment_scale.fill_(float(found.scale.log().mean().exp()))
    transition.head.weight.zero_()
    transition.head.bias.zero_()
    transition.head.bias[transition.dim :] = math.log(math.expm1(1.0 - MIN_SHARE))
    return em.emission
