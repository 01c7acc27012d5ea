"""Ready-made models."""

from ..infer.warm_start import fit_markov
from .base import EpochRecord, Model
from .choose import NumTopics, choose_num_topics
from .coherence import npmi
from .dynamic import DynamicEvaluation
from .epochs import FitState, fit_epochs
from .gaussian import GaussianSSL
from .gaussian_outputs import crps
from .gaussian_results import GaussianForecast, Imputed, Scores, Simulated, Tracked
from .imv import (
    IMVLSTM,
    IMVForecast,
    IMVNetwork,
    SeededImportance,
    importance_over_seeds,
)
from .language_model import LanguageModel
from .learned import PartRecord
from .ranking import Ranks, ranks_of
from .stability import TopicStability, topic_stability
from .topic_reader import WordForecast
from .topical import TopicalSSL
from .topics import Topic, list_topics

__all__ = [
    "DynamicEvaluation",
    "EpochRecord",
    "FitState",
    "GaussianForecast",
    "GaussianSSL",
    "IMVForecast",
    "IMVLSTM",
    "IMVNetwork",
    "Imputed",
    "LanguageModel",
    "Model",
    "PartRecord",
    "NumTopics",
    "Ranks",
    "Scores",
    "SeededImportance",
    "Simulated",
    "Topic",
    "TopicStability",
    "TopicalSSL",
    "Tracked",
    "WordForecast",
    "choose_num_topics",
    "crps",
    "fit_epochs",
    "fit_markov",
    "importance_over_seeds",
    "list_topics",
    "npmi",
    "ranks_of",
    "topic_stability",
]
