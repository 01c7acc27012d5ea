"""How many particles does a model need?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..arguments import at_least
from .particle_filter import ParticleFilter

__all__ = ["suggest_num_particles"]

#: numbers of particles that are tried, in this order
CANDIDATES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)


def suggest_num_particles(
    model: Callable[..., Any],
    *args: Any,
    target_sd: float = 1.0,
    num_runs: int = 5,
    twist: Any = "markov",
    **kwargs: Any,
) -> int:
    """Return the least P at which log Ẑ of a sequence has a standard deviation of at most 1.

    There a conditional sweep renews most of a path, and a fresh one is accepted more often than not
    (Pitt, Silva, Giordani & Kohn 2012, "On some properties of Markov chain Monte Carlo simulation
    methods based on the particle filter", find 1 about right). Scores want less: their bias is half
    the variance.

    :param model: as :class:`ParticleFilter` takes it; further arguments go to it. Some sequences
        are enough.
    :param float target_sd: bar for the standard deviation, the root mean square over sequences.
    :param int num_runs: from which it is taken, at least 2.
    :param twist: see :class:`ParticleGibbs`.
    :returns: one of 2, 5, 10, 20, ..., 1000; the last with a warning if none is enough.

    Example::

        >>> import pyro, pyro.distributions as dist, torch
        >>> from pyro_ssl import LSTMTransition, ssl_transition
        >>> transition, phi = LSTMTransition(3, 8), torch.ones(3, 6) / 6
        >>> def model(words):
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> suggest_num_particles(model, torch.randint(6, (7, 4)))
        2
    """
    if not at_least(2, num_runs) or not target_sd > 0:
        raise ValueError(
            f"num_runs={num_runs}, target_sd={target_sd}: expected at least 2, and more than 0."
        )
    for num_particles in CANDIDATES:
        sd = ParticleFilter(model, num_particles, twist=twist).spread(
            *args, num_runs=num_runs, **kwargs
        )
        if sd <= target_sd:
            return num_particles
    warnings.warn(
        f"log Ẑ of a sequence still has a standard deviation of {sd:.1f} at {num_particles} "
        f"particles, expected at most {target_sd}; shorter sequences or a better twist need fewer.",
        RuntimeWarning,
        stacklevel=2,
    )
    return num_particles
