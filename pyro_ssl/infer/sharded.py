"""What inference classes ask of the ranks of a distributed run, in terms of models and paths.

Each function is what one process does where there are no ranks. Read ``distributed/ranks.py``
first.

A rank's run of a model holds a share s_r of all sequences, and what stands outside of the plates is
in the run of every rank. So terms of sequences, which plates scale up by 1 / s_r, and terms
outside of them are both averaged with weights s_r / Σ s.
"""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..distributed import current
from ..errors import LatentSiteError
from ..reading.context import F, all_or_nothing
from ..reading.program import ModelRun
from ..smc import Emission
from ..transitions.given import at_drawn_weights
from .blocks import check_share
from .dirichlet import Counts
from .estep import SMCSettings, draw_paths
from .expected import Expected
from .path_memory import PathMemory, sequence_index

__all__ = [
    "Union",
    "change_rate",
    "check_all_given",
    "check_alone",
    "check_free",
    "check_holds_all",
    "counts_over_ranks",
    "current",
    "known_share",
    "mean_over_ranks",
    "over_ranks",
    "share_of",
    "share_of_log_joint",
    "sum_counts",
    "sweeping",
    "together",
    "union",
    "with_shared_seed",
]


def together(where: str) -> Callable[[F], F]:
    """Let a call be all or nothing, on all ranks: see :func:`all_or_nothing` and
    :meth:`~pyro_ssl.distributed.Ranks.together`.

    :param str where: its name.
    """

    def decorated(method: F) -> F:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with current().together(where):
                return method(*args, **kwargs)

        return all_or_nothing(call)  # type: ignore[return-value]

    return decorated


class Union(NamedTuple):
    """What the runs of all ranks come to.

    ``num_sequences`` are in them, and ``fresh`` tells whether one of these has no path yet.
    """

    num_sequences: int
    fresh: bool


def union(run: ModelRun, memory: PathMemory, known: Tensor) -> Union:
    """Compare the ranks' runs.

    :param PathMemory memory: the paths of this rank.
    :param Tensor known: sequences of the run that have one, ``(B,)``.
    :raises ValueError: if ranks hold the same sequences, or other parameters.
    """
    B, fresh = run.num_sequences, not bool(known.all())
    if not current().active:
        return Union(B, fresh)
    values = [site["value"].detach().double().sum() for site in run.params.values()]
    places = sequence_index(run).sort().values.cpu()
    mark = zlib.crc32(places.numpy().tobytes())
    found = current().each(
        "the comparison of data", B, fresh, share_of(run), memory.num_known, sum(values), mark
    )
    check_share(run, float(found[:, 2].sum()))
    check_share(run, float(found[:, 3].sum()) / max(memory.num_sequences, 1))
    held = [tuple(row) for row in found[:, [0, 5]].tolist()]
    if len(set(held)) < len(held):
        raise ValueError(
            f'Site "{run.loop.name}": two ranks were given the same sequences, expected others on '
            "each; write for index in ranks.minibatches(N, size), and pyro.plate(name, N, "
            "subsample=index)."
        )
    if not torch.allclose(found[:, 4], found[0, 4].expand(len(found)), rtol=1e-5, atol=1e-6):
        raise ValueError(
            f'Site "{run.loop.name}": the model\'s parameters differ from rank to rank, expected '
            "the same on all; make the model within the block: with "
            "pyro_ssl.distributed.ranks(): ..."
        )
    return Union(int(found[:, 0].sum()), bool(found[:, 1].any()))


def check_holds_all(run: ModelRun) -> None:
    """Check that the runs of all ranks hold every sequence once, for particle Gibbs.

    :raises ValueError: if they do not.
    """
    share = float(current().totals("shares", share_of(run))[0])
    check_share(run, share)
    if share < 1.0 - 1e-9:
        raise ValueError(
            f'Site "{run.loop.name}": its plate is subsampled, but particle Gibbs draws from the '
            "posterior given all data; expected subsample_size=None. For learning on minibatches "
            "use StochasticEM."
        )


def with_shared_seed(one: Any) -> Any:
    """Return a particle filter as it is, or with one seed for all its runs on all ranks."""
    seed = current().seed() if one.seed is None else None
    if seed is None:
        return one
    new, seed = copy.copy(one), seed >> 1  # filters count up from it
    new.seed, new.settings = seed, replace(one.settings, seed=seed)
    return new


def share_of(run: ModelRun) -> float:
    """Return which share of all sequences a run holds."""
    return 1.0 / run.subsample_factor


def share_of_log_joint(run: ModelRun, path: Tensor) -> Tensor:
    """Return what the sequences of a run add to log p of the paths and all else, float64.

    :param Tensor path: ``(T, B, ...)``. Without ranks see :meth:`ModelRun.log_joint`.
    """
    inside = (run.log_transition(path) + run.log_emission(path)).double().sum()
    share = share_of(run)
    elsewhere = [run.log_elsewhere(observed=observed) for observed in (True, False)]
    return inside + share * elsewhere[0] + share * elsewhere[1]


def sweeping(
    run: ModelRun, emission: Emission, settings: SMCSettings, *, drawn: bool = False
) -> Callable[..., Any]:
    """Return :func:`draw_paths` of a run, each sweep with a seed that all ranks share.

    :param bool drawn: with the transition at a draw of its weights, one for all ranks.
    """
    with current().shared(drawn):
        transition = at_drawn_weights(run.transition) if drawn else None

    def draw(reference: Tensor | None, **how: Any) -> Any:
        seeded = replace(settings, seed=current().seed())
        return draw_paths(run, emission, reference, seeded, transition=transition, **how)

    return draw


def mean_over_ranks(run: ModelRun, parameters: Iterable[Tensor], loss: Tensor) -> Tensor:
    """Average gradients over ranks, in place; return the mean of the losses."""
    ranks, share = current(), share_of(run)
    if not ranks.active:
        return loss
    total, weighted = ranks.totals("a loss", share, share * loss.detach())
    grads = [p.grad for p in parameters if p.grad is not None]
    for grad in grads:
        grad *= share / float(total)
    ranks.sum_("gradients", grads)
    return weighted / total


def sum_counts(counts: Counts, dtype: torch.dtype | None = None) -> Counts:
    """Add up counts over ranks.

    :param dtype: to send them in, if it tells all whole numbers apart that they may come to;
        otherwise, and by default, float64.
    """
    if not (current().active and counts):
        return counts
    most = max(float(n.abs().max()) if n.numel() else 0.0 for n in counts.values())
    (most,) = current().totals("the largest count", most)
    exact = dtype is not None and float(most) * torch.finfo(dtype).eps <= 2.0
    sent = {name: n.to(dtype if exact else torch.float64, copy=True) for name, n in counts.items()}
    current().sum_("counts", list(sent.values()))
    return {name: n.double() for name, n in sent.items()}


def counts_over_ranks(run: ModelRun, counts: list[Counts] | None) -> list[Counts] | None:
    """Return counts outside the loop and the change of those in it, of all ranks."""
    ranks, share = current(), share_of(run)
    if counts is None or not ranks.active:
        return counts
    outside, change = counts
    # Most models have none outside.
    any_outside = any(bool(n.any()) for n in outside.values())
    total, some = ranks.totals("counts outside the loop", share, any_outside)
    dtype = run.transition.like.dtype
    if some:
        weight = share / float(total)
        outside = sum_counts({name: weight * n for name, n in outside.items()}, dtype)
    return [outside, sum_counts(change, dtype)]


def known_share(memory: PathMemory) -> float:
    """Return the share of all sequences that have a path."""
    (num_known,) = current().totals("known sequences", memory.num_known)
    return float(num_known) / memory.num_sequences


def change_rate(run: ModelRun, old: Tensor, path: Tensor, known: Tensor, last: float) -> float:
    """Return the share of latents that differ from known paths; ``last`` where none is known."""
    seen = run.grid.observed() & known
    moved = (path != old).reshape(*seen.shape, -1).any(-1) & seen
    num_known, num_seen, num_moved = current().totals(
        "the change rate", known.sum(), seen.sum(), moved.sum()
    )
    if not bool(num_known):
        return last
    return float(num_moved / num_seen.clamp(min=1))


def over_ranks(total: Expected | None) -> Expected:
    """Add up expected counts over ranks."""
    assert total is not None
    ranks = current()
    if not ranks.active:
        return total
    share, log_p = ranks.totals("shares", total.share, total.log_p)
    counts = {name: n.clone() for name, n in total.counts.items()}
    start, moves = total.start.clone(), total.moves.clone()
    ranks.sum_("expected counts", [start, moves, *counts.values()])
    return Expected(float(share), log_p.to(start.device), start, moves, counts)


def check_all_given(run: ModelRun, share: float) -> None:
    """Check that the ranks hold every sequence once; see :func:`~.blocks.check_share`."""
    check_share(run, float(current().totals("shares", share)[0]), whole=True)


def check_alone(who: str) -> None:
    """Check that there are no other ranks, for what is not shared among them.

    :raises ValueError: if there are.
    """
    if current().size > 1:
        raise ValueError(
            f"{who} is not shared among ranks, found {current().size} of them, expected one "
            "process; start it without torchrun."
        )


def check_free(names: Iterable[str]) -> None:
    """Check that no site is free, where there are ranks.

    :raises LatentSiteError: on one that is.
    """
    for name in names:
        if current().size > 1:
            raise LatentSiteError(
                f'Site "{name}": latent, and no table of counts, found {current().size} ranks, '
                "expected one process for such a site: ranks add up counts alone. Give it: "
                f'pyro.condition(model, {{"{name}": value}}), or start without torchrun.'
            )
