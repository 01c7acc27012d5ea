"""All latent sites outside the loop given the paths, chain by chain: one part of particle Gibbs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..reading.context import undrawn
from ..reading.program import ModelRun
from .conjugate import Form, form_of, has_form
from .dirichlet import Counts
from .free import Conditional
from .globals import GlobalSites
from .inner import InnerKernels, check_inner_kernel
from .sharded import check_free, current, share_of, sum_counts

__all__ = ["GlobalsUpdate"]


class GlobalsUpdate:
    """Draws Dirichlet sites in closed form, then the free ones by kernels of their own.

    :param GlobalSites sites: those of the model.
    :param inner_kernel: see :class:`~pyro_ssl.ParticleGibbs`.
    """

    def __init__(self, sites: GlobalSites, inner_kernel: Any) -> None:
        check_inner_kernel(inner_kernel)
        self.sites, self.inner_kernel = sites, inner_kernel
        #: of each chain
        self.inner: list[InnerKernels] = []

    def start(self, run: ModelRun, num_chains: int, warmup_steps: int) -> None:
        """Forget what kernels have adapted to; the sites have been found in this run."""
        free, how = self.sites.free, self.inner_kernel
        check_free(free)
        forms = self._closed_forms(run) if free else {}
        chains = range(num_chains if free else 0)
        self.inner = [InnerKernels(free, how, warmup_steps, forms) for _ in chains]

    def _closed_forms(self, run: ModelRun) -> dict[str, Form]:
        """Free sites whose posterior given all else has a closed form."""
        values = {name: run.sites[name]["value"].detach() for name in self.sites.names}
        target = self._given(run, run.any_path())
        maybe = {name: form_of(run.sites[name]) for name in self.sites.free}
        with undrawn(run.loop.device):
            return {n: f for n, f in maybe.items() if f and has_form(target, n, f, values)}

    def _given(self, run: ModelRun, path: Tensor) -> Conditional:
        reach = self.sites.reach_transition
        return Conditional(run, path, run.subsamples, reach_transition=reach)

    def prior_draws(self, run: ModelRun, num_chains: int) -> dict[str, Tensor]:
        """Draw all sites from their prior for each chain, a leading C."""
        if not self.sites.free:
            with current().shared():
                return {n: s.prior_draw((num_chains,)) for n, s in self.sites.sites.items()}
        draws = []
        for _ in range(num_chains):
            drawn = run.program.run(run.subsamples)
            values = {name: drawn.sites[name]["value"].detach() for name in self.sites.free}
            rows = self.sites.find(drawn)  # whose priors may depend on what was drawn
            draws.append({name: site.prior_draw() for name, site in rows.items()} | values)
        return {name: torch.stack([draw[name] for draw in draws]) for name in self.sites.names}

    def draw(
        self, runs: list[ModelRun], paths: Tensor, values: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Draw all sites given the paths ``(C, T, B, ...)``, each by its own step.

        :param runs: one of each chain.
        :param values: those before, a leading C.
        """
        if not self.sites.names:
            return {}
        draws = []
        for c, (run, path) in enumerate(zip(runs, paths, strict=True)):
            now = {name: values[name][c] for name in self.sites.names}
            self.sites.find(run)  # Dirichlet priors of this chain's values
            if self.sites:
                counts = sum_counts(self._counts(run, path), run.transition.like.dtype)
                with current().shared():
                    now |= self.sites.draw(counts)
            if self.inner:
                now = self.inner[c].update(self._given(run, path), now)
            draws.append(now)
        return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}

    def _counts(self, run: ModelRun, path: Tensor) -> Counts:
        """Statistics of the Dirichlet sites for one chain's path, ``(T, B)``."""

        def objective(probe: ModelRun) -> tuple[Tensor]:
            log_p = self.sites.log_path(probe, path).sum()
            return (log_p + probe.log_elsewhere(observed=True) * share_of(run),)

        # What held when the run began may hang on where the other sites were.
        return self.sites.statistics(run, objective, verify=bool(self.sites.free))[0]

    def report(self) -> dict[str, dict[str, float]]:
        """Return step size, acceptance and divergences by site, the worst over the chains."""
        chains = [inner.report() for inner in self.inner]
        found = {}
        for name in chains[0] if chains else ():
            each = [chain[name] for chain in chains]
            found[name] = {
                "step_size": min(row["step_size"] for row in each),
                "accept_prob": min(row["accept_prob"] for row in each),
                "divergences": sum(row["divergences"] for row in each),
            }
        return found
