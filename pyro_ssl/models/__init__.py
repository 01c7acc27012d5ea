"""Ready-made models."""

from .topical import EpochRecord, Topic, TopicalSSL

__all__ = ["EpochRecord", "Topic", "TopicalSSL"]
