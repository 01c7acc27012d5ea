"""Ready-made models."""

from .gaussian import GaussianSSL
from .gaussian_results import GaussianForecast, GaussianRecord, Tracked
from .imv import IMVLSTM
from .imv_fitting import IMVRecord
from .imv_forecast import IMVForecast
from .imv_network import IMVNetwork
from .language_model import LanguageModel, LanguageModelRecord
from .topical import EpochRecord, Topic, TopicalSSL

__all__ = [
    "EpochRecord",
    "GaussianForecast",
    "GaussianRecord",
    "GaussianSSL",
    "IMVForecast",
    "IMVLSTM",
    "IMVNetwork",
    "IMVRecord",
    "LanguageModel",
    "LanguageModelRecord",
    "Topic",
    "TopicalSSL",
    "Tracked",
]
