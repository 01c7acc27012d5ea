"""Transitions p(z_t | z_{1:t-1}): the protocol, and the ready-made ones."""

from .base import DiscreteTransition, Transition
from .distribution import TransitionDistribution
from .lstm import LSTMState, LSTMTransition
from .markov import MarkovState, MarkovTransition

__all__ = [
    "DiscreteTransition",
    "LSTMState",
    "LSTMTransition",
    "MarkovState",
    "MarkovTransition",
    "Transition",
    "TransitionDistribution",
]
