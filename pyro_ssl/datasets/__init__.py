"""Texts and time series to learn from: what turns them into batches, and what loads known ones."""

from pyro_ssl.datasets.batch import TextBatch, UnknownWordsWarning, batchify
from pyro_ssl.datasets.corpora import Corpus, load_python_docs
from pyro_ssl.datasets.curves import CURVES, Curve, Rotation, noisy_curve, noisy_rotation
from pyro_ssl.datasets.fetch import fetch_imdb, fetch_msnbc, fetch_wikitext2
from pyro_ssl.datasets.imdb import PrefixSplit, imdb_prefix_split
from pyro_ssl.datasets.jsb import JSBChorales, PianoRolls, jsb_chorales
from pyro_ssl.datasets.library_docs import load_library_docs
from pyro_ssl.datasets.msnbc import MSNBC_CATEGORIES, load_msnbc
from pyro_ssl.datasets.planted import (
    PlantedMemory,
    PlantedPosterior,
    PlantedTransition,
    planted_memory,
)
from pyro_ssl.datasets.planted_series import PlantedVariables, planted_variables
from pyro_ssl.datasets.pm25 import PM25_VARIABLES, load_beijing_pm25
from pyro_ssl.datasets.reviews import Review, load_imdb
from pyro_ssl.datasets.scaling import Scaling
from pyro_ssl.datasets.series import TimeSeries
from pyro_ssl.datasets.sml2010 import SML2010_COLUMNS, load_sml2010
from pyro_ssl.datasets.splits import (
    SequenceSplit,
    imdb_continuation,
    msnbc_sequences,
    python_docs_passages,
    wikitext2_passages,
)
from pyro_ssl.datasets.stop_words import STOP_WORDS
from pyro_ssl.datasets.text import UNKNOWN, Vocabulary, split_passages, tokenize
from pyro_ssl.datasets.text_files import TextFiles
from pyro_ssl.datasets.token_corpus import TokenCorpus
from pyro_ssl.datasets.wikitext import load_wikitext2
from pyro_ssl.datasets.windows import WindowedSplit, Windows, make_windows

__all__ = [
    "CURVES",
    "Curve",
    "noisy_curve",
    "noisy_rotation",
    "MSNBC_CATEGORIES",
    "PM25_VARIABLES",
    "SML2010_COLUMNS",
    "STOP_WORDS",
    "UNKNOWN",
    "Corpus",
    "JSBChorales",
    "PianoRolls",
    "PlantedMemory",
    "PlantedPosterior",
    "PlantedTransition",
    "PlantedVariables",
    "PrefixSplit",
    "Review",
    "Rotation",
    "Scaling",
    "SequenceSplit",
    "TextBatch",
    "TextFiles",
    "TimeSeries",
    "TokenCorpus",
    "UnknownWordsWarning",
    "Vocabulary",
    "WindowedSplit",
    "Windows",
    "batchify",
    "fetch_imdb",
    "fetch_msnbc",
    "fetch_wikitext2",
    "imdb_continuation",
    "imdb_prefix_split",
    "jsb_chorales",
    "load_beijing_pm25",
    "load_imdb",
    "load_library_docs",
    "load_msnbc",
    "load_python_docs",
    "load_sml2010",
    "load_wikitext2",
    "make_windows",
    "msnbc_sequences",
    "planted_memory",
    "planted_variables",
    "python_docs_passages",
    "split_passages",
    "tokenize",
    "wikitext2_passages",
]
