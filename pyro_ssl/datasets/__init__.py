"""Texts to learn from: what turns them into a batch, and what loads known ones."""

from pyro_ssl.datasets.batch import TextBatch, UnknownWordsWarning, batchify
from pyro_ssl.datasets.corpora import Corpus, load_python_docs
from pyro_ssl.datasets.curves import CURVES, Curve, noisy_curve
from pyro_ssl.datasets.fetch import fetch_imdb, fetch_msnbc, fetch_wikitext2
from pyro_ssl.datasets.imdb import PrefixSplit, Review, imdb_prefix_split, load_imdb
from pyro_ssl.datasets.msnbc import MSNBC_CATEGORIES, load_msnbc
from pyro_ssl.datasets.planted import (
    PlantedMemory,
    PlantedPosterior,
    PlantedTransition,
    planted_memory,
)
from pyro_ssl.datasets.splits import (
    SequenceSplit,
    imdb_continuation,
    msnbc_sequences,
    python_docs_passages,
    wikitext2_passages,
)
from pyro_ssl.datasets.text import UNKNOWN, Vocabulary, split_passages, tokenize
from pyro_ssl.datasets.wikitext import load_wikitext2

__all__ = [
    "CURVES",
    "Curve",
    "noisy_curve",
    "MSNBC_CATEGORIES",
    "UNKNOWN",
    "Corpus",
    "PlantedMemory",
    "PlantedPosterior",
    "PlantedTransition",
    "PrefixSplit",
    "Review",
    "SequenceSplit",
    "TextBatch",
    "UnknownWordsWarning",
    "Vocabulary",
    "batchify",
    "fetch_imdb",
    "fetch_msnbc",
    "fetch_wikitext2",
    "imdb_continuation",
    "imdb_prefix_split",
    "load_imdb",
    "load_msnbc",
    "load_python_docs",
    "load_wikitext2",
    "msnbc_sequences",
    "planted_memory",
    "python_docs_passages",
    "split_passages",
    "tokenize",
    "wikitext2_passages",
]
