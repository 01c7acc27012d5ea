"""Texts and time series to learn from: what turns them into batches, and what loads known ones."""

from .batch import TextBatch, UnknownWordsWarning, batchify
from .corpora import Corpus, load_python_docs
from .curves import CURVES, Curve, Rotation, noisy_curve, noisy_rotation
from .fetch import fetch_imdb, fetch_msnbc, fetch_wikitext2
from .imdb import PrefixSplit, imdb_prefix_split
from .jsb import JSBChorales, PianoRolls, jsb_chorales
from .library_docs import load_library_docs
from .msnbc import MSNBC_CATEGORIES, load_msnbc
from .planted import (
    PlantedMemory,
    PlantedPosterior,
    PlantedTransition,
    planted_memory,
)
from .planted_series import PlantedVariables, planted_variables
from .pm25 import PM25_VARIABLES, load_beijing_pm25
from .reviews import Review, load_imdb
from .scaling import Scaling
from .series import TimeSeries
from .sml2010 import SML2010_COLUMNS, load_sml2010
from .splits import (
    SequenceSplit,
    imdb_continuation,
    msnbc_sequences,
    python_docs_passages,
    wikitext2_passages,
)
from .stop_words import STOP_WORDS
from .text import UNKNOWN, Vocabulary, split_passages, tokenize
from .text_files import TextFiles
from .token_corpus import TokenCorpus
from .wikitext import load_wikitext2
from .windows import WindowedSplit, Windows, make_windows

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
