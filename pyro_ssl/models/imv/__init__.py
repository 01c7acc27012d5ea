"""The IMV-LSTM: which variable, and which time step, matters."""

from .forecast import IMVForecast
from .model import IMVLSTM
from .network import IMVNetwork
from .seeds import SeededImportance, importance_over_seeds

__all__ = ["IMVForecast", "IMVLSTM", "IMVNetwork", "SeededImportance", "importance_over_seeds"]
