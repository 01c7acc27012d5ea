"""The E-step that all inference classes share: from a run of the model to drawn paths."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NonFiniteError, SMCFailed
from ..reading.checks import check_emission_is_local
from ..reading.program import Emission, ModelRun
from ..reading.sweep_in_loop import ParticleGrid
from ..smc import Sweep, conditional_smc, gaussian_smc
from ..smc.resampling import RESAMPLING

__all__ = ["SMCSettings", "check_placement", "draw_paths", "read_emission"]


@dataclass(frozen=True)
class SMCSettings:
    """Settings of a sweep, checked.

    :param int num_particles: P.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param int ancestor_sampling: redraw the reference's ancestor every so many steps; 0: never.
    """

    num_particles: int
    resampling: str = "systematic"
    ancestor_sampling: int = 10

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"num_particles is {self.num_particles}, expected at least 1.")
        if self.resampling not in RESAMPLING:
            raise ValueError(
                f'resampling is "{self.resampling}", expected one of {sorted(RESAMPLING)}.'
            )
        if self.ancestor_sampling < 0:
            raise ValueError(
                f"ancestor_sampling is {self.ancestor_sampling}, expected 0 (never) or the number "
                "of steps between redraws of the reference's ancestor."
            )


def check_placement(run: ModelRun, table: Tensor) -> None:
    """Check that the transition and the emission share device and dtype.

    :raises ValueError: if they do not; nothing has been drawn yet.
    """
    name, loop = run.grid.sites[0].name, run.loop
    if table.device != loop.device:
        raise ValueError(
            f'Site "{name}": its log-density is on {table.device}, but the transition of '
            f'"{loop.name}" is on {loop.device}; expected one device: write '
            f'transition.to("{table.device}"), or move the data.'
        )
    for parameter in loop.transition.parameters():
        if parameter.dtype != table.dtype:
            raise ValueError(
                f'Site "{name}": its log-density is {table.dtype}, but the transition of '
                f'"{loop.name}" has {parameter.dtype} parameters; expected one dtype: write '
                f"transition.to({table.dtype})."
            )


def read_emission(run: ModelRun, *, verify: bool = False) -> Emission:
    """Return a run's emission, checked.

    :param bool verify: also check that it is a function of z_t alone.
    """
    table = run.grid.table()
    check_placement(run, table)
    if verify:
        check_emission_is_local(run, table)
    return run.emission(table)


def draw_paths(
    run: ModelRun,
    emission: Emission,
    reference: Tensor | None,
    settings: SMCSettings,
    *,
    num_chains: int = 1,
    on_failure: str = "raise",
) -> tuple[Sweep, Tensor]:
    """One sweep for the sequences of a run, or of several chains side by side.

    :param emission: of all C B sequences; ``None``: the body says, within the sweep.
    :param Tensor reference: ``(T, C B, ...)``, or ``None``.
    :param str on_failure: what becomes of a sequence whose particles all die: ``"raise"``, or
        ``"keep"`` its reference, with a warning.
    :returns: the sweep, and the drawn paths ``(T, C B)``.
    :raises NonFiniteError: if the transition's log-probabilities are NaN.
    :raises SMCFailed: if all particles of a sequence died.
    """

    def tiled(value: Tensor | None, dim: int) -> Tensor | None:
        if value is None or num_chains == 1:
            return value
        return value.repeat(*(num_chains if d == dim else 1 for d in range(value.dim())))

    P = settings.num_particles
    options: dict[str, Any] = {
        "lengths": tiled(run.grid.lengths, 0),
        "inputs": tiled(run.inputs, 1),
        "resampling": settings.resampling,
        "ancestor_sampling": settings.ancestor_sampling,
        "transition_scale": tiled(run.grid.transition_scale, 0),
    }
    if isinstance(emission, Tensor):
        sweep = conditional_smc(run.transition, emission, P, reference, **options)
    elif emission is not None:
        sweep = gaussian_smc(run.transition, emission, P, reference, **options)
    else:
        particles = ParticleGrid(P, reference, num_chains, **options)
        run.again(particles)
        assert particles.sweep is not None
        sweep = particles.sweep
    failed = sweep.failed
    if not bool(failed.any()):
        return sweep, sweep.path
    t, b = (~sweep.log_likelihood.isfinite()).nonzero()[0].tolist()
    name, b = run.loop.name, b % run.num_sequences
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
    failed = failed.reshape(-1, *(1 for _ in run.transition.event_shape))
    return sweep, torch.where(failed, reference, sweep.path)
