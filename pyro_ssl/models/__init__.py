"""Ready-made models."""

from .language_model import LanguageModel, LanguageModelRecord
from .topical import EpochRecord, Topic, TopicalSSL

__all__ = ["EpochRecord", "LanguageModel", "LanguageModelRecord", "Topic", "TopicalSSL"]
