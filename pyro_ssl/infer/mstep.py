"""The M-step by gradient: log p(z, x) of drawn paths is raised in all parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import NonFiniteError
from ..gradients import gradients
from ..reading.checks import check_all_learn
from ..reading.program import Program
from .sharded import mean_over_ranks

__all__ = ["gradient_step"]


def gradient_step(
    program: Program,
    values: Mapping[str, Tensor],
    path: Tensor,
    optim: Callable[..., Any],
    *,
    tell: bool,
) -> float:
    """Make one step; return -log p(z, x) before it, without priors, scaled to the full data.

    :param values: of the Dirichlet sites, and indices of the plates.
    :param Tensor path: ``(T, B, ...)``.
    :param optim: a Pyro optimiser.
    :param bool tell: warn of parameters that nothing trains.
    :raises NonFiniteError: before anything is changed.
    """
    with gradients():
        run = program.run(values)
        log_p = (run.log_transition(path) + run.log_emission(path)).double().sum()
        loss = -(log_p * run.subsample_factor + run.log_elsewhere(observed=True))
        # A prior counts where its own parameters are learned; at a mode it may be infinite.
        prior = run.log_elsewhere(observed=False)
        objective = loss - prior if prior.requires_grad else loss
    parameters = {site["value"].unconstrained() for site in run.params.values()}
    if not bool(objective.isfinite()):
        raise NonFiniteError(
            f'Site "{run.loop.name}": log p(z, x) of the drawn paths is {-loss.item()}, and '
            f"that of the priors {prior.item()}, expected finite numbers; check parameters "
            'and data for NaN, and write dirichlet="mean" where a prior is learned. Nothing '
            "was updated."
        )
    if tell:
        check_all_learn(run, objective)
    learns = bool(parameters) and objective.requires_grad
    if learns:
        objective.backward()
    # A set has no order that all ranks share.
    ordered = [site["value"].unconstrained() for site in run.params.values()]
    loss = mean_over_ranks(run, dict.fromkeys(ordered), loss)
    if learns:
        optim([p for p in parameters if p.grad is not None])
        for parameter in parameters:
            parameter.grad = None
    return float(loss.detach())
