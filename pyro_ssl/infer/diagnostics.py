"""How a chain of paths moves: change rates, and ESS and R-hat of label-invariant functionals.

A state's number means nothing across chains, so R-hat of raw z means nothing either. The
functionals here are the same whatever the states are called: the log-joint, the number of
switches, the entropy of the occupancy. Of a distributed run they are over all ranks' sequences.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from ..distributed import current
from ..steps import steps_within
from .series import Series

__all__ = ["Diagnostics", "of_all_ranks", "path_functionals", "vector_functionals"]

#: elements of a site that a table shows
MOST_LINES = 10


def path_functionals(path: Tensor, lengths: Tensor | None, num_states: int) -> dict[str, Tensor]:
    """Label-invariant summaries of paths ``(C, T, B)``, each ``(C,)`` float64.

    ``switches``: mean number of t with z_t != z_{t-1}, per sequence; ``occupancy_entropy``: entropy
    in nats of how often each state is visited.
    """
    C, T, B = path.shape
    active = torch.ones(T, B, dtype=torch.bool, device=path.device)
    if lengths is not None:
        active = steps_within(lengths, T)
    switches = ((path[:, 1:] != path[:, :-1]) & active[1:]).sum((1, 2))
    visits = path.new_zeros(C, num_states, dtype=torch.float64)
    visits.scatter_add_(1, path.reshape(C, -1), active.double().reshape(-1).expand(C, -1))
    switches, visits, num = of_all_ranks(switches, visits, path.new_full((), B))
    switches = switches / num.clamp(min=1)
    share = visits / visits.sum(-1, keepdim=True).clamp(min=1.0)
    return {"switches": switches, "occupancy_entropy": torch.special.entr(share).sum(-1)}


def vector_functionals(path: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
    """Functionals of vector paths ``(C, T, B, D)``, per chain: mean, mean square, mean step.

    The last is the mean square of z_t - z_{t-1}.
    """
    C, T = path.shape[:2]
    active = torch.ones(path.shape[1:3], dtype=torch.bool, device=path.device)
    if lengths is not None:
        active = steps_within(lengths, T)
    wide = path.double() * active.unsqueeze(-1)
    steps = (wide[:, 1:] - wide[:, :-1]).square() * active[1:].unsqueeze(-1)
    sums = [value.flatten(1).sum(1) for value in (wide, wide.square(), steps)]
    *sums, cells = of_all_ranks(*sums, active.sum() * path.shape[-1])
    names = ("mean", "mean_square", "mean_square_step")
    return {n: value / cells.clamp(min=1) for n, value in zip(names, sums, strict=True)}


def of_all_ranks(*sums: Tensor) -> list[Tensor]:
    """Return sums over the sequences of this rank as those over all of them, float64."""
    added = [one.detach().double().clone() for one in sums]
    current().sum_("how chains move", added)
    return added


class Diagnostics:
    """Collects, sweep by sweep, the statistics of how the chains mix."""

    def __init__(self) -> None:
        self._changed: Tensor | None = None
        self._active: Tensor | None = None
        self.num_sweeps = 0
        self.series: dict[str, Series] = {}
        #: share of latents that each sweep changed, by chain, ``(C,)``
        self.moved = Series()
        self._draws: dict[str, Series] = {}

    def add(
        self, before: Tensor, after: Tensor, lengths: Tensor | None, series: dict[str, Tensor]
    ) -> None:
        """Record one sweep of paths ``(C, T, B, ...)``, and functionals ``(C,)`` of the result."""
        T = before.shape[1]
        changed = (before != after).reshape(*before.shape[:3], -1).any(-1)
        active = torch.ones_like(changed[0])
        if lengths is not None:
            active = steps_within(lengths, T)
        changed &= active
        # Sequences may be shorter on this rank than on others.
        longest = (0, int(current().each("the length of sequences", T).max()) - T)
        by_chain = torch.nn.functional.pad(changed.sum(2), longest)  # (C, T)
        by_chain, num = of_all_ranks(by_chain, torch.nn.functional.pad(active.sum(1), longest))
        self.moved.append(by_chain.sum(1) / num.sum().clamp(min=1))
        changed_now = by_chain.sum(0)
        if self._changed is None:
            self._changed, self._active = torch.zeros_like(changed_now), num * before.shape[0]
        self._changed += changed_now
        self.num_sweeps += 1
        for name, value in series.items():
            self.series.setdefault(name, Series()).append(value.double())

    def add_sites(self, values: dict[str, Tensor]) -> None:
        """Record the values of latent sites outside the loop, chains first."""
        for name, value in values.items():
            self._draws.setdefault(name, Series()).append(value.detach().double())

    def sites(self) -> dict[str, dict[str, Any]]:
        """Return mean, sd, ESS and R-hat of each site's elements, tensors of its shape."""
        return {
            name: _summary(each.stacked().transpose(0, 1)) for name, each in self._draws.items()
        }

    @property
    def change_rate(self) -> Tensor:
        """Share of sequences whose z_t changed in a sweep, by t: ``(T,)``."""
        if self._changed is None or self._active is None:
            return torch.zeros(0, device="cpu", dtype=torch.float64)  # nothing is known yet
        return self._changed / (self._active * self.num_sweeps).clamp(min=1.0)

    def by_draw(self, num_draws: int, thinning: int = 1) -> dict[str, Tensor]:
        """Return ``moved`` and all functionals of the first draws, each ``(C, num_draws)``.

        :param int thinning: of every so many draws the last one was kept.
        """
        series = {"moved": self.moved, **self.series}
        kept = slice(thinning - 1, num_draws * thinning, thinning)
        return {name: each.stacked()[kept].transpose(0, 1) for name, each in series.items()}

    def report(self) -> dict[str, Any]:
        """Return change rates, and mean, sd, ESS and R-hat of each functional over the chains."""
        out: dict[str, Any] = {"num_sweeps": self.num_sweeps, "change_rate": self.change_rate}
        for name, values in self.series.items():
            row = _summary(values.stacked().transpose(0, 1))  # of (C, S)
            out[name] = {key: value.item() for key, value in row.items()}
        return out

    def format(self, inner: dict[str, dict[str, float]]) -> str:
        """Return the report as a table.

        :param inner: what is said of the kernels that draw other sites, by site.
        """
        report = self.report()
        lines = [f"{'':>20}{'mean':>12}{'sd':>12}{'n_eff':>10}{'r_hat':>8}"]
        lines += [_line(name, report[name]) for name in self.series]
        for name, row in self.sites().items():
            elements = {key: value.flatten() for key, value in row.items()}
            for i in range(min(len(elements["mean"]), MOST_LINES)):
                label = f"{name}[{i}]" if row["mean"].dim() else name
                lines.append(_line(label, {key: float(v[i]) for key, v in elements.items()}))
            if len(elements["mean"]) > MOST_LINES:
                worst = float(elements["n_eff"].min()), float(elements["r_hat"].max())
                lines.append(f"{'all of ' + name:>44}{worst[0]:>10.1f}{worst[1]:>8.3f} at worst")
        for name, row in inner.items():
            lines.append(
                f"{name:>20}: step size {row['step_size']:.3g}, accepted {row['accept_prob']:.2f}, "
                f"{row['divergences']:.0f} divergences"
            )
        rate = self.change_rate
        if rate.numel():
            lines.append(
                f"z_t changed in a sweep: {rate.mean():.3f} on average, {rate.min():.3f} at step "
                f"{int(rate.argmin())}, {rate[:10].mean():.3f} over the first ten steps"
            )
        return "\n".join(lines)


def _summary(draws: Tensor) -> dict[str, Tensor]:
    """Mean, sd, ESS and R-hat of draws ``(C, S, ...)``, NaN where they cannot be told."""
    mean = draws.mean((0, 1))
    row = {"mean": mean} | {k: torch.full_like(mean, math.nan) for k in ("sd", "n_eff", "r_hat")}
    if draws.shape[0] * draws.shape[1] > 1:
        row["sd"] = draws.flatten(0, 1).std(0)
    if draws.shape[1] >= 4:
        moves = (draws.var(1) > 0).all(0)
        n_eff = effective_sample_size(draws, chain_dim=0, sample_dim=1)
        r_hat = split_gelman_rubin(draws, chain_dim=0, sample_dim=1)
        row["n_eff"] = torch.where(moves, n_eff, math.nan)
        row["r_hat"] = torch.where(moves, r_hat, math.nan)
    return row


def _line(name: str, row: dict[str, float]) -> str:
    return (
        f"{name:>20}{row['mean']:>12.3f}{row['sd']:>12.3f}{row['n_eff']:>10.1f}{row['r_hat']:>8.3f}"
    )
