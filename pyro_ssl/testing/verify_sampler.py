"""Are the samplers right on a model, and do they move? Each check is one function.

How much is drawn is set by sizes, not by the clock: about the same work for every model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..infer.estep import SMCSettings, draw_paths
from ..reading.program import ModelRun
from ..smc import QuadraticEmission, Sweep, TableEmission
from ..steps import steps_within
from ..transitions import LinearGaussianTransition
from .cut import Cut, ExactCut, LinearCut, StatesCut, row_cost
from .report import Check
from .verify_model import Subject

__all__ = ["check_evidence", "check_invariance", "check_movement", "exact_cut", "why_not_exact"]

#: operations of one check, about
WORK = 5e10
#: paths that are enumerated, at most; two steps may have so many times more
MAX_PATHS, MORE = 50_000, 20
#: steps of a cut, at most: of states, and of vectors
MAX_STEPS = {True: 12, False: 5}
#: sequences of a cut, and independent sweeps of each check in all, at most
SEQUENCES, REPLICATES = 3, 20_000
#: A test of invariance fails at this p-value, and a mean of the evidence where chance would take it
#: so far with this probability: a right model is refused once in more than a million seeds.
ALPHA, DELTA = 1e-7, 1e-8
#: particles, and steps between redraws of the reference's ancestor, of the sweeps that are to leave
#: the posterior invariant: with few of the first, and none of the second, errors show best
SWEEPS = ((2, 0), (2, 0), (3, 2), (3, 1))
#: by how much the means may be off beside that, for sums are rounded
ROUNDING = 1e-3
#: steps whose movement is looked at, and latents in all, at most
MOVING_STEPS, MOVING_CELLS = 2_000, 2_000
#: ... where the body runs at every step, which costs more, but hardly more for more sequences
BODY_STEPS, BODY_CELLS = 200, 20_000
#: sweeps that are thrown away, and those that count
SETTLING, COUNTED = 2, 5
#: A share of latents that move is low below this share of what independent draws would do ...
LOW = 0.1
#: ... where these differ at all
DIFFER = 0.05
#: effective particles that are as good as one
FEW = 1.2


def why_not_exact(subject: Subject) -> str:
    """Return why no exact answer is at hand; an empty text where one is."""
    run, transition = subject.run, type(subject.run.transition).__name__
    if not (run.num_sequences and bool(_lengths(run).any())):
        return "there is no step to compare"
    if run.is_discrete:
        return ""
    if not isinstance(run.transition, LinearGaussianTransition):
        return f"no exact answer is known for a {transition}"
    if not isinstance(subject.emission, QuadraticEmission):
        return "no exact answer is known, for the emission is not linear with Gaussian noise"
    return ""


def exact_cut(subject: Subject) -> ExactCut:
    """Cut a model to where its posterior is known."""
    run, lengths = subject.run, _lengths(subject.run)
    longest = int(lengths.max())
    T = min(longest, MAX_STEPS[run.is_discrete])
    if run.is_discrete:
        K, cost = run.transition.num_states, row_cost(subject)
        while T > 1 and _too_many(K**T, T, cost):
            T -= 1
        order = lengths.argsort(descending=True, stable=True)
        order = order[lengths[order] > 0]
        index = torch.cat([order[: SEQUENCES - 1], order[SEQUENCES - 1 :][-1:]])  # and the shortest
        return StatesCut(subject, index, T)
    index = (lengths >= T).nonzero().squeeze(-1)[:SEQUENCES]
    return LinearCut(subject, index, T)


def check_evidence(subject: Subject, cut: ExactCut, *, twisted: bool) -> Check:
    r"""Ẑ is unbiased for the sum over all paths, p(x).

    For r = Ẑ / p(x), which may be heavy-tailed, two means of bounded numbers are equal: that of
    r / (1 + r) over sweeps without a reference, and that of 1 / (1 + r) over sweeps from exact
    draws, whose distribution is that of the others times r. How far apart they may be by chance is
    told by Maurer & Pontil 2009, theorem 4, for any distribution.
    """
    name, P = "evidence, twisted" if twisted else "evidence", 10
    copies = max(_copies(subject, cut, P * cut.num_steps) // 2, 2)
    away: Tensor | float = 0.0
    allowed: Tensor | float = ROUNDING
    for sign, reference in ((1.0, None), (-1.0, cut.draw(copies))):
        log_z = cut.sweep(copies, P, reference, twisted=twisted).log_likelihood.sum(0)
        share = (sign * (log_z.unflatten(0, (copies, -1)) - cut.log_evidence)).sigmoid()  # (C, B)
        spread, rate = share.std(0), math.log(2.0 / DELTA) / copies
        away, allowed = away + sign * share.mean(0), allowed + spread * math.sqrt(2.0 * rate)
        allowed = allowed + 7.0 / 3.0 * rate * copies / (copies - 1)
    assert isinstance(away, Tensor)
    part = float((away.abs() / allowed).max())
    found = f"{copies} runs of {_size(cut)}: Ẑ is off p(x) by {part:.0%} of what chance may do"
    if part <= 1.0:
        return Check(name, "passed", found)
    return Check(name, "failed", found, _MEND)


def check_invariance(subject: Subject, cut: ExactCut, *, twisted: bool) -> Check:
    """A sweep begun at exact posterior draws ends in exact posterior draws."""
    name, T = "invariance, twisted" if twisted else "invariance", cut.num_steps
    copies = _copies(subject, cut, 3 * T * (1 + T // 4))  # redrawing ancestors scores the rest
    each = copies // len(SWEEPS)
    paths = [
        cut.sweep(each, P, cut.draw(each), twisted=twisted, ancestor_sampling=every).path
        for P, every in SWEEPS
    ]
    p = cut.p_value(torch.cat(paths, 1))
    found = (
        f"{each * len(SWEEPS)} sweeps of {_size(cut)} from exact draws to exact draws: p = {p:.2g}"
    )
    if p > ALPHA:
        return Check(name, "passed", found)
    return Check(name, "failed", found, _MEND)


def check_movement(subject: Subject, num_particles: int) -> Check:
    """Sweeps of the whole model renew paths, the first steps too."""
    name, run = "movement", subject.run
    if not (run.num_sequences and bool(_lengths(run).any())):
        return Check(name, "skipped", "there is no step to move")
    if isinstance(subject.emission, TableEmission | QuadraticEmission):
        moved, differ, share, size = _move_cut(subject, num_particles)
    elif run.loop.num_steps > BODY_STEPS or run.loop.num_steps * run.num_sequences > BODY_CELLS:
        return Check(
            *(name, "skipped", "the body runs at every step, and there are too many of them"),
            "verify on fewer sequences, or look at ParticleGibbs(model).summary().",
        )
    else:
        moved, differ, share, size = _move_whole(subject, num_particles)
    found = (
        f"{size}, {num_particles} particles: a sweep changes {moved.mean():.0%} of latents "
        f"({moved[:10].mean():.0%} of the first ten steps'; two draws differ in "
        f"{differ.mean():.0%}); effective particles {share:.0%}"
    )
    low = differ.mean() > DIFFER and moved.mean() < LOW * differ.mean()
    first = differ[:10].mean() > DIFFER and moved[:10].mean() < LOW * differ[:10].mean()
    if not (low or first or share * num_particles < FEW):
        return Check(name, "passed", found)
    return Check(
        *(name, "warning", found),
        f"num_particles={max(10 * num_particles, 50)}, ancestor_sampling=5, "
        'path_kernel="independent", or shorter sequences; suggest_num_particles(model, ...) tells '
        "how many are enough.",
    )


def _move_cut(subject: Subject, P: int) -> tuple[Tensor, Tensor, float, str]:
    """Two chains of a cut: shares that moved and that differ by step, ESS / P, and the size."""
    run, lengths = subject.run, _lengths(subject.run)
    T = min(int(lengths.max()), MOVING_STEPS)
    cells = min(MOVING_CELLS, WORK / (10 * P * row_cost(subject)))
    T = max(1, min(T, int(cells)))
    index = lengths.argsort(descending=True, stable=True)[: max(1, int(cells / T))]
    index = index[lengths[index] > 0]
    every = SMCSettings(P).redraw_every(T, run.is_discrete)
    cut = Cut(subject, index, T)
    tries = []
    for twisted in (False, True):
        sweep = partial(cut.sweep, 2, P, twisted=twisted, ancestor_sampling=every)
        tries.append(_moves(sweep, lengths[index].clamp(max=T).repeat(2), P))
    best = max(tries, key=lambda found: float(found[0].mean()))  # as a twist would be chosen
    return *best, f"{len(index)} sequences of {T} steps"


def _move_whole(subject: Subject, P: int) -> tuple[Tensor, Tensor, float, str]:
    """The same of the whole model, chains one after the other: its body cannot be cut."""
    run, lengths = subject.run, _lengths(subject.run)
    settings = SMCSettings(P)

    def sweep(reference: Tensor | None = None) -> Sweep:
        made, path = draw_paths(run, subject.emission, reference, settings)
        return made._replace(path=path)

    (a, moved, share), (b, also, _) = (_chain(sweep, lengths, P) for _ in range(2))
    differ = _share_of(a, b, lengths)
    size = f"{run.num_sequences} sequences of {run.loop.num_steps} steps"
    return (moved + also) / 2, differ, share, size


def _moves(sweep: Callable[..., Sweep], lengths: Tensor, P: int) -> tuple[Tensor, Tensor, float]:
    """Shares that moved and that differ between the two halves of a batch, and ESS / P."""
    path, moved, share = _chain(sweep, lengths, P)
    a, b = path.chunk(2, 1)
    return moved, _share_of(a, b, lengths.chunk(2)[0]), share


def _chain(sweep: Callable[..., Sweep], lengths: Tensor, P: int) -> tuple[Tensor, Tensor, float]:
    """Return the path after a few sweeps, what each step moved by, and ESS / P at the start."""
    first = sweep()
    size = first.effective_size.nan_to_num(1.0)
    within = steps_within(lengths, len(size))
    share = float((size * within).sum() / within.sum().clamp(min=1) / P)
    path, moved = first.path, size.new_zeros(len(size))
    for i in range(SETTLING + COUNTED):
        after = sweep(reference=path).path
        if i >= SETTLING:
            moved += _share_of(path, after, lengths) / COUNTED
        path = after
    return path, moved, share


def _share_of(a: Tensor, b: Tensor, lengths: Tensor) -> Tensor:
    """Share of sequences in which two paths ``(T, B, ...)`` differ, by step, float64 ``(T,)``."""
    within = steps_within(lengths, len(a))
    differs = (a != b).reshape(*a.shape[:2], -1).any(-1) & within
    return differs.double().sum(1) / within.sum(1).clamp(min=1)


def _lengths(run: ModelRun) -> Tensor:
    """Lengths of all sequences, ``(B,)``."""
    if run.grid.lengths is not None:
        return run.grid.lengths
    T = torch.tensor(run.loop.num_steps, device=run.loop.device)
    return T.expand(run.num_sequences)


def _too_many(num_paths: int, num_steps: int, cost: float) -> bool:
    more = MORE if num_steps <= 2 else 1
    return num_paths > more * MAX_PATHS or num_paths * num_steps * cost > more * WORK


def _copies(subject: Subject, cut: ExactCut, rows_each: int) -> int:
    """How often to sweep a cut."""
    most = REPLICATES // cut.num_sequences
    affordable = WORK / (rows_each * cut.num_sequences * row_cost(subject))
    return int(min(most, max(affordable, 400)))


def _size(cut: ExactCut) -> str:
    return f"{cut.num_sequences} sequences of {cut.num_steps} steps"


_MEND = (
    "what the transition's own checks tell: the samplers step, and this sums log_prob. If they all "
    "pass, the fault is the library's: please report it, with this table."
)
