"""The E-step that all inference classes share: from a run of the model to drawn paths."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..arguments import at_least
from ..errors import NonFiniteError, SMCFailed
from ..reading.program import ModelRun
from ..smc import Emission, Filtered, Standing, Surrogate, Sweep, conditional_smc, filter_smc
from ..smc.arguments import check_seed
from ..smc.resampling import RESAMPLING
from ..transitions import Transition
from .path_memory import sequence_index

__all__ = ["PATH_KERNELS", "SMCSettings", "draw_paths", "filter_paths", "next_paths", "places"]

#: how a path is drawn from the last one
PATH_KERNELS = ("conditional", "independent")

#: by default: least steps between two redraws of the reference's ancestor, and most redraws of a
#: sweep over states, or over vectors, where one reaches less far
LEAST_EVERY, MOST_REDRAWS = 10, {True: 12, False: 70}


@dataclass(frozen=True)
class SMCSettings:
    """Settings of a sweep, checked.

    :param int num_particles: P.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param ancestor_sampling: redraw the reference's ancestor every so many steps; 0: never;
        ``None``: every 10 steps, or T / 12 where that is more (T / 70 over vectors), for a redraw
        scores the rest of a path, and the cost of a sweep is to grow with T, not with T².
    :param str path_kernel: ``"conditional"``: conditional SMC; ``"independent"``: then also a fresh
        path, accepted by particle independent Metropolis-Hastings.
    :param Surrogate surrogate: twists the sweep; ``None``: it is not twisted.
    :param int seed: of the sweep's random numbers; ``None``: from torch's generator.
    """

    num_particles: int
    resampling: str = "systematic"
    ancestor_sampling: int | None = None
    path_kernel: str = "conditional"
    surrogate: Surrogate | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not at_least(1, self.num_particles):
            raise ValueError(
                f"num_particles is {self.num_particles}, expected at least 1, an integer."
            )
        if self.resampling not in RESAMPLING:
            raise ValueError(
                f'resampling is "{self.resampling}", expected one of {sorted(RESAMPLING)}.'
            )
        check_seed("SMCSettings", self.seed)
        if self.path_kernel not in PATH_KERNELS:
            raise ValueError(
                f'path_kernel is "{self.path_kernel}", expected one of {sorted(PATH_KERNELS)}.'
            )
        if self.ancestor_sampling is not None and not at_least(0, self.ancestor_sampling):
            raise ValueError(
                f"ancestor_sampling is {self.ancestor_sampling}, expected 0 (never) or the number "
                "of steps between redraws of the reference's ancestor."
            )

    def redraw_every(self, num_steps: int, is_discrete: bool) -> int:
        """Steps between two redraws of the reference's ancestor in a sweep over T."""
        if self.ancestor_sampling is None:
            return max(LEAST_EVERY, -(-num_steps // MOST_REDRAWS[is_discrete]))
        return self.ancestor_sampling


def draw_paths(
    run: ModelRun,
    emission: Emission,
    reference: Tensor | None,
    settings: SMCSettings,
    *,
    transition: Transition | None = None,
    on_failure: str = "raise",
) -> tuple[Sweep, Tensor]:
    r"""One update of the paths of a run, or of several chains side by side.

    Under ``path_kernel="independent"`` a sweep of conditional SMC, whose evidence estimate is Ẑ, is
    followed by an unconditional one, whose path is taken with probability min(1, Ẑ' / Ẑ): particle
    independent Metropolis-Hastings (Andrieu, Doucet & Holenstein 2010, section 2.4.2). Both are
    steps on one extended space, of paths and particles, so the posterior stays invariant.

    :param Emission emission: of all C B sequences, chain by chain.
    :param Tensor reference: ``(T, C B, ...)``, or ``None``.
    :param Transition transition: to draw by in place of the run's own, with the same latents.
    :param str on_failure: what becomes of a sequence whose particles all die: ``"raise"``, or
        ``"keep"`` its reference, with a warning.
    :returns: the (conditional) sweep, and the drawn paths ``(T, C B)``.
    :raises NonFiniteError: if the transition's log-probabilities are NaN.
    :raises SMCFailed: if all particles of a sequence died.
    """
    every = settings.redraw_every(emission.shape[0], run.is_discrete)
    how = _how(run, emission, settings)
    law = run.transition if transition is None else transition
    sweep_from = partial(conditional_smc, law, emission, ancestor_sampling=every, **how)
    sweep = sweep_from(reference=reference)
    kept = _kept(run, sweep, reference, settings, on_failure)
    path = sweep.path if kept is None or reference is None else _choose(kept, reference, sweep.path)
    if reference is None or settings.path_kernel != "independent":
        return sweep, path
    fresh = sweep_from(seed=None)
    ratio = (fresh.log_likelihood - sweep.log_likelihood).sum(0)  # log Ẑ' - log Ẑ
    u = torch.rand(ratio.shape, device=ratio.device, dtype=ratio.dtype)
    accepted = (u.log() < ratio) & ~fresh.failed & ~sweep.failed
    return sweep, _choose(accepted, fresh.path, path)


def filter_paths(
    run: ModelRun,
    emission: Emission,
    settings: SMCSettings,
    *,
    start: Standing | None = None,
    first_step: int = 0,
) -> Filtered:
    """Filter the sequences of a run, with the draws of :func:`draw_paths` and no history.

    :param Standing start: particles to go on from, which have seen ``first_step`` steps.
    :raises NonFiniteError, SMCFailed: see :func:`draw_paths`.
    """
    how = _how(run, emission, settings)
    found = filter_smc(run.transition, emission, start=start, first_step=first_step, **how)
    _kept(run, found, None, settings, "raise", first_step)
    return found


def _how(run: ModelRun, emission: Emission, settings: SMCSettings) -> dict[str, Any]:
    """What all sweeps of a run are given, by name."""
    num_chains = emission.shape[1] // max(run.num_sequences, 1)

    def tiled(value: Tensor | None, dim: int) -> Tensor | None:
        if value is None or num_chains <= 1:
            return value
        return value.repeat(*(num_chains if d == dim else 1 for d in range(value.dim())))

    lengths, scale = tiled(run.grid.lengths, 0), tiled(run.grid.transition_scale, 0)
    inputs, T = tiled(run.inputs, 1), emission.shape[0]
    # An emission may be that of the first steps alone.
    lengths = None if lengths is None else lengths.clamp(max=T)
    surrogate = settings.surrogate
    return {
        "num_particles": settings.num_particles,
        "lengths": lengths,
        "inputs": None if inputs is None else inputs[:T],
        "resampling": settings.resampling,
        "transition_scale": scale,
        "twist": None if surrogate is None else surrogate.twist(emission, lengths, scale),
        "sequences": places(run, num_chains),
        "seed": settings.seed,
    }


def next_paths(
    draw: Callable[..., tuple[Sweep, Tensor]],
    old: Tensor,
    known: Tensor,
    num_sweeps: int,
    fresh: bool,
) -> Tensor:
    """Sweep on from the last paths; sequences that have none start unconditionally.

    :param draw: :func:`draw_paths`, but for its reference.
    :param Tensor old: the last paths, ``(T, B, ...)``.
    :param Tensor known: sequences that have one, bool ``(B,)``.
    :param bool fresh: whether some have none, here or on another rank.
    """
    path = old if not fresh else _choose(known, old, draw(reference=None)[1])
    for _ in range(num_sweeps):
        path = draw(reference=path, on_failure="keep")[1]
    return path


def places(run: ModelRun, num_chains: int = 1) -> Tensor:
    """Place of each sequence in the full batch, chain by chain, ``(C B,)``: it keys its numbers.

    So what a minibatch draws of a sequence does not depend on the others in it.
    """
    index = sequence_index(run)
    chains = torch.arange(max(num_chains, 1), device=index.device).unsqueeze(-1)
    return (index + chains * math.prod(run.full_shape)).flatten()


def _choose(which: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Paths ``(T, B, ...)`` of the sequences ``(B,)`` that are marked, and the others'."""
    return torch.where(which.reshape(-1, *(1 for _ in one.shape[2:])), one, other)


def _kept(
    run: ModelRun,
    sweep: Sweep | Filtered,
    reference: Tensor | None,
    settings: SMCSettings,
    on_failure: str,
    first_step: int = 0,
) -> Tensor | None:
    """Sequences that keep their reference as all particles died, ``(B,)``; ``None``: there is none.

    :raises NonFiniteError, SMCFailed: see :func:`draw_paths`.
    """
    failed = sweep.failed
    if not bool(failed.any()):
        return None
    t, b = (~sweep.log_likelihood.isfinite()).nonzero()[0].tolist()
    name, b, t = run.loop.name, b % run.num_sequences, t + first_step
    if bool(sweep.log_likelihood.isnan().any()):
        raise NonFiniteError(
            f'Site "{name}": log p(z_t | z_{{1:t-1}}) is NaN at step {t} of sequence {b}, expected '
            "finite numbers; check the transition's parameters and inputs (a learning rate that "
            "is too large?). Nothing was updated."
        )
    message = (
        f'Site "{name}": all {settings.num_particles} particles of sequence {b} have weight zero '
        f"at step {t} (and {int(failed.sum())} sequences in all): no state that its transition "
        "allows explains the observation; expected a positive probability. Give the transition or "
        "the emission a floor, or use more particles."
    )
    if on_failure == "raise" or reference is None:
        raise SMCFailed(message + " Nothing was updated.")
    warnings.warn(message + " Their paths are kept as they were.", RuntimeWarning, stacklevel=3)
    return failed
