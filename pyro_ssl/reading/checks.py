"""What a model has to keep for its samplers to be right: each check is one function."""

from __future__ import annotations

import warnings

import pyro.distributions as dist
import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import EmissionNotLocalError, LatentSiteError
from .handlers import StateGrid, user_scale
from .program import ModelRun
from .quadratic import probe_points

__all__ = [
    "check_emission_is_local",
    "check_transition_learns",
    "latent_dirichlets",
    "require_discrete",
    "require_no_latents",
]


def latent_dirichlets(run: ModelRun, *, purpose: str) -> dict[str, dist.Dirichlet]:
    """Return the latent sites outside the loop, all of which must be Dirichlet.

    :param str purpose: who asks, for the message.
    :raises LatentSiteError: on a latent site of any other law.
    """
    found = {}
    for name, site in run.sites.items():
        if site["is_observed"] or isinstance(site["fn"], _Subsample):
            continue
        fn = site["fn"]
        while isinstance(fn, dist.Independent):
            fn = fn.base_dist
        if not isinstance(fn, dist.Dirichlet) or site["mask"] not in (None, True):
            raise LatentSiteError(
                f'Site "{name}": latent with law {type(fn).__name__}, which {purpose} cannot '
                "draw; expected a Dirichlet, or none. Make it a pyro.param, or give it: "
                f'pyro.condition(model, {{"{name}": value}}).'
            )
        if any(frame.full_size not in (None, frame.size) for frame in site["cond_indep_stack"]):
            raise LatentSiteError(
                f'Site "{name}": Dirichlet, inside a subsampled plate, expected outside: '
                f"{purpose} keeps one value of it. Draw it before the plate."
            )
        scale = user_scale(site)
        if isinstance(scale, Tensor) or scale != 1.0:
            # Dir(β)^s is Dir(1 + s (β - 1)).
            scale = scale.unsqueeze(-1) if isinstance(scale, Tensor) and scale.dim() else scale
            fn = dist.Dirichlet(1.0 + scale * (fn.concentration - 1.0))
        found[name] = fn
    return found


def require_no_latents(run: ModelRun, reason: str) -> None:
    """Check that the path is all there is to draw.

    :param str reason: what the caller does, for the message.
    :raises LatentSiteError: on any other latent site.
    """
    for name, site in run.sites.items():
        if not site["is_observed"] and not isinstance(site["fn"], _Subsample):
            raise LatentSiteError(
                f'Site "{name}": latent, but {reason}; expected "{run.loop.name}" to be the only '
                f'latent site. Give it: pyro.condition(model, {{"{name}": value}}).'
            )


def require_discrete(run: ModelRun, who: str) -> None:
    """Check that z_t is one of K states.

    :raises TypeError: if it is a vector.
    """
    if not run.is_discrete:
        raise TypeError(
            f'Site "{run.loop.name}": its transition is a {type(run.transition).__name__}, but '
            f"{who} sums over K states; expected a DiscreteTransition. StochasticEM, ParticleGibbs "
            "and ParticleFilter take both kinds."
        )


def check_transition_learns(run: ModelRun) -> None:
    """Warn where the transition has parameters that no optimiser will see."""
    known = {site["value"].unconstrained() for site in run.params.values()}
    lost = [
        name
        for name, parameter in run.transition.named_parameters()
        if parameter.requires_grad and parameter not in known
    ]
    if lost:
        warnings.warn(
            f'Site "{run.loop.name}": the parameters {", ".join(lost)} of its transition are not '
            "in Pyro's store, so they stay as they are; expected all that require a gradient. "
            'Write pyro.module("transition", transition) in the model, under a name that no other '
            "module has, or transition.requires_grad_(False).",
            RuntimeWarning,
            stacklevel=4,
        )


def check_emission_is_local(
    run: ModelRun,
    table: Tensor,
) -> None:
    """Check that the body treats each state alike, whatever stands beside it in the grid.

    A body that mixes states (a cumulative sum over z, a look at z one step back) reads the grid
    otherwise when other states stand there; log p(x_t | z_t = k) must not. The reversed grid finds
    what depends on the order of the states, and a grid of one state the rest (``z.roll(1, 0)``).

    :raises EmissionNotLocalError: if it does.
    """
    K = table.shape[-1]
    if K == 1:
        return
    every = torch.arange(K, device=table.device)
    states = every if run.is_discrete else probe_points(run.transition)
    for order in (every.flip(0), torch.zeros_like(every)):
        grid = StateGrid(states[order])
        run.again(grid)
        again = torch.stack([site.table() for site in grid.sites]).sum(0)
        if not torch.allclose(again, table[..., order], equal_nan=True):
            raise EmissionNotLocalError(
                f'Site "{run.grid.sites[0].name}": log p(x_t | z_t = k) changes with the states '
                "that stand beside k, so the emission is not a function of z_t alone; in the loop "
                f'of "{run.loop.name}" use z elementwise or as an index, as in phi[z], and nothing '
                "random."
            )
