"""Which surrogate twists the sweeps of an inference class, and whether any does.

Read ``smc/twist.py`` and ``smc/surrogate.py`` first. A poor surrogate leaves the draws right and
makes them move less: where z_t copies a latent of long ago, what z_{t-1} says of the future
misleads. So it is tried before it is used, beside none (``trial.py``). Nothing here looks at a
reference path once an exact sampler runs.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..reading.paths import PathSites
from ..reading.program import ModelRun
from ..smc import Emission, LinearSurrogate, MarkovSurrogate, Surrogate, linear_along
from ..smc.emissions import QuadraticEmission, TableEmission
from ..smc.surrogate_product import Sums, along_states, fit_any_surrogate, from_sums
from .estep import SMCSettings
from .markov_em import MarkovEM
from .trial import TRIAL_PARTICLES, TRIAL_RUNS, TRIAL_SEQUENCES, Sample, Trial, trial_of

__all__ = ["Twisting", "kind_of"]

#: below this spread there is no ancestor sampling
SETTLED = 0.05
#: sequences that a surrogate along paths learns from at once, or an eighth of all
LEARN_SEQUENCES = 8
#: weight of the past in what a surrogate along paths is fitted to
DECAY = 0.9


class Twisting:
    """The twist of one inference object.

    :param how: ``"markov"``: fitted to the transition; a matrix ``(K, K)``, a fitted
        :class:`MarkovEM` or a :class:`~pyro_ssl.smc.Surrogate`: that one; ``None``: no twist.
    """

    def __init__(self, how: Any) -> None:
        self.how = _checked(how)
        #: in use; ``None``: sweeps are not twisted
        self.surrogate: Surrogate | None = None
        #: the last trial of what is in use, and of sweeps without a twist
        self.trial: Trial | None = None
        self.trial_without: Trial | None = None
        self._along: Surrogate | None = None
        self._along_for: PathSites | None = None
        self._sums: list[Sums] | None = None
        self._fitted: tuple[Any, list[Tensor], Surrogate] | None = None
        self._chosen_for: tuple[Any, ...] | None = None
        self._told = False

    def settings(self, settings: SMCSettings) -> SMCSettings:
        """Return the settings of a twisted sweep.

        Where the weights of particles hardly differ, ancestors need no sampling: it would cost time
        and let other particles share the reference's past.
        """
        if self.surrogate is None or self.trial is None:
            return settings
        every = 0 if self.trial.spread < SETTLED else settings.ancestor_sampling
        return replace(settings, surrogate=self.surrogate, ancestor_sampling=every)

    def learned(self, run: ModelRun, path: Tensor) -> Twisting:
        """Return a copy whose candidate is fitted along drawn paths too, ``(T, B, ...)``.

        The past is forgotten slowly. For EM, and for the warm-up of a sampler: such a surrogate
        holds a share of the paths.
        """
        hopeless = self._chosen_for is not None and self.trial is None  # such sweeps take no twist
        if self.how != "markov" or hopeless:
            return self
        new = copy.copy(self)
        B = path.shape[1]
        index = torch.randperm(B, device=path.device)[: max(LEARN_SEQUENCES, B // 8)]
        lengths = None if run.grid.lengths is None else run.grid.lengths[index]
        inputs = None if run.inputs is None else run.inputs[:, index]
        some = run.transition, path[:, index], lengths, inputs
        if not run.is_discrete:
            new._along, new._along_for = linear_along(*some), run.paths
            return new
        now = self.beside_past(along_states(*some), run)
        new._sums, new._along, new._along_for = now, from_sums(now), run.paths
        return new

    def beside_past(self, now: list[Sums], run: ModelRun) -> list[Sums]:
        """Return sums along paths with those of the past, where it was of the same paths."""
        if self._sums is None or self._along_for != run.paths:
            return now
        pairs = zip(self._sums, now, strict=True)
        return [(DECAY * a[0] + b[0], DECAY * a[1] + b[1]) for a, b in pairs]

    @torch.no_grad()
    def chosen(
        self, run: ModelRun, emission: Emission, num_particles: int, *, for_scores: bool = False
    ) -> Twisting:
        """Try the candidate on sequences of a run; return a copy with what is better from here on.

        :param Emission emission: of the run's sequences, perhaps of several chains.
        :param bool for_scores: by the standard deviation of log Ẑ, not by what sweeps renew.
        """
        new = copy.copy(self)
        new.surrogate = new.trial = new.trial_without = None
        new._chosen_for = kind_of(run)
        if num_particles < 2 or not (run.num_sequences and run.loop.num_steps):
            return new
        if not isinstance(emission, TableEmission | QuadraticEmission):
            return new
        candidate = new.candidate(run)
        if candidate is None:
            return new
        index = torch.randperm(run.num_sequences, device=run.loop.device)[:TRIAL_SEQUENCES]
        some = Sample(run, emission, index, max(TRIAL_RUNS, TRIAL_SEQUENCES // len(index)))
        P = min(num_particles, TRIAL_PARTICLES)
        without, found = (trial_of(some, s, P) for s in (None, candidate))
        is_better = found.scores_better_than if for_scores else found.renews_more_than
        if is_better(without):
            new.surrogate, new.trial, new.trial_without = candidate, found, without
            return new
        new.trial = new.trial_without = without
        if (
            found.spread > without.spread
            and not for_scores
            and self.how != "markov"
            and not self._told
        ):
            new._told = True
            warnings.warn(
                f'Site "{run.loop.name}": the twist that was given spreads the weights of '
                "particles more than none does, expected less; sweeps go on without it. Write "
                'twist="markov" to have one fitted.',
                RuntimeWarning,
                stacklevel=2,
            )
        return new

    def was_chosen_for(self, run: ModelRun) -> bool:
        """Whether the last choice was for runs of as many steps and states."""
        return self._chosen_for == kind_of(run)

    def format(self) -> str:
        """Return one line on what is in use."""
        if self.trial is None:
            return "no twist was tried"
        now, plain = self.trial, self.trial_without
        line = (
            f"{'twisted' if self.surrogate else 'not twisted'}: sd of log Ẑ of a sequence "
            f"{now.sd_log_evidence:.2f}, effective particles {now.effective_share:.0%}"
        )
        if self.surrogate is None or plain is None:
            return line
        return f"{line} (without: {plain.sd_log_evidence:.2f}, {plain.effective_share:.0%})"

    def candidate(self, run: ModelRun) -> Surrogate | None:
        """Return the surrogate that a trial would be of; ``None`` if there is no twist."""
        if self.how is None:
            return None
        if isinstance(self.how, Surrogate):
            _check_kind(run, self.how)
            return self.how
        if self._along is not None and self._along_for == run.paths:
            return self._along  # at the posterior: closer than prior paths are
        kind, state = (_type_of(run), *kind_of(run)), _state_of(run)
        if self._fitted is None or self._fitted[0] != kind or not _equal(self._fitted[1], state):
            surrogate = fit_any_surrogate(run.transition, run.loop.num_steps, inputs=run.inputs)
            self._fitted = kind, state, surrogate
        return self._fitted[2]


def _checked(how: Any) -> Any:
    if isinstance(how, MarkovEM):
        how = how.matrix
    if isinstance(how, Tensor) and how.dim() == 2 and how.shape[0] == how.shape[1]:
        rows = how.double().sum(-1)
        if bool((how >= 0).all()) and torch.allclose(rows, torch.ones_like(rows), atol=1e-3):
            return MarkovSurrogate(how)
    if how is None or how == "markov" or isinstance(how, Surrogate):
        return how
    found = f"a tensor {tuple(how.shape)}" if isinstance(how, Tensor) else repr(how)
    raise ValueError(
        f'twist is {found}, expected "markov", None, a matrix (K, K) whose rows sum to 1, a fitted '
        "MarkovEM, or a Surrogate."
    )


def _check_kind(run: ModelRun, surrogate: Surrogate) -> None:
    kind, size = MarkovSurrogate if run.is_discrete else LinearSurrogate, kind_of(run)[-1]
    found = tuple(surrogate.matrix.shape[-1:]) if hasattr(surrogate, "matrix") else None
    if not isinstance(surrogate, kind) or found != size:
        raise ValueError(
            f'Site "{run.loop.name}": the twist is a {type(surrogate).__name__} of {found}, '
            f"expected a {kind.__name__} of {size}, as the latents are; write "
            'twist="markov" to have one fitted.'
        )


def kind_of(run: ModelRun) -> tuple[Any, ...]:
    """Return what a choice is for: steps, and how many states, or dimensions."""
    size = (run.transition.num_states,) if run.is_discrete else run.transition.event_shape
    return run.is_discrete, run.loop.num_steps, tuple(size)


def _type_of(run: ModelRun) -> str:
    """The transition's type, by a name that outlasts the process."""
    kind = type(run.transition)
    return f"{kind.__module__}.{kind.__qualname__}"


def _state_of(run: ModelRun) -> list[Tensor]:
    """What a surrogate is a function of: the transition's values, and its inputs."""
    tensors = [*run.transition.parameters(), *run.transition.buffers()]
    inputs = [] if run.inputs is None else [run.inputs]
    return [value.detach().clone() for value in tensors] + inputs


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and a.device == b.device and torch.equal(a, b)
        for a, b in zip(one, other, strict=True)
    )
