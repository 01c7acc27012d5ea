"""The latent sites outside the loop: how their values follow from the paths.

All inference classes treat them here. A Dirichlet site that enters as categorical probabilities has
a table of counts as its statistic, from which it is drawn, or estimated, in closed form. Where a
class takes others too, these are free (``free.py``): a Dirichlet that enters in another way is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..errors import LatentSiteError
from ..gradients import gradients
from ..reading.context import undrawn
from ..reading.program import ModelRun
from .dirichlet import (
    Counts,
    DirichletSite,
    NotConjugateError,
    Objective,
    dirichlet_counts,
    probe,
)
from .free import NUM_DRAWS, FreeSite, kind_of
from .point import PointSites

__all__ = ["GlobalSites", "HasEstimates"]


class GlobalSites:
    """The latent sites of one model outside its loop.

    :param str who: the inference class, for messages.
    :param str kind: of the point estimates, ``"mode"`` or ``"mean"`` of each site's posterior.
    :param float averaging: weight, in [0, 1), of the past in the statistics that estimates come
        from: n ← averaging · n + (1 - averaging) · n_now (Delyon, Lavielle & Moulines 1999).
    :param free: whether sites of other kinds may be latent; or what makes them parameters of the
        model that it wraps.
    :raises ValueError: on another kind, or a weight out of range.
    """

    def __init__(
        self,
        who: str,
        kind: str = "mean",
        averaging: float = 0.0,
        free: bool | PointSites | None = None,
    ) -> None:
        if kind not in ("mode", "mean"):
            raise ValueError(f'dirichlet is "{kind}", expected "mode" or "mean".')
        if not 0.0 <= averaging < 1.0:
            raise ValueError(f"averaging is {averaging}, expected a weight in [0, 1).")
        self.who, self.kind, self.averaging = who, kind, averaging
        self.takes_free, self.points = bool(free), free if isinstance(free, PointSites) else None
        self._not_conjugate = frozenset[str]()
        #: the sites in closed form, by name, as :meth:`find` left them
        self.sites: dict[str, DirichletSite] = {}
        #: the others, but for those that are parameters
        self.free: dict[str, FreeSite] = {}
        #: point estimates
        self.values: dict[str, Tensor] = {}
        #: what they come from
        self.counts: Counts = {}
        #: those that are parameters of the transition, as the rows of a Bayesian HMM are
        self.in_transition = frozenset[str]()

    def __bool__(self) -> bool:
        return bool(self.sites)

    @property
    def reach_transition(self) -> bool:
        """Whether a site is a parameter of the transition."""
        return bool(self.in_transition)

    @property
    def names(self) -> list[str]:
        """All sites, those in closed form first."""
        return [*self.sites, *self.free]

    def find(self, run: ModelRun) -> dict[str, DirichletSite]:
        """Find the sites of a run, all of which must be of a known kind; new ones are checked.

        :raises LatentSiteError: on a latent site that cannot be drawn, or in a subsampled plate.
        """
        found, free = {}, {}
        for name, site in run.sites.items():
            if site["is_observed"] or isinstance(site["fn"], _Subsample):
                continue
            if site["infer"].get("_ssl_point"):  # a parameter
                continue
            known = None if name in self._not_conjugate else DirichletSite.recognise(site)
            if known is None and not self.takes_free:
                raise LatentSiteError(
                    f'Site "{name}": latent, of distribution {kind_of(site["fn"])}, which '
                    f"{self.who} cannot draw; expected a Dirichlet, or none. Make it a pyro.param, "
                    f'or give it: pyro.condition(model, {{"{name}": value}}).'
                )
            if known is None:
                free[name] = FreeSite(site, self.who)
                continue
            if any(frame.full_size not in (None, frame.size) for frame in site["cond_indep_stack"]):
                raise LatentSiteError(
                    f'Site "{name}": Dirichlet, inside a subsampled plate, expected outside: '
                    f"{self.who} keeps one value of it. Draw it before the plate."
                )
            found[name] = known
        new = (found.keys() | free.keys()) - {*self.names}
        self.sites, self.free = found, free
        if new:
            self._verify(run)
        return self.sites

    def check(self, run: ModelRun) -> bool:
        """Find the sites, and check that their statistics are what their kind takes them for.

        Nothing is drawn, and no value is changed.

        :returns: whether some are parameters from now on: the model is to be run, and checked,
            again.
        :raises LatentSiteError: on a site that is not of a known kind.
        """
        self.sites, self.free, self._not_conjugate = {}, {}, frozenset()  # all are new
        self.find(run)
        if not self.free or self.points is None:
            return False
        self.points.take(self.free.values(), self.who)
        return True

    def _verify(self, run: ModelRun) -> None:
        with undrawn(run.loop.device):  # a transition in training mode draws its dropout
            self._find_reach(run)
            if self.free and is_validation_enabled():
                again = run.program.run(run.subsamples).sites
                for name, site in self.free.items():
                    site.check_support(FreeSite(again[name], self.who))
            if self.sites and is_validation_enabled():
                self._verify_conjugacy(run)

    def _verify_conjugacy(self, run: ModelRun) -> None:
        path = run.any_path()

        def objective(probed: ModelRun) -> tuple[Tensor]:
            elsewhere = probed.log_elsewhere(observed=True)
            return (self.log_path(probed, path).sum() + elsewhere,)

        while self.sites:  # one after the other is found to be free
            try:
                self.statistics(run, objective, verify=True)
                return
            except NotConjugateError as error:
                if not self.takes_free:
                    raise
                self.set_free(run, {error.site})

    def _find_reach(self, run: ModelRun) -> None:
        probes = {
            name: probe(site.concentration.detach(), 0).requires_grad_()
            for name, site in self.sites.items()
        }
        values = {name: run.sites[name]["value"].detach().clone() for name in self.free}
        moving = {n: v.requires_grad_() for n, v in values.items() if not self.free[n].is_finite}
        with gradients():
            probed = run.program.run({**run.subsamples, **values, **probes})
            # What reaches the transition reaches it at one sequence.
            log_p = probed.log_transition(probed.any_path(), slice(1)).sum()
        # No gradient tells of a finite one.
        reach = {name for name, site in self.free.items() if site.is_finite}
        wanted = probes | moving
        if log_p.requires_grad and wanted:
            grads = torch.autograd.grad(log_p, list(wanted.values()), allow_unused=True)
            reach |= {name for name, g in zip(wanted, grads, strict=True) if g is not None}
        self.in_transition = frozenset(reach) | self._through_steps(run, moving.keys() - reach)

    @torch.no_grad()
    def _through_steps(self, run: ModelRun, names: set[str]) -> set[str]:
        """Sites that reach the transition where no gradient does, as by inputs (t > cut).

        Where their prior's draws change what a path is worth, all are taken to.
        """
        if not names:
            return names
        given = run.subsamples | {name: run.sites[name]["value"] for name in self.names}
        drawn = {name: run.sites[name]["fn"].sample((NUM_DRAWS,)) for name in names}
        lengths, path = run.grid.lengths, run.any_path()
        b = 0 if lengths is None or not len(lengths) else int(lengths.argmax())

        def worth(values: dict[str, Tensor]) -> Tensor:
            with undrawn(run.loop.device):  # the same dropout each time
                return run.program.run(given | values).log_transition(path, slice(b, b + 1))

        each = ({name: draws[i] for name, draws in drawn.items()} for i in range(NUM_DRAWS))
        now = worth({})
        return names if any(not worth(some).equal(now) for some in each) else set()

    def set_free(self, run: ModelRun, names: Iterable[str]) -> None:
        """Take Dirichlet sites as free ones from now on."""
        self._not_conjugate |= frozenset(names)
        self.find(run)

    def log_path(self, run: ModelRun, path: Tensor) -> Tensor:
        """Return the terms of log p(z, x) in the loop that the sites may enter, ``(B,)``."""
        log_p = run.log_emission(path)
        return log_p + run.log_transition(path) if self.reach_transition else log_p

    def statistics(
        self, run: ModelRun, objective: Objective, *, verify: bool = False
    ) -> list[Counts]:
        """Return the sites' statistics in some terms of the log-joint; see ``dirichlet.py``."""
        fixed = run.subsamples | {name: run.sites[name]["value"] for name in self.free}
        return dirichlet_counts(run.program, self.sites, objective, fixed, verify=verify)

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
        """Point estimates of the latent sites outside the loop."""
        points = self._globals.points
        return dict(self._globals.values) | ({} if points is None else points.values)

    @property
    def counts(self) -> Counts:
        """The (expected) counts that the estimates come from.

        Those of a site with one entry are 0: it is 1 whatever they are, so nothing tells them.
        """
        return dict(self._globals.counts)

    @property
    def fitted_model(self) -> Callable[..., Any]:
        """The model with these sites given: what ``ParticleFilter`` takes."""
        return poutine.condition(self.model, data=self.values)
