"""Tests for your own models and transitions: is the sampler exact, is a transition consistent?

:func:`verify` checks a model in one call, and returns a table of what it found.
:func:`invariance_test` compares the sampler with the exact posterior of your model.
:class:`TransitionContract` and :class:`GaussianTransitionContract` are pytest classes that every
:class:`~pyro_ssl.transitions.Transition` must pass; inherit them in the tests of your own.
"""

from .contract import GaussianTransitionContract, TransitionContract
from .invariance import InvarianceResult, invariance_test
from .report import Check, Report
from .verify import verify

__all__ = [
    "Check",
    "GaussianTransitionContract",
    "InvarianceResult",
    "Report",
    "TransitionContract",
    "invariance_test",
    "verify",
]
