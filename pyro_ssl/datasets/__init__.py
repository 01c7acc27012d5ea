"""Texts to learn from: what turns them into a batch, and what loads known ones."""

from pyro_ssl.datasets.batch import TextBatch, UnknownWordsWarning, batchify
from pyro_ssl.datasets.corpora import Corpus, load_python_docs
from pyro_ssl.datasets.imdb import PrefixSplit, Review, imdb_prefix_split, load_imdb
from pyro_ssl.datasets.text import UNKNOWN, Vocabulary, split_passages, tokenize

__all__ = [
    "UNKNOWN",
    "Corpus",
    "PrefixSplit",
    "Review",
    "TextBatch",
    "UnknownWordsWarning",
    "Vocabulary",
    "batchify",
    "imdb_prefix_split",
    "load_imdb",
    "load_python_docs",
    "split_passages",
    "tokenize",
]
