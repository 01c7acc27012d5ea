"""The latent sites outside the loop: how their values follow from the paths.

All inference classes treat them here. A site's kind is recognised from its distribution; the only
one is the Dirichlet, whose statistic is a table of counts. Another kind joins as a class with the
methods of :class:`~.dirichlet.DirichletSite`, in :data:`KINDS`, and its statistic in
:meth:`GlobalSites.statistics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Independent
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..errors import LatentSiteError
from ..gradients import gradients
from ..reading.context import undrawn
from ..reading.program import ModelRun
from .dirichlet import Counts, DirichletSite, Objective, dirichlet_counts, probe

__all__ = ["GlobalSites", "HasEstimates"]

KINDS = (DirichletSite,)


class GlobalSites:
    """The latent sites of one model outside its loop.

    :param str who: the inference class, for messages.
    :param str kind: of the point estimates, ``"mode"`` or ``"mean"`` of each site's posterior.
    :param float averaging: weight, in [0, 1), of the past in the statistics that estimates come
        from: n ← averaging · n + (1 - averaging) · n_now (Delyon, Lavielle & Moulines 1999).
    :raises ValueError: on another kind, or a weight out of range.
    """

    def __init__(self, who: str, *, kind: str = "mean", averaging: float = 0.0) -> None:
        if kind not in ("mode", "mean"):
            raise ValueError(f'dirichlet is "{kind}", expected "mode" or "mean".')
        if not 0.0 <= averaging < 1.0:
            raise ValueError(f"averaging is {averaging}, expected a weight in [0, 1).")
        self.who, self.kind, self.averaging = who, kind, averaging
        #: the sites, by name, as :meth:`find` left them
        self.sites: dict[str, DirichletSite] = {}
        #: point estimates
        self.values: dict[str, Tensor] = {}
        #: what they come from
        self.counts: Counts = {}
        #: whether a site is a parameter of the transition, as the rows of a Bayesian HMM are
        self.reach_transition = False

    def __bool__(self) -> bool:
        return bool(self.sites)

    def find(self, run: ModelRun) -> dict[str, DirichletSite]:
        """Find the sites of a run, all of which must be of a known kind.

        :raises LatentSiteError: on a latent site of another distribution, or in a subsampled plate.
        """
        found = {}
        for name, site in run.sites.items():
            if site["is_observed"] or isinstance(site["fn"], _Subsample):
                continue
            known = next((s for kind in KINDS if (s := kind.recognise(site)) is not None), None)
            if known is None:
                raise LatentSiteError(
                    f'Site "{name}": latent, of distribution {_name(site["fn"])}, which {self.who} '
                    "cannot draw; expected a Dirichlet, or none. Make it a pyro.param, or give it: "
                    f'pyro.condition(model, {{"{name}": value}}).'
                )
            if any(frame.full_size not in (None, frame.size) for frame in site["cond_indep_stack"]):
                raise LatentSiteError(
                    f'Site "{name}": Dirichlet, inside a subsampled plate, expected outside: '
                    f"{self.who} keeps one value of it. Draw it before the plate."
                )
            found[name] = known
        self.sites = found
        return found

    def check(self, run: ModelRun) -> None:
        """Find the sites, and check that their statistics are what their kind takes them for.

        Nothing is drawn, and no value is changed.

        :raises LatentSiteError: on a site that is not of a known kind.
        """
        self.find(run)
        if not self.sites:
            return
        with undrawn(run.loop.device):  # a transition in training mode draws its dropout
            self._find_reach(run)
            if is_validation_enabled():
                path = run.any_path()

                def objective(probed: ModelRun) -> tuple[Tensor]:
                    elsewhere = probed.log_elsewhere(observed=True)
                    return (self.log_path(probed, path).sum() + elsewhere,)

                self.statistics(run, objective, verify=True)

    def _find_reach(self, run: ModelRun) -> None:
        probes = {
            name: probe(site.concentration.detach(), 0).requires_grad_()
            for name, site in self.sites.items()
        }
        with gradients():
            probed = run.program.run({**run.subsamples, **probes})
            log_p = probed.log_transition(probed.any_path()).sum()
        self.reach_transition = False
        if log_p.requires_grad:
            grads = torch.autograd.grad(log_p, list(probes.values()), allow_unused=True)
            self.reach_transition = any(grad is not None for grad in grads)

    def log_path(self, run: ModelRun, path: Tensor) -> Tensor:
        """Return the terms of log p(z, x) in the loop that the sites may enter, ``(B,)``."""
        log_p = run.log_emission(path)
        return log_p + run.log_transition(path) if self.reach_transition else log_p

    def statistics(
        self, run: ModelRun, objective: Objective, *, verify: bool = False
    ) -> list[Counts]:
        """Return the sites' statistics in some terms of the log-joint; see ``dirichlet.py``."""
        return dirichlet_counts(run.program, self.sites, objective, run.subsamples, verify=verify)

    def estimate(self, now: Counts) -> None:
        """Take in the statistics of a step: average them, and estimate the sites anew."""
        a = self.averaging
        self.counts = {
            name: a * self.counts[name] + (1.0 - a) * n if a and name in self.counts else n
            for name, n in now.items()
        }
        self.values = {
            name: site.point(self.counts[name], self.kind) for name, site in self.sites.items()
        }

    def draw(self, counts: Counts) -> dict[str, Tensor]:
        """Draw every site from its posterior given its statistics."""
        return {name: site.draw(counts[name]) for name, site in self.sites.items()}


class HasEstimates:
    """A class that fits a model, its latent sites outside the loop by point estimates."""

    model: Callable[..., Any]
    _globals: GlobalSites

    @property
    def values(self) -> dict[str, Tensor]:
        """Point estimates of the Dirichlet sites."""
        return dict(self._globals.values)

    @property
    def counts(self) -> Counts:
        """The (expected) counts that the estimates come from.

        Those of a site with one entry are 0: it is 1 whatever they are, so nothing tells them.
        """
        return dict(self._globals.counts)

    @property
    def fitted_model(self) -> Callable[..., Any]:
        """The model with its Dirichlet sites given: what ``ParticleFilter`` takes."""
        return poutine.condition(self.model, data=self.values)


def _name(fn: Any) -> str:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return type(fn).__name__
