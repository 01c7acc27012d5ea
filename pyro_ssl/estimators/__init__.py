"""The models behind the conventions of scikit-learn and hmmlearn, without needing either.

:class:`TextTopics` takes texts, as topic models of scikit-learn and gensim do;
:class:`CategoricalSSL` takes sequences of symbols one after the other, with their lengths, as
``hmmlearn.hmm.CategoricalHMM`` does. Both are thin: what they fit is a
:class:`~pyro_ssl.TopicalSSL`, in ``model_``.
"""

from .base import Estimator, NotFittedError
from .sequences import CategoricalSSL
from .texts import TextTopics

__all__ = ["CategoricalSSL", "Estimator", "NotFittedError", "TextTopics"]
