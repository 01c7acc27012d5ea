"""Does a transition keep its contract, as it stands in a model? Each check is one function.

``contract.py`` asks the same of a class, at sizes of its choice; here it is one object, with the
parameters and the exogenous inputs that it has, in the dtype and the mode that it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..reading.program import ModelRun
from ..transitions import (
    DiscreteTransition,
    GaussianTransition,
    PathDistribution,
    Transition,
    map_state,
)
from .report import Check

__all__ = ["TRANSITION_CHECKS", "SomePaths", "check_repeats", "gap", "some_paths"]

#: paths that a transition is asked for, and their steps at most
NUM_PATHS, NUM_STEPS = 6, 6
#: largest difference of log-probabilities, absolute and relative
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}


class SomePaths(NamedTuple):
    """A transition with paths ``z`` ``(N, T) + event_shape`` under the inputs of one sequence.

    ``inputs`` ``(N, T, input_size)``, or ``None``.
    """

    transition: Transition
    z: Tensor
    inputs: Tensor | None

    @property
    def num_steps(self) -> int:
        """T."""
        return self.z.shape[1]

    def rows(self, index: slice) -> SomePaths:
        """Return some of the paths."""
        inputs = None if self.inputs is None else self.inputs[index]
        return SomePaths(self.transition, self.z[index], inputs)

    def cut(self, num_steps: int) -> SomePaths:
        """Return the first steps."""
        inputs = None if self.inputs is None else self.inputs[:, :num_steps]
        return SomePaths(self.transition, self.z[:, :num_steps], inputs)

    def log_prob(self, z: Tensor | None = None) -> Tensor:
        """Return log p(z_t | z_{1:t-1}) by the fused call, ``(N, T)``."""
        return self.transition.log_prob(self.z if z is None else z, self.inputs)

    def stepper(self) -> Callable[[Tensor | None, Any, int], tuple[Any, Any]]:
        """Return the samplers' step over the rows."""
        return self.transition.stepper(None if self.inputs is None else self.inputs.transpose(0, 1))

    def stepped(self) -> Tensor:
        """Return what :meth:`log_prob` does, by the samplers' stepper."""
        step, state, z_prev = self.stepper(), self.transition.initial_state((len(self.z),)), None
        scores = []
        for t in range(self.num_steps):
            given, state = step(z_prev, state, t)
            z_prev = self.z[:, t]
            scores.append(score(given, z_prev))
        return torch.stack(scores, -1)

    def stepped_by_distribution(self) -> Tensor:
        """Return what :meth:`log_prob` does, by :meth:`Transition.step`."""
        state, z_prev, scores = self.transition.initial_state((len(self.z),)), None, []
        for t in range(self.num_steps):
            u = None if self.inputs is None else self.inputs[:, t]
            p, state = self.transition.step(z_prev, state, u)
            z_prev = self.z[:, t]
            scores.append(p.expand((len(self.z),)).log_prob(z_prev))
        return torch.stack(scores, -1)


def some_paths(run: ModelRun) -> SomePaths:
    """Return a few paths of a run's transition: of all states, or drawn from it over vectors."""
    transition, T = run.transition, min(run.loop.num_steps, NUM_STEPS)
    inputs = None if run.inputs is None else run.inputs[:T, :1].transpose(0, 1)
    inputs = None if inputs is None else inputs.expand(NUM_PATHS, -1, -1)
    if isinstance(transition, DiscreteTransition):
        device = transition.like.device
        z = torch.randint(transition.num_states, (NUM_PATHS, T), device=device)
    else:
        p = PathDistribution(transition, T, inputs=inputs, batch_shape=torch.Size((NUM_PATHS,)))
        z = p.sample()
    return SomePaths(transition, z, inputs)


def score(given: Any, z: Tensor) -> Tensor:
    """Return log p(z), ``(N,)``, under what a stepper gave: logits, or moments."""
    if isinstance(given, Tensor):
        log_p = given.log_softmax(-1).expand(len(z), -1)
        return log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1)
    mean, scale = given
    return torch.distributions.Normal(mean, scale, validate_args=False).log_prob(z).sum(-1)


def gap(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, over 1 + the size of what is compared; inf where one is NaN.

    0 where both are the same infinity.
    """
    if not found.numel() and not expected.numel():
        return 0.0
    away = (found - expected).abs() / (1.0 + expected.abs())
    same = found == expected
    return float(torch.where(same, 0.0, away).nan_to_num(torch.inf).max())


def check_repeats(paths: SomePaths) -> Check:
    """Two calls with the same arguments give the same, of ``log_prob`` and of each step."""
    name, transition = "repeats", type(paths.transition).__name__
    away = max(gap(paths.log_prob(), paths.log_prob()), gap(paths.stepped(), paths.stepped()))
    away = max([away, *_steps_twice(paths)])
    if away <= _tolerance(paths):
        return Check(name, "passed", f"{transition} gives the same at every call")
    if paths.transition.training:
        write = "transition.eval(): in training mode its dropout is on."
    else:
        write = (
            "the state as a NamedTuple that step_logits returns, nothing on self; no randomness."
        )
    return Check(name, "failed", f"{transition}: calls alike differ by {away:.1g}", write)


def _steps_twice(paths: SomePaths) -> Iterator[float]:
    """How far a step is from the same step once more."""
    step, z_prev = paths.stepper(), None
    state = paths.transition.initial_state((len(paths.z),))
    for t in range(paths.num_steps):
        given, after = step(z_prev, state, t)
        first = score(given, paths.z[:, t])
        yield gap(score(step(z_prev, state, t)[0], paths.z[:, t]), first)
        state, z_prev = after, paths.z[:, t]


def _check_step(paths: SomePaths) -> Check:
    """Stepping, replaying and the fused call agree."""
    fused, state = paths.log_prob(), paths.transition.initial_state((len(paths.z),))
    found = paths.stepped(), paths.stepped_by_distribution()
    replayed = paths.transition.replay(paths.z, None, state, paths.inputs)
    away = max(gap(each, fused) for each in (*found, replayed))
    return _verdict(
        *("step is log_prob", paths, away),
        "step, replay and log_prob give log p(z_t | z_1..z_t-1) that differ by",
        "step_logits (or step_moments) alone: the others follow from it.",
    )


def _check_rows(paths: SomePaths) -> Check:
    """A row does not depend on the rows beside it."""
    singles = [paths.rows(slice(i, i + 1)) for i in range(len(paths.z))]
    fused = torch.cat([single.log_prob() for single in singles])
    away = gap(paths.log_prob(), fused)
    away = max(away, gap(paths.stepped(), torch.cat([single.stepped() for single in singles])))
    return _verdict(
        *("rows apart", paths, away),
        "a row alone and the same row among others differ by",
        "nothing over the batch dimension in the transition: no batch norm (or transition.eval()), "
        "no mean over rows.",
    )


def _check_state(paths: SomePaths) -> Check:
    """The state is all that a particle remembers: rows are gathered for the whole past."""
    z, N, cut = paths.z, len(paths.z), paths.num_steps // 2
    ancestors = torch.arange(N, device=z.device).flip(0) // 2 * 2
    step, state, z_prev = paths.stepper(), paths.transition.initial_state((N,)), None
    scores = []
    for t in range(paths.num_steps):
        if t == cut and t:
            state = map_state(lambda s: s[ancestors], state)
            z = torch.cat([z[ancestors, :cut], z[:, cut:]], 1)
            z_prev = z[:, cut - 1]
        given, state = step(z_prev, state, t)
        z_prev = z[:, t]
        scores.append(score(given, z_prev))
    away = gap(torch.stack(scores, -1)[:, cut:], paths.log_prob(z)[:, cut:])
    return _verdict(
        *("state gathers", paths, away),
        "after resampling, a particle's steps and its path's log_prob differ by",
        "all that is remembered of z_1..z_t-1 into the state, a NamedTuple of tensors with the "
        "batch first; keep nothing on self.",
    )


def _check_normalised(paths: SomePaths) -> Check:
    """The probabilities of z_t sum to 1, at every step: by ``log_prob``."""
    name, transition = "normalised", paths.transition
    if isinstance(transition, GaussianTransition):
        mean, scale = transition.path_moments(paths.z, paths.inputs)
        normal = torch.distributions.Normal(mean, scale, validate_args=False)
        away = gap(paths.log_prob(), normal.log_prob(paths.z).sum(-1))
    else:
        assert isinstance(transition, DiscreteTransition)
        away, K = 0.0, transition.num_states
        one, states = paths.rows(slice(0, 1)), torch.arange(K, device=paths.z.device)
        for t in range(paths.num_steps):
            z = one.z.repeat(K, 1)
            z[:, t] = states
            u = None if one.inputs is None else one.inputs.expand(K, -1, -1)
            total = transition.log_prob(z, u)[:, t].logsumexp(0)
            away = max(away, gap(total, torch.zeros_like(total)))
    return _verdict(
        *(name, paths, away),
        "log of the sum of p(z_t = k | z_1..z_t-1) over k is off 0 by",
        "torch.log_softmax(logits, -1) in log_prob, or leave log_prob to the base class.",
    )


def _check_causal(paths: SomePaths) -> Check:
    """p(z_t | z_{1:t-1}) sees nothing later, nor how many steps there are."""
    together, away = paths.log_prob(), 0.0
    for t in range(1, paths.num_steps):
        other = paths.z.clone()
        other[:, t:] = paths.z.flip(0)[:, t:]
        away = max(away, gap(paths.log_prob(other)[:, :t], together[:, :t]))
        away = max(away, gap(paths.cut(t).log_prob(), together[:, :t]))
    return _verdict(
        *("causal", paths, away),
        "what comes later changes log p(z_t | z_1..z_t-1) by",
        "log_prob so that step t reads z[..., :t] alone: shift z by one, with a start symbol.",
    )


#: what is asked of a transition that :func:`check_repeats` passed
TRANSITION_CHECKS: dict[str, Callable[[SomePaths], Check]] = {
    "step is log_prob": _check_step,
    "rows apart": _check_rows,
    "state gathers": _check_state,
    "normalised": _check_normalised,
    "causal": _check_causal,
}


def _tolerance(paths: SomePaths) -> float:
    return TOLERANCE[paths.transition.like.dtype]


def _verdict(name: str, paths: SomePaths, away: float, what: str, write: str) -> Check:
    if away <= _tolerance(paths):
        return Check(name, "passed", f"differences of at most {away:.1g}")
    found = f"{type(paths.transition).__name__}: {what} {away:.1g}"
    return Check(name, "failed", found, write)
