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
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import LatentSiteError
from ..gradients import gradients
from ..reading.program import ModelRun, Program
from ..reading.site import base_of, user_scale

__all__ = ["Counts", "DirichletSite", "NotConjugateError", "dirichlet_counts", "normalised"]

#: tables of counts, by site, float64: float32 stops to count at 2^24
Counts = dict[str, Tensor]

#: ``objective(run)``: terms of the log-joint, one scalar for each set of counts that is wanted
Objective = Callable[[ModelRun], Sequence[Tensor]]


class NotConjugateError(LatentSiteError):
    """A Dirichlet site has a posterior that is no Dirichlet.

    :param str site: its name.
    """

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(
            f'Site "{site}": Dirichlet, but {reason}. Make it a pyro.param, or give it: '
            f'pyro.condition(model, {{"{site}": value}}).'
        )
        self.site = site


class DirichletSite:
    """A latent site with a Dirichlet prior, given (expected) counts n of its entries.

    :param Tensor concentration: β, ``(..., V)``.
    """

    def __init__(self, concentration: Tensor) -> None:
        self.concentration = concentration

    @classmethod
    def recognise(cls, site: Mapping[str, Any]) -> DirichletSite | None:
        """Return the site of a Pyro trace, if it is one."""
        fn = base_of(site["fn"])
        if not isinstance(fn, dist.Dirichlet) or site["mask"] not in (None, True):
            return None
        scale = user_scale(dict(site))
        if isinstance(scale, Tensor) or scale != 1.0:
            # Dir(β)^s is Dir(1 + s (β - 1)).
            scale = scale.unsqueeze(-1) if isinstance(scale, Tensor) and scale.dim() else scale
            return cls(1.0 + scale * (fn.concentration - 1.0))
        return cls(fn.concentration)

    @property
    def shape(self) -> torch.Size:
        """Shape of its value."""
        return self.concentration.shape

    def prior_draw(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw φ from its prior, no entry of it 0."""
        return dist.Dirichlet(self.concentration).sample(sample_shape).clamp(min=1e-30)

    def flat_draw(self) -> Tensor:
        """Draw φ to begin from: uniformly, but for what the prior tells one row from another by.

        A sparse prior's draws would shut most symbols out of most states. A state whose prior has a
        say begins there: its surplus over the least of all rows counts.
        """
        beta, flat = self.concentration, torch.ones_like(self.concentration)
        if beta.dim() > 1:
            flat = flat + (beta - beta.amin(-2, keepdim=True))
        return dist.Dirichlet(flat).sample()

    @torch.no_grad()
    def draw(self, counts: Tensor) -> Tensor:
        """Draw φ from its conjugate posterior, Dirichlet(β + n)."""
        posterior = self.concentration + counts.clamp(min=0.0)
        draw = dist.Dirichlet(posterior.to(self.concentration)).sample()
        # A draw from a small concentration may underflow to 0, and log 0 is no log-probability.
        return normalised(draw.clamp(min=torch.finfo(draw.dtype).tiny))

    @torch.no_grad()
    def point(self, counts: Tensor, kind: str) -> Tensor:
        r"""Return the posterior's mode or mean.

        The mode is (n + β - 1)₊ / Σ; with a flat prior (β = 1) it is the maximum likelihood
        estimate. Below β = 1 it lies on the boundary, where unseen symbols have probability 0. The
        mean, (n + β) / (n_k + Vβ), is the smoothed estimate of Zaheer et al. 2017, and the mode in
        the log-odds parametrisation. A row that has no mode (no counts, β < 1) takes the mean.
        """
        counts = counts.clamp(min=0.0)  # rounding may leave -1e-7
        weights = self.concentration + counts
        if kind == "mode":
            mode = (weights - 1.0).clamp(min=0.0)
            weights = torch.where(mode.sum(-1, keepdim=True) > 0, mode, weights)
        return normalised(weights, self.concentration.dtype)


def dirichlet_counts(
    program: Program,
    sites: Mapping[str, DirichletSite],
    objective: Objective,
    fixed: Mapping[str, Tensor] | None = None,
    *,
    verify: bool = False,
) -> list[Counts]:
    """Return the count tables n that Dirichlet sites have in some terms of the log-joint.

    :param sites: the Dirichlet sites, by name.
    :param objective: maps a run of the model to scalars; each gets its own tables.
    :param fixed: what all other latent sites and subsampling plates hold.
    :param bool verify: also check, at a third point, that the sites enter as categorical
        probabilities.
    :returns: for each scalar a dict from site to counts, of the site's shape.
    :raises NotConjugateError: if a site enters in another way.
    """
    fixed = fixed or {}
    phi_0, at_0, before = _residuals(program, sites, objective, fixed, 0)
    phi_1, at_1, _ = _residuals(program, sites, objective, fixed, 1)
    found, totals = [], []
    for r_0, r_1 in zip(at_0, at_1, strict=True):
        # r = n - φ n_k., so r_0 - r_1 = (φ_1 - φ_0) n_k.
        gap = {name: phi_1[name] - phi_0[name] for name in sites}
        total = {name: _ratio((r_0[name] - r_1[name]), gap[name]) for name in sites}
        found.append({name: r_0[name] + phi_0[name] * total[name] for name in sites})
        totals.append(total)
    if verify:
        phi_2, at_2, after = _residuals(program, sites, objective, fixed, 2)
        for counts, total, r_2 in zip(found, totals, at_2, strict=True):
            for name, r in r_2.items():
                rest = r - counts[name] + phi_2[name] * total[name]
                if bool((rest.abs() > 1e-3 * (1.0 + total[name].abs())).any()):
                    raise _not_categorical(name)
        for counts, rise in zip(found, (after - before).tolist(), strict=True):
            # A gradient sees no step, nor what the model takes without one.
            each = [n * (phi_2[name] / phi_0[name]).log() for name, n in counts.items()]
            rounding = 1e-3 * (1.0 + sum(float(n.abs().sum()) for n in each))
            if abs(rise - sum(float(n.sum()) for n in each)) > rounding:
                raise _not_categorical(next(iter(sites)))
    return found


def _not_categorical(name: str) -> NotConjugateError:
    return NotConjugateError(
        name,
        "it does not enter the likelihood as categorical probabilities, so its posterior is no "
        f"Dirichlet; expected a use such as dist.Categorical({name}[z])",
    )


def _residuals(
    program: Program,
    sites: Mapping[str, DirichletSite],
    objective: Objective,
    fixed: Mapping[str, Tensor],
    which: int,
) -> tuple[Counts, list[Counts], Tensor]:
    """Probe ``which``, and φ ⊙ ∂L/∂φ of every scalar there; and the scalars, float64."""
    probes = {
        name: probe(site.concentration.detach(), which, i).requires_grad_()
        for i, (name, site) in enumerate(sites.items())
    }
    with gradients():
        run = program.run({**fixed, **probes})
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
        pairs = zip(probes.items(), grads, strict=True)
        out.append(
            {
                name: (phi * 0.0 if grad is None else phi * grad).detach().double()
                for (name, phi), grad in pairs
            }
        )
    values = torch.stack([scalar.detach().double() for scalar in scalars])
    return {name: phi.detach().double() for name, phi in probes.items()}, out, values


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """The factor by which each row of ``b`` comes nearest to that of ``a``, ``(..., 1)``."""
    square = b.square().sum(-1, keepdim=True).clamp(min=torch.finfo(b.dtype).tiny)
    return (a * b).sum(-1, keepdim=True) / square


def _check_priors(run: ModelRun, probes: Mapping[str, Tensor]) -> None:
    """Check that no other latent site's prior depends on a Dirichlet's value: it is no count."""
    for name, site in run.sites.items():
        if site["is_observed"] or isinstance(site["fn"], _Subsample):
            continue
        known = DirichletSite.recognise(site) if name in probes else None
        if known is not None:
            prior, what = known.concentration.sum(), "concentration"
        else:
            prior, what = site["fn"].log_prob(site["value"]).sum(), "density"
        if not prior.requires_grad:
            continue
        grads = torch.autograd.grad(
            prior, list(probes.values()), retain_graph=True, allow_unused=True
        )
        for other, grad in zip(probes, grads, strict=True):
            if grad is not None:
                raise NotConjugateError(
                    other,
                    f'the {what} of "{name}" depends on it, so its posterior is no Dirichlet; '
                    f"expected a fixed {what}",
                )


def probe(concentration: Tensor, which: int, site: int = 0) -> Tensor:
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


def normalised(weights: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Divide rows by their sums, in float64, and round to ``dtype``, that of the weights if None.

    torch's simplex wants them to sum to 1 within 1e-6 in their own dtype, in the order in which
    their device adds. In float32 a GPU adds thousands of equal entries to a few large ones, and
    rounds alike each time: it may miss 1 by more. The largest entry takes what is missing.
    """
    wide = weights.double()
    rows = (wide / wide.sum(-1, keepdim=True)).to(dtype or weights.dtype)
    return rows.scatter_add(-1, rows.argmax(-1, keepdim=True), 1.0 - rows.sum(-1, keepdim=True))
