"""Ready-made models."""

from .gaussian import GaussianForecast, GaussianRecord, GaussianSSL, Tracked
from .language_model import LanguageModel, LanguageModelRecord
from .topical import EpochRecord, Topic, TopicalSSL

__all__ = [
    "EpochRecord",
    "GaussianForecast",
    "GaussianRecord",
    "GaussianSSL",
    "LanguageModel",
    "LanguageModelRecord",
    "Topic",
    "TopicalSSL",
    "Tracked",
]
