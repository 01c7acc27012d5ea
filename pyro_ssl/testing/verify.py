"""``verify``: is a model what it seems, and are the samplers right on it? One call, one report.

Read ``report.py`` for what it returns; ``verify_model.py``, ``verify_transition.py`` and
``verify_sampler.py`` hold the checks, each one function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine

from ..arguments import at_least
from ..gradients import evaluating
from ..reading.context import TURNS, Before, all_or_nothing
from ..reading.program import Program
from .held import Held
from .report import Check, Report
from .verify_model import MODEL_CHECKS, Subject, check_log_joint, describe, read
from .verify_sampler import (
    check_evidence,
    check_invariance,
    check_movement,
    exact_cut,
    why_not_exact,
)
from .verify_transition import TRANSITION_CHECKS, SomePaths, check_repeats, some_paths

__all__ = ["verify"]

_EXACT = ("evidence", "invariance", "evidence, twisted", "invariance, twisted")


def verify(
    model: Callable[..., Any], *args: Any, num_particles: int = 10, seed: int = 0, **kwargs: Any
) -> Report:
    r"""Check a model before it is trusted: what the library reads of it, and what it draws from it.

    =====================  ======================================================================
    ``runs``               the model runs with all states at once
    ``data kept``          no run changes the data, or a module
    ``emission repeats``   two runs observe alike: no dropout, nothing in place
    ``emission local``     x_t hangs on z_t alone
    ``weights``            no ``poutine.scale`` stands on a site
    ``parameters``         all that require a gradient are registered
    ``Pyro's trace``       has the same log-density at every site, for random paths
    ``repeats``, ...       the transition keeps its contract: ``step is log_prob``, ``rows apart``,
                           ``state gathers``, ``normalised``, ``causal``
    ``evidence``           the mean of Ẑ is p(x), on a few sequences cut to where all K\ :sup:`T`
                           paths are enumerated; with a twist, and without
    ``invariance``         a sweep leads from exact posterior draws to exact posterior draws
    ``movement``           sweeps over whole sequences renew the paths, the first ten steps too
    =====================  ======================================================================

    Latent sites outside the loop are drawn from their prior, once; give the values that matter by
    ``pyro.condition(model, values)``. Vectors have exact answers under a
    ``LinearGaussianTransition`` with a linear Gaussian emission; elsewhere the report tells that
    evidence and invariance were not verified. How much is drawn goes by sizes: seconds as a rule,
    less than a minute of one core.

    The random parts refuse a right model once in more than a million seeds; ask again with another
    seed only after a change. Nothing is raised for what is found, and the model, the data, Pyro's
    parameter store and the random generators are left as they were.

    :param model: a Pyro model with one ``ssl_transition``; further arguments go to it.
    :param int num_particles: P, of the sweeps that are to move.
    :param int seed: of all draws.
    :returns: :class:`~pyro_ssl.testing.Report`: ``passed``, ``checks``, a table as ``str``.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ssl_transition, verify
        >>> transition = LSTMTransition(num_states=2, hidden_size=3)
        >>> def model(x):                                                     # (T, B)
        ...     pyro.module("transition", transition)
        ...     with pyro.plate("sequences", x.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(x)):
        ...             pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x[t])
        >>> report = verify(model, torch.randn(4, 2))
        >>> report.passed, report["evidence"].verdict
        (True, 'passed')
    """
    if not at_least(2, num_particles):
        raise ValueError(f"num_particles is {num_particles}, expected at least 2, an integer.")
    checks: list[Check] = []
    with _left_alone(), poutine.block(), torch.no_grad(), contextlib.ExitStack() as stack:
        held = Held(model=model, args=args, kwargs=kwargs)
        stack.callback(held.put_back)
        pyro.set_rng_seed(seed)
        subject: list[Subject] = []
        checks += _attempt("runs", lambda: _read(Program(model, args, kwargs), subject))
        if subject:
            checks += _check_all(subject[0], held, num_particles)
    return Report(tuple(checks))


def _read(program: Program, subjects: list[Subject]) -> Check:
    subjects.append(read(program))
    return describe(subjects[0])


def _check_all(subject: Subject, held: Held, num_particles: int) -> Iterator[Check]:
    """Make all checks of a model that runs; those that build on one that failed are left out."""
    transition = subject.run.transition
    of_transition = Held(transition=transition)
    for name, check in MODEL_CHECKS.items():
        yield from _attempt(name, partial(check, subject))
    yield _check_kept(held)
    paths: list[SomePaths] = []

    def repeats() -> Check:
        paths.append(some_paths(subject.run))
        return check_repeats(paths[0])

    found = _attempt("repeats", repeats)
    yield from found
    mode = contextlib.nullcontext() if found[0].verdict == "passed" else evaluating(transition)
    with mode:
        yield from _attempt("Pyro's trace", partial(check_log_joint, subject))
        for name, of in TRANSITION_CHECKS.items() if paths else ():
            yield from _attempt(name, partial(of, paths[0]))
        yield from _check_sampler(subject)
        yield from _attempt("movement", partial(check_movement, subject, num_particles))
    of_transition.put_back()


def _check_sampler(subject: Subject) -> Iterator[Check]:
    """Compare evidence and draws with the exact ones, where these are known."""
    why = why_not_exact(subject)
    if why:
        yield from (Check(name, "skipped", why) for name in _EXACT)
        return
    try:
        cut = exact_cut(subject)
    except Exception as error:
        yield _raised("evidence", error)
        return
    for twisted in (False, True):
        for check in (check_evidence, check_invariance):
            name = f"{check.__name__.removeprefix('check_')}{', twisted' * twisted}"
            yield from _attempt(name, partial(check, subject, cut, twisted=twisted))


def _check_kept(held: Held) -> Check:
    """No run changes the data, or a module."""
    changed = held.changed()
    if not changed:
        return Check("data kept", "passed", "runs change neither data nor modules")
    return Check(
        *("data kept", "failed"),
        f"running the model changes {', '.join(changed[:3])}",
        "x = x - x.mean(), a new tensor, in place of x -= x.mean(); model.eval() where it is a "
        "module's buffer.",
    )


def _attempt(name: str, check: Callable[[], Check]) -> list[Check]:
    """Make a check; an error is what it found."""
    try:
        return [all_or_nothing(check)()]
    except Exception as error:
        return [_raised(name, error)]


def _raised(name: str, error: Exception) -> Check:
    message, _, write = str(error).partition("write ")
    found = f"{type(error).__name__}: {message}"
    return Check(name, "failed", found, write or "what the message asks for.")


@contextlib.contextmanager
def _left_alone() -> Iterator[None]:
    """Generators, handlers and Pyro's store are afterwards what they were."""
    with TURNS:
        before = Before()
        try:
            yield
        finally:
            before.put_back()
