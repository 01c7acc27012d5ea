"""The E-step that all inference classes share: from a run of the model to drawn paths."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NonFiniteError, SMCFailed, at_least
from ..reading.program import ModelRun
from ..smc import Emission, Sweep, conditional_smc
from ..smc.resampling import RESAMPLING

__all__ = ["SMCSettings", "draw_paths"]


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
        if not at_least(1, self.num_particles):
            raise ValueError(
                f"num_particles is {self.num_particles}, expected at least 1, an integer."
            )
        if self.resampling not in RESAMPLING:
            raise ValueError(
                f'resampling is "{self.resampling}", expected one of {sorted(RESAMPLING)}.'
            )
        if not at_least(0, self.ancestor_sampling):
            raise ValueError(
                f"ancestor_sampling is {self.ancestor_sampling}, expected 0 (never) or the number "
                "of steps between redraws of the reference's ancestor."
            )


def draw_paths(
    run: ModelRun,
    emission: Emission,
    reference: Tensor | None,
    settings: SMCSettings,
    *,
    on_failure: str = "raise",
) -> tuple[Sweep, Tensor]:
    """One sweep for the sequences of a run, or of several chains side by side.

    :param Emission emission: of all C B sequences, chain by chain.
    :param Tensor reference: ``(T, C B, ...)``, or ``None``.
    :param str on_failure: what becomes of a sequence whose particles all die: ``"raise"``, or
        ``"keep"`` its reference, with a warning.
    :returns: the sweep, and the drawn paths ``(T, C B)``.
    :raises NonFiniteError: if the transition's log-probabilities are NaN.
    :raises SMCFailed: if all particles of a sequence died.
    """

    num_chains = emission.shape[1] // max(run.num_sequences, 1)

    def tiled(value: Tensor | None, dim: int) -> Tensor | None:
        if value is None or num_chains <= 1:
            return value
        return value.repeat(*(num_chains if d == dim else 1 for d in range(value.dim())))

    sweep = conditional_smc(
        run.transition,
        emission,
        settings.num_particles,
        reference,
        lengths=tiled(run.grid.lengths, 0),
        inputs=tiled(run.inputs, 1),
        resampling=settings.resampling,
        ancestor_sampling=settings.ancestor_sampling,
        transition_scale=tiled(run.grid.transition_scale, 0),
    )
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
