"""Transitions p(z_t | z_{1:t-1}): the protocol, distributions of paths, and ready-made ones."""

from .base import DiscreteTransition, Transition, map_state
from .gaussian import GaussianTransition, Moments
from .linear_gaussian import LinearGaussianState, LinearGaussianTransition
from .lstm import (
    GaussianLSTMTransition,
    GaussianMultiplicativeLSTMTransition,
    LSTMTransition,
    MultiplicativeLSTMTransition,
)
from .markov import MarkovState, MarkovTransition
from .path import PathDistribution
from .product import ProductState, ProductTransition
from .recurrent import RecurrentTransition
from .recurrent_gaussian import ReadState, RecurrentGaussianTransition
from .semi_markov import SemiMarkovState, SemiMarkovTransition

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
    "PathDistribution",
    "ProductState",
    "ProductTransition",
    "ReadState",
    "RecurrentGaussianTransition",
    "RecurrentTransition",
    "SemiMarkovState",
    "SemiMarkovTransition",
    "Transition",
    "map_state",
]
