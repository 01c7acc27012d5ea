"""One form for every comparison: sequences to learn from, to choose by and to report.

::

    imdb_continuation     IMDB reviews: learn from their first words, predict the later ones
    wikitext2_passages    WikiText-2: passages of articles
    msnbc_sequences       MSNBC: page categories that a user viewed
    python_docs_passages  the built-in corpus, without a file

Whatever model is compared: fit it to ``train``, choose its settings by ``valid``, and report the
log-probability of ``test.words[start:]``, each word given all earlier ones of its column.
"""

import os
from collections.abc import Iterable
from itertools import islice
from typing import Literal, NamedTuple

import torch

from .arguments import generator, integer
from .batch import TextBatch, batchify
from .corpora import describe_parts, load_python_docs
from .files import check_limit
from .imdb import check_lengths, cut_reviews
from .msnbc import MSNBC_CATEGORIES, load_msnbc
from .text import UNKNOWN, Vocabulary, split_passages
from .wikitext import read_articles

__all__ = [
    "SequenceSplit",
    "imdb_continuation",
    "msnbc_sequences",
    "python_docs_passages",
    "wikitext2_passages",
]


class SequenceSplit(NamedTuple):
    """Sequences in three parts, and from where on the last two are scored.

    :param str name: What it is.
    :param Vocabulary vocabulary: V words, ``"<unk>"`` among them.
    :param TextBatch train: To learn from.
    :param TextBatch valid: To choose settings by.
    :param TextBatch test: To report.
    :param int start: In ``valid`` and ``test`` the steps from ``start`` on are scored; earlier ones
        are only conditioned on.
    """

    name: str
    vocabulary: Vocabulary
    train: TextBatch
    valid: TextBatch
    test: TextBatch
    start: int

    def to(self, device: str | torch.device) -> "SequenceSplit":
        """Move the three batches to a device."""
        parts = {part: getattr(self, part).to(device) for part in ("train", "valid", "test")}
        return self._replace(**parts)

    def describe(self) -> str:
        """Say in four lines how much there is of what; in a fifth what is scored, if not all."""
        scored = f"\n  valid and test are scored from word {self.start + 1} on" * (self.start > 0)
        return describe_parts(self, "sequences") + scored


def imdb_continuation(
    path: str | os.PathLike[str],
    *,
    num_reviews: int = 200,
    num_valid: int = 200,
    max_test: int | None = None,
    length: int = 170,
    train_length: int = 100,
    vocab_size: int = 5000,
    vocabulary: Literal["corpus", "train"] = "corpus",
    seed: int = 0,
) -> SequenceSplit:
    """Continue IMDB reviews, as :func:`~pyro_ssl.datasets.imdb_prefix_split` cuts them.

    ``train`` has words 1 to 100 of ``num_reviews`` reviews, ``test`` words 1 to 170 of the same
    reviews, scored from word 101 on. ``valid`` has words 1 to 170 of other reviews, which come next
    in the shuffled order, scored alike: settings are chosen without a look at the words of the
    test. Unlike those of ``test``, their first words are not in ``train``.

    :param path: As for :func:`~pyro_ssl.datasets.load_imdb`; the training split is read.
    :param int num_reviews: Reviews to learn from and to continue.
    :param int num_valid: Other reviews.
    :param int max_test: At most so many reviews in ``test``, the first ones of ``train``.
    :param int length: Words kept of a review; shorter reviews are left out.
    :param int train_length: How many of them are for training; ``start``.
    :param int vocab_size: V, ``"<unk>"`` included.
    :param str vocabulary: ``"corpus"``: the most frequent words of all reviews on file, as
        published; or ``"train"``: of the training words alone.
    :param int seed: Of the order, which has a generator of its own.
    :raises ValueError: if too few reviews are long enough, or an argument is out of range.
    """
    num_reviews = integer(num_reviews, "num_reviews", "imdb_continuation")
    num_valid = integer(num_valid, "num_valid", "imdb_continuation")
    max_test = check_limit(max_test, "imdb_continuation", "max_test")
    length, train_length = check_lengths(length, train_length, "imdb_continuation")
    prefix, valid = cut_reviews(
        path,
        num_reviews,
        num_valid,
        length=length,
        train_length=train_length,
        vocab_size=vocab_size,
        vocabulary=vocabulary,
        seed=seed,
        caller="imdb_continuation",
    )
    name = f"IMDB, words {train_length + 1} to {length} of {num_reviews:,} reviews"
    test = prefix.full.select(range(min(max_test or num_reviews, num_reviews)))
    return SequenceSplit(name, prefix.vocabulary, prefix.train, valid, test, start=train_length)


def wikitext2_passages(
    path: str | os.PathLike[str],
    *,
    num_train_tokens: int | None = 500_000,
    vocab_size: int = 10_000,
    passage_length: int = 100,
    min_length: int = 20,
    max_valid: int | None = None,
    max_test: int | None = None,
) -> SequenceSplit:
    """Cut WikiText-2 into passages, none of which spans two articles.

    The passages of ``train`` are the first ones, and the vocabulary is of them alone. Each passage
    is scored from its first word on. Perplexities are not to be compared with published ones, where
    the vocabulary has 33,278 words and a model remembers all that came before.

    :param path: The folder, as for :func:`~pyro_ssl.datasets.load_wikitext2`.
    :param int num_train_tokens: At most so many tokens in ``train``; None for all.
    :param int vocab_size: V, ``"<unk>"`` included.
    :param int passage_length: T.
    :param int min_length: The end of an article is dropped where it is shorter than this.
    :param int max_valid: At most so many passages in ``valid``, the first ones.
    :param int max_test: The same for ``test``.
    :raises FileNotFoundError: if one of the three files is missing.
    :raises ValueError: if an argument is out of range.
    """
    caller = "wikitext2_passages"
    passage_length = integer(passage_length, "passage_length", caller)
    max_valid = check_limit(max_valid, caller, "max_valid")
    max_test = check_limit(max_test, caller, "max_test")
    num_train_tokens = check_limit(num_train_tokens, caller, "num_train_tokens")
    if num_train_tokens is not None and num_train_tokens < passage_length:
        raise ValueError(
            f"{caller}: found num_train_tokens={num_train_tokens}, expected a passage or more: "
            f"{passage_length} tokens, or None for all. Write num_train_tokens=500_000."
        )
    passages_of = [
        _take(
            (
                passage
                for article in read_articles(path, part)
                for passage in split_passages(article, passage_length, min_length)
            ),
            most,
            most_tokens,
        )
        for part, most, most_tokens in (
            ("train", None, num_train_tokens),
            ("valid", max_valid, None),
            ("test", max_test, None),
        )
    ]
    if not all(passages_of):
        raise ValueError(
            f"{caller}: found no passage of {min_length} words or more in one of the parts, "
            "expected one at least in each. Write min_length=1, or a shorter passage_length."
        )
    vocabulary = Vocabulary.build(passages_of[0], vocab_size)
    train, valid, test = (batchify(passages, vocabulary) for passages in passages_of)
    name = f"WikiText-2, passages of {passage_length} tokens"
    return SequenceSplit(name, vocabulary, train, valid, test, start=0)


def msnbc_sequences(
    path: str | os.PathLike[str],
    *,
    num_train: int = 100_000,
    num_valid: int = 5000,
    num_test: int = 5000,
    min_len: int = 10,
    max_len: int = 100,
    seed: int = 0,
) -> SequenceSplit:
    """Draw MSNBC users at random for the three parts; each is in one of them.

    The vocabulary is ``"<unk>"``, which never occurs, and the 17 categories, each with its number
    on file. Two users may well have the same sequence.

    :param path: As for :func:`~pyro_ssl.datasets.load_msnbc`.
    :param int num_train: Users to learn from; 119,503 have 10 to 100 views.
    :param int num_valid: Users to choose by.
    :param int num_test: Users to report.
    :param int min_len: Users with fewer views are left out.
    :param int max_len: Users with more views are left out; T is this at most.
    :param int seed: Of the draw, which has a generator of its own.
    :raises ValueError: if there are too few such users, or an argument is out of range.
    """
    counts = {"num_train": num_train, "num_valid": num_valid, "num_test": num_test}
    counts = {name: integer(n, name, "msnbc_sequences") for name, n in counts.items()}
    min_len = integer(min_len, "min_len", "msnbc_sequences")
    max_len = integer(max_len, "max_len", "msnbc_sequences")
    draw = generator(seed, "msnbc_sequences")
    sequences = load_msnbc(path, min_len=min_len, max_len=max_len)
    total = sum(counts.values())
    if len(sequences) < total:
        raise ValueError(
            f"msnbc_sequences: found {len(sequences):,} users with {min_len} to {max_len} views, "
            f"expected {total:,}. Write a smaller num_train, or take a wider range of lengths."
        )
    order = torch.randperm(len(sequences), generator=draw, device="cpu")[:total]
    vocabulary = Vocabulary([UNKNOWN, *MSNBC_CATEGORIES])
    train, valid, test = (
        batchify([sequences[i] for i in places.tolist()], vocabulary)
        for places in order.split(list(counts.values()))
    )
    name = f"MSNBC, users with {min_len} to {max_len} views"
    return SequenceSplit(name, vocabulary, train, valid, test, start=0)


def python_docs_passages(
    vocab_size: int = 2000,
    passage_length: int = 100,
    *,
    min_length: int = 20,
    seed: int = 0,
) -> SequenceSplit:
    """Give the built-in corpus this form; see :func:`~pyro_ssl.datasets.load_python_docs`.

    :param int vocab_size: V, ``"<unk>"`` included: the most frequent words of the training part.
    :param int passage_length: T, the words in a passage.
    :param int min_length: The end of a topic is dropped where it is shorter than this.
    :param int seed: Of the split, which has a generator of its own.

    **Example**::

        >>> from pyro_ssl.datasets import python_docs_passages
        >>> split = python_docs_passages()
        >>> split.train.words.shape[0], len(split.vocabulary), split.start
        (100, 2000, 0)
    """
    corpus = load_python_docs(vocab_size, passage_length, min_length=min_length, seed=seed)
    return SequenceSplit(
        corpus.name, corpus.vocabulary, corpus.train, corpus.valid, corpus.test, start=0
    )


def _take(
    passages: Iterable[list[str]], most: int | None, most_tokens: int | None
) -> list[list[str]]:
    """Take the first passages, up to a number of passages or tokens; read no further."""
    taken: list[list[str]] = []
    total = 0
    for passage in islice(passages, most):
        total += len(passage)
        if most_tokens is not None and total > most_tokens:
            break
        taken.append(passage)
    return taken
