r"""Dirichlet sites in closed form, without pattern matching on the model.

Where φ enters the complete-data likelihood as categorical probabilities, with counts n,

.. math:: L(φ) = \sum_{k,v} n_{kv} \log (φ_{kv} / φ_{k·}), \qquad
          φ_{kv} \frac{∂L}{∂φ_{kv}} = n_{kv} - φ_{kv} \, n_{k·}

(the second term because Pyro normalises the rows; without it the left side is Baum and Eagon's
count table). Two points φ give both n and n_k·; a third one tells whether φ enters in this way at
all. So the counts come from three evaluations of the user's own density, whatever its code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..errors import LatentSiteError
from ..reading.checks import latent_dirichlets
from ..reading.program import ModelRun, run_model

__all__ = [
    "dirichlet_counts",
    "dirichlet_point",
    "draw_dirichlet",
    "normalised",
    "reaches_transition",
]

#: ``objective(run)``: terms of the log-joint, one scalar for each table of counts wanted
Objective = Callable[[ModelRun], Sequence[Tensor]]

Counts = dict[str, Tensor]


def dirichlet_counts(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    values: Mapping[str, Tensor],
    sites: Mapping[str, dist.Dirichlet],
    objective: Objective,
    *,
    verify: bool = False,
) -> list[Counts]:
    """Return the count tables n that Dirichlet sites have in some terms of the log-joint.

    :param values: what all other latent sites and subsampling plates hold.
    :param sites: the Dirichlet sites, by name (:func:`~.program.latent_dirichlets`).
    :param objective: maps a run of the model to scalars; each gets its own tables.
    :param bool verify: also check, at a third point, that the sites enter as categorical
        probabilities.
    :returns: for each scalar a dict from site to counts, of the site's shape.
    :raises LatentSiteError: if a site enters in another way.
    """

    def residuals(which: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """φ ⊙ ∂L/∂φ of every scalar at probe ``which``."""
        probes = {
            name: _probe(fn.concentration.detach(), which, i).requires_grad_()
            for i, (name, fn) in enumerate(sites.items())
        }
        with torch.enable_grad():
            run = run_model(model, args, kwargs, {**values, **probes})
            if which == 2:
                _check_priors(run, probes)
            scalars = objective(run)
        out = []
        for scalar in scalars:
            grads: Sequence[Tensor | None] = [None] * len(probes)
            if scalar.requires_grad:
                grads = torch.autograd.grad(
                    scalar, list(probes.values()), retain_graph=True, allow_unused=True
                )
            out.append(
                {
                    name: torch.zeros_like(phi) if g is None else (phi * g).detach()
                    for (name, phi), g in zip(probes.items(), grads, strict=True)
                }
            )
        return {name: phi.detach() for name, phi in probes.items()}, out

    phi_0, at_0 = residuals(0)
    phi_1, at_1 = residuals(1)
    phi_2, at_2 = residuals(2) if verify else ({}, [{}] * len(at_0))
    found = []
    for r_0, r_1, r_2 in zip(at_0, at_1, at_2, strict=True):
        counts, totals = {}, {}
        for name in sites:
            # r = n - φ n_k., so r_0 - r_1 = (φ_1 - φ_0) n_k.
            gap = phi_1[name] - phi_0[name]
            square = gap.square().sum(-1, keepdim=True).clamp(min=torch.finfo(gap.dtype).tiny)
            totals[name] = ((r_0[name] - r_1[name]) * gap).sum(-1, keepdim=True) / square
            counts[name] = r_0[name] + phi_0[name] * totals[name]
        found.append(counts)
        for name, r in r_2.items():
            slack = 1e-3 * (1.0 + totals[name].abs())
            if bool(((r - counts[name] + phi_2[name] * totals[name]).abs() > slack).any()):
                raise LatentSiteError(
                    f'Site "{name}": Dirichlet, but it does not enter the likelihood as '
                    "categorical probabilities, so its posterior is no Dirichlet; expected a use "
                    f"such as dist.Categorical({name}[z]). Make it a pyro.param, or give it: "
                    f'pyro.condition(model, {{"{name}": value}}).'
                )
    return found


def reaches_transition(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    sites: Mapping[str, dist.Dirichlet],
) -> bool:
    """Return whether a Dirichlet site is a parameter of the transition (a Bayesian HMM's rows)."""
    probes = {
        name: _probe(fn.concentration.detach(), 0).requires_grad_() for name, fn in sites.items()
    }
    if not probes:
        return False
    with torch.enable_grad():
        run = run_model(model, args, kwargs, probes)
        shape = (run.loop.num_steps, run.num_sequences)
        log_p = run.log_transition(torch.zeros(shape, dtype=torch.long, device=run.loop.device))
    if not log_p.requires_grad:
        return False
    grads = torch.autograd.grad(log_p.sum(), list(probes.values()), allow_unused=True)
    return any(grad is not None for grad in grads)


def _check_priors(run: ModelRun, probes: Mapping[str, Tensor]) -> None:
    """Check that no Dirichlet's prior depends on another one's value: it would be no count."""
    for name, fn in latent_dirichlets(run, purpose="the conjugate draw").items():
        total = fn.concentration.sum()
        if not total.requires_grad:
            continue
        grads = torch.autograd.grad(
            total, list(probes.values()), retain_graph=True, allow_unused=True
        )
        for other, grad in zip(probes, grads, strict=True):
            if grad is not None:
                raise LatentSiteError(
                    f'Site "{other}": the concentration of "{name}" depends on it, so its '
                    "posterior is no Dirichlet; expected a fixed concentration. Make it a "
                    f'pyro.param, or give it: pyro.condition(model, {{"{other}": value}}).'
                )


def _probe(concentration: Tensor, which: int, site: int = 0) -> Tensor:
    """Return an interior point of the simplex, for each row.

    Points 0 and 1 are far enough apart to solve for n_k·, the same in all rows and sites. At point
    2, which verifies, all rows differ: a mixture of equal rows could pass for a single one.
    """
    if which < 2:
        index = torch.arange(concentration.shape[-1], device=concentration.device)
        weights = (1 + index % (which + 1)).to(concentration.dtype).expand(concentration.shape)
    else:
        index = torch.arange(concentration.numel(), device=concentration.device)
        index = (index + 12345 * site + 1).reshape(concentration.shape)
        # multiples of the golden ratio, modulo 1: no two rows are alike, none is uniform
        fraction = (index * 40503 % 65536).to(concentration.dtype) / 65536
        weights = 0.25 + fraction
    return weights / weights.sum(-1, keepdim=True)


def normalised(weights: Tensor) -> Tensor:
    """Divide rows by their sums, in float64: in float32 a long row may miss 1 by over 1e-6."""
    wide = weights.double()
    return (wide / wide.sum(-1, keepdim=True)).to(weights.dtype)


def draw_dirichlet(fn: dist.Dirichlet, counts: Tensor) -> Tensor:
    """Draw φ from its conjugate posterior, Dirichlet(concentration + n)."""
    with torch.no_grad():
        draw = dist.Dirichlet(fn.concentration + counts.clamp(min=0.0)).sample()
        # A draw from a small concentration may underflow to 0, and log 0 is no log-probability.
        return normalised(draw.clamp(min=torch.finfo(draw.dtype).tiny))


def dirichlet_point(fn: dist.Dirichlet, counts: Tensor, kind: str) -> Tensor:
    r"""Return the posterior's mode or mean.

    The mode is (n + β - 1)₊ / Σ; with a flat prior (β = 1) it is the maximum likelihood estimate.
    Below β = 1 it lies on the boundary, where unseen symbols have probability 0. The mean,
    (n + β) / (n_k + Vβ), is the smoothed estimate of Zaheer et al. 2017, and the mode in the
    log-odds parametrisation. A row that has no mode (no counts, β < 1) takes the mean.
    """
    with torch.no_grad():
        counts = counts.clamp(min=0.0)  # rounding may leave -1e-7
        mean = normalised(fn.concentration + counts)
        if kind == "mean":
            return mean
        mode = (fn.concentration + counts - 1.0).clamp(min=0.0)
        has_mode = mode.sum(-1, keepdim=True) > 0
        return torch.where(has_mode, normalised(torch.where(has_mode, mode, 1.0)), mean)
