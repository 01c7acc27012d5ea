"""A demonstration on real text: ``python -m pyro_ssl.demo``.

Read :mod:`pyro_ssl.demo.builtin` for how a model is fitted, scored and looked at, and
:mod:`pyro_ssl.demo.imdb` for a published experiment repeated.
"""

from .cli import main
from .scores import perplexity, typical_words, unigram_probs

__all__ = ["main", "perplexity", "typical_words", "unigram_probs"]
