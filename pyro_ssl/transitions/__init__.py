"""Transitions p(z_t | z_{1:t-1}): the protocol, and the ready-made ones."""

from .base import DiscreteTransition, Transition, map_state
from .gaussian import GaussianTransition, Moments
from .linear_gaussian import LinearGaussianState, LinearGaussianTransition
from .markov import MarkovState, MarkovTransition
from .path import PathDistribution
from .recurrent import LSTMTransition, MultiplicativeLSTMTransition, RecurrentTransition
from .recurrent_gaussian import (
    GaussianLSTMTransition,
    GaussianMultiplicativeLSTMTransition,
    RecurrentGaussianTransition,
)

__all__ = [
    "DiscreteTransition",
    "GaussianLSTMTransition",
    "GaussianMultiplicativeLSTMTransition",
    "GaussianTransition",
    "LSTMTransition",
    "LinearGaussianState",
    "LinearGaussianTransition",
    "MarkovState",
    "MarkovTransition",
    "Moments",
    "MultiplicativeLSTMTransition",
    "RecurrentGaussianTransition",
    "RecurrentTransition",
    "Transition",
    "map_state",
    "PathDistribution",
]
