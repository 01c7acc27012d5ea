"""Recurrent cells: state machines that read vectors, and know nothing of latents."""

from .base import CellStepper, LSTMState, RecurrentCell
from .imv import IMVFullLSTM, IMVFullLSTMCell, IMVTensorLSTM, IMVTensorLSTMCell
from .lstm import LSTMCell
from .multiplicative import MultiplicativeLSTM, MultiplicativeLSTMCell

__all__ = [
    "CellStepper",
    "IMVFullLSTM",
    "IMVFullLSTMCell",
    "IMVTensorLSTM",
    "IMVTensorLSTMCell",
    "LSTMCell",
    "LSTMState",
    "MultiplicativeLSTM",
    "MultiplicativeLSTMCell",
    "RecurrentCell",
]
