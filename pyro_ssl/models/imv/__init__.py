"""The IMV-LSTM: which variable, and which time step, matters."""

from .forecast import IMVForecast
from .model import IMVLSTM
from .network import IMVNetwork

__all__ = ["IMVForecast", "IMVLSTM", "IMVNetwork"]
