"""Transitions p(z_t | z_{1:t-1}): the protocol, and the ready-made ones; recurrent cells."""

from .base import DiscreteTransition, Transition
from .cells import CellStepper, LSTMCell, LSTMState, RecurrentCell
from .distribution import TransitionDistribution
from .gaussian import GaussianTransition, Moments
from .imv import IMVFullLSTM, IMVFullLSTMCell, IMVTensorLSTM, IMVTensorLSTMCell
from .linear_gaussian import LinearGaussianState, LinearGaussianTransition
from .markov import MarkovState, MarkovTransition
from .multiplicative import MultiplicativeLSTM, MultiplicativeLSTMCell
from .recurrent import LSTMTransition, MultiplicativeLSTMTransition, RecurrentTransition
from .recurrent_gaussian import (
    GaussianLSTMTransition,
    GaussianMultiplicativeLSTMTransition,
    RecurrentGaussianTransition,
)

__all__ = [
    "CellStepper",
    "DiscreteTransition",
    "GaussianLSTMTransition",
    "GaussianMultiplicativeLSTMTransition",
    "GaussianTransition",
    "IMVFullLSTM",
    "IMVFullLSTMCell",
    "IMVTensorLSTM",
    "IMVTensorLSTMCell",
    "LSTMCell",
    "LSTMState",
    "LSTMTransition",
    "LinearGaussianState",
    "LinearGaussianTransition",
    "MarkovState",
    "MarkovTransition",
    "Moments",
    "MultiplicativeLSTM",
    "MultiplicativeLSTMCell",
    "MultiplicativeLSTMTransition",
    "RecurrentCell",
    "RecurrentGaussianTransition",
    "RecurrentTransition",
    "Transition",
    "TransitionDistribution",
]
