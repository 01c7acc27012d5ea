"""Transitions p(z_t | z_{1:t-1}): the protocol, and the ready-made ones; recurrent cells."""

from .base import DiscreteTransition, Transition
from .cells import CellStepper, LSTMCell, LSTMState, RecurrentCell
from .distribution import TransitionDistribution
from .markov import MarkovState, MarkovTransition
from .multiplicative import MultiplicativeLSTM, MultiplicativeLSTMCell
from .recurrent import LSTMTransition, MultiplicativeLSTMTransition, RecurrentTransition

__all__ = [
    "CellStepper",
    "DiscreteTransition",
    "LSTMCell",
    "LSTMState",
    "LSTMTransition",
    "MarkovState",
    "MarkovTransition",
    "MultiplicativeLSTM",
    "MultiplicativeLSTMCell",
    "MultiplicativeLSTMTransition",
    "RecurrentCell",
    "RecurrentTransition",
    "Transition",
    "TransitionDistribution",
]
