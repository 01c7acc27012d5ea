import builtins
import math
import re
import sys

import pytest
import torch

from pyro_ssl.datasets import Vocabulary, load_python_docs
from pyro_ssl.datasets.corpora import _without_repeats


@pytest.fixture(scope="module")
def corpus():
    return load_python_docs()


def columns(batch):
    return [
        tuple(batch.words[:length, b].tolist()) for b, length in enumerate(batch.lengths.tolist())
    ]


def test_sizes(corpus):
    parts = (corpus.train, corpus.valid, corpus.test)
    assert len(corpus.vocabulary) == 2000
    assert {len(part.words) for part in parts} == {100}
    assert min(int(part.lengths.min()) for part in parts) >= 20
    assert 40_000 < sum(part.num_tokens for part in parts) < 70_000
    assert len(corpus.valid.lengths) == len(corpus.test.lengths)
    assert len(corpus.valid.lengths) == pytest.approx(len(corpus.train.lengths) / 8, rel=0.05)


def test_vocabulary_is_of_the_training_part(corpus):
    decoded = [corpus.vocabulary.decode(column) for column in columns(corpus.train)]
    again = Vocabulary.build(decoded, 2000)
    assert set(again.words) == set(corpus.vocabulary.words)
    assert corpus.train.unknown_rate < corpus.test.unknown_rate < 0.1


def test_held_out_passages_are_not_in_training(corpus):
    train = set(columns(corpus.train))
    assert train.isdisjoint(columns(corpus.valid) + columns(corpus.test))


def test_is_the_same_each_time_and_leaves_the_generator_alone(corpus):
    state = torch.get_rng_state()
    again = load_python_docs()
    assert again.train.words.equal(corpus.train.words)
    assert again.vocabulary == corpus.vocabulary
    assert torch.get_rng_state().equal(state)
    assert not load_python_docs(seed=1).train.words.equal(corpus.train.words)


def test_arguments():
    corpus = load_python_docs(300, 30, min_length=30)
    assert len(corpus.vocabulary) == 300
    assert set(corpus.train.lengths.tolist()) == {30}


def test_unigram_perplexity(corpus):
    counts = torch.bincount(corpus.train.words[corpus.train.mask], minlength=2000) + 1.0
    logp = (counts / counts.sum()).log()[corpus.test.words[corpus.test.mask]]
    assert 250 < math.exp(-logp.mean()) < 450


def test_describe(corpus):
    head, *parts = corpus.describe().splitlines()
    assert sys.version.split()[0] in head
    assert "2,000 words" in head
    assert [part.split()[0] for part in parts] == ["train", "valid", "test"]
    assert f"{corpus.train.num_tokens:,} words" in parts[0]


def test_paragraphs_stand_once_and_grammar_not_at_all():
    topics = {
        "for": "The for statement.\n\n  for_stmt ::= 'for'\n\nIt loops.",
        "whole": "Statements nest.\n\nThe *for* statement.\n\nIt loops.\n \nAnd it ends.",
    }
    longest = "statements nest the for statement it loops and it ends"
    assert _without_repeats(topics) == [longest.split(), []]


def test_a_python_without_its_topics(monkeypatch):
    real_import = builtins.__import__

    def without_topics(name, *args):
        if name.startswith("pydoc_data"):
            raise ImportError(name)
        return real_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_topics)
    with pytest.raises(ImportError, match=re.escape("batchify([tokenize(text) for text in")):
        load_python_docs()
