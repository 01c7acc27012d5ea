"""IMDB reviews to be continued, cut as in the published experiment.

*References*

1. Maas, Daly, Pham, Huang, Ng, Potts, "Learning Word Vectors for Sentiment Analysis", ACL 2011:
   the data, which :func:`~pyro_ssl.datasets.load_imdb` reads.
2. Kirscher, Remmache, Morisset, "State Space LSTM Model for NLP", ENSAE 2024: the experiment.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from .arguments import generator, integer
from .batch import TextBatch, batchify
from .reviews import Review, load_imdb
from .text import Vocabulary, tokenize

__all__ = ["PrefixSplit", "imdb_prefix_split"]


class PrefixSplit(NamedTuple):
    """Reviews to be continued: a model learns from their first words and is judged on the rest.

    :param Vocabulary vocabulary: The words.
    :param TextBatch full: ``(T, B)``; the words to predict are ``full.words[len(train.words) :]``.
    :param TextBatch train: ``(train_length, B)``, the first rows of ``full``.
    """

    vocabulary: Vocabulary
    full: TextBatch
    train: TextBatch


def imdb_prefix_split(
    path: str | os.PathLike[str],
    *,
    num_reviews: int = 200,
    length: int = 170,
    train_length: int = 100,
    vocab_size: int = 5000,
    vocabulary: Literal["corpus", "train"] = "corpus",
    seed: int = 0,
) -> PrefixSplit:
    """Cut IMDB as published in [2]: learn from words 1 to 100 of a review, predict 101 to 170.

    These are the first ``num_reviews`` reviews that have ``length`` words, in a shuffled order, as
    all the negative ones come first on disk. ``full.kept`` gives their places in
    ``load_imdb(path)``. The published cut counts the words of another packaging of the data, so its
    reviews are others.

    :param path: As for :func:`load_imdb`; the training split is read.
    :param int num_reviews: B.
    :param int length: T, the words kept of a review.
    :param int train_length: How many of them are for training.
    :param int vocab_size: V, ``"<unk>"`` included.
    :param str vocabulary: ``"corpus"``, as published: the most frequent words of all reviews on
        file, those to be predicted among them; or ``"train"``: of the training words alone, where
        ``"<unk>"`` occurs in training only if ``vocab_size`` leaves some of them out.
    :param int seed: Of the order, which has a generator of its own.
    :raises ValueError: if too few reviews are long enough, or an argument is out of range.
    """
    return cut_reviews(
        path,
        num_reviews,
        length=length,
        train_length=train_length,
        vocab_size=vocab_size,
        vocabulary=vocabulary,
        seed=seed,
        caller="imdb_prefix_split",
    )[0]


def cut_reviews(
    path: str | os.PathLike[str],
    num_reviews: int,
    num_others: int = 0,
    *,
    length: int,
    train_length: int,
    vocab_size: int,
    vocabulary: str,
    seed: int,
    caller: str,
) -> tuple[PrefixSplit, TextBatch]:
    """Cut reviews as :func:`imdb_prefix_split` does, and ``num_others`` more, ``(length, B')``.

    The others come next in the shuffled order. None has the words of one of the first: the data
    hold some reviews twice.
    """
    if vocabulary not in ("corpus", "train"):
        raise ValueError(
            f"{caller}: found vocabulary={vocabulary!r}, expected 'corpus' or 'train'."
        )
    num_reviews = integer(num_reviews, "num_reviews", caller)
    length, train_length = check_lengths(length, train_length, caller)
    draw = generator(seed, caller)
    reviews = load_imdb(path)
    order = torch.randperm(len(reviews), generator=draw, device="cpu").tolist()
    tokenised: dict[int, list[str]] = {}  # by place, so that no review is tokenised twice
    chosen, others = _choose(reviews, order, num_reviews, num_others, length, tokenised)
    found, expected = len(chosen) + len(others), num_reviews + num_others
    if found < expected:
        raise ValueError(
            f"{caller}: found {found} reviews of {length} words or more, expected {expected}. "
            f"Write num_reviews={max(found - num_others, 1)}, or take a smaller length."
        )
    if vocabulary == "corpus":
        texts = (tokenised.get(i) or tokenize(review.text) for i, review in enumerate(reviews))
    else:
        texts = (tokenised[i][:train_length] for i in chosen)
    words = Vocabulary.build(texts, vocab_size)
    full, train, more = (
        _lay_out({i: tokenised[i] for i in places}, words, steps)
        for places, steps in ((chosen, length), (chosen, train_length), (others, length))
    )
    return PrefixSplit(words, full, train), more


def check_lengths(length: int, train_length: int, caller: str) -> tuple[int, int]:
    """Return how many words are kept of a review and how many of them are to learn from."""
    length = integer(length, "length", caller, least=None)
    train_length = integer(train_length, "train_length", caller, least=None)
    if not 1 <= train_length < length:
        raise ValueError(
            f"{caller}: found train_length={train_length} and length={length}, expected "
            "1 <= train_length < length. Write length=170, train_length=100."
        )
    return length, train_length


def _choose(
    reviews: Sequence[Review],
    order: Sequence[int],
    num_chosen: int,
    num_others: int,
    length: int,
    tokenised: dict[int, list[str]],
) -> tuple[list[int], list[int]]:
    """Choose the places of long reviews, in order; leave what was tokenised in ``tokenised``."""
    chosen: list[int] = []
    others: list[int] = []
    known: set[tuple[str, ...]] = set()
    for i in order:
        if len(chosen) == num_chosen and len(others) == num_others:
            break
        tokens = tokenised[i] = tokenize(reviews[i].text)
        start = tuple(tokens[:length])
        if len(start) == length and len(chosen) < num_chosen:
            chosen.append(i)
            known.add(start)
        elif len(start) == length and start not in known:
            others.append(i)
    return chosen, others


def _lay_out(texts: dict[int, list[str]], vocabulary: Vocabulary, max_len: int) -> TextBatch:
    """Make a batch of texts, whose ``kept`` is their places in the data."""
    kept = torch.tensor(list(texts), dtype=torch.long, device="cpu")  # (B,)
    return replace(batchify(texts.values(), vocabulary, max_len=max_len), kept=kept)
