"""Ready-made models."""

from .gaussian import GaussianSSL
from .gaussian_results import GaussianForecast, GaussianRecord, Tracked
from .imv import IMVLSTM, IMVForecast, IMVNetwork, IMVRecord
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
