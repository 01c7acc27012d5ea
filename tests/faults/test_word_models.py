"""The models of words: each fault has its documented result or its error, and changes nothing."""

import numpy as np
import pytest
import torch

from pyro_ssl import LanguageModel, TopicalSSL
from pyro_ssl.datasets import Vocabulary
from tests.faults.models import NAN, B, D, T, fit, goes_on, refit, rows, told_or_right

WORDS = {
    "float": (fit(D.w.double()), None),
    "uint8": (fit(D.w.byte()), None),
    "list": (fit(D.w.tolist(), D.n.tolist()), None),
    "numpy": (fit(D.w.numpy(), D.n.numpy()), None),
    "fraction": (fit(D.w + 0.7), "words holds .*7.*, expected whole numbers"),
    "nan": (fit(D.w * NAN), "words holds nan, expected whole numbers"),
    "-1 padding": (fit(torch.where(D.w >= 0, -1, 0), torch.zeros(B)), "found no word"),
    "nan padding": (fit(torch.cat([D.w[:1].double(), D.w[1:] * NAN]), [1] * B), None),
    "out of range": (fit(D.w + 1), "found words from . to 5, expected 0 to V - 1 = 4"),
    "negative": (fit(D.w - 1), "found words from -1 to"),
    "one dim": (fit(D.w[0]), r"write words = words\[:, None\]"),
    "three dims": (fit(D.w[..., None]), "expected integers"),
    "lengths short": (fit(D.w, D.n[:2]), r"lengths are torch.int64 \(2,\)"),
    "lengths long": (fit(D.w, D.n + 1), "lengths run from 1 to 7, expected 0 to T=6"),
    "lengths -1": (fit(D.w, D.n - 1), "lengths run from -1"),
    "lengths 0": (fit(D.w, D.n * 0), "found no word in words"),
    "lengths 1.5": (fit(D.w, D.n + 0.5), "lengths holds .*5, expected whole numbers"),
    "lengths bool": (fit(D.w, D.n > 2), "lengths are torch.bool"),
    "lengths number": (fit(D.w, 3), r"lengths are torch.int64 \(\)"),
    "empty B": (fit(D.w[:, :0]), "found no word"),
    "empty T": (fit(D.w[:0]), "found no word"),
    "T=1": (fit(D.w[:1]), None),
    "B=1": (fit(D.w[:, :1], batch_size=1), None),
    "batch_size 0": (fit(batch_size=0), "batch_size is 0, expected a whole number of 1 or more"),
    "valid start": (fit(valid=(D.w, None, T)), "found no word to score from start=6"),
    "valid start -1": (fit(valid=(D.w, None, -1)), "found no word to score from start=-1"),
    "valid words": (fit(valid=(D.w + 1, None)), r"fit\(valid=\): found words from"),
    "valid four": (fit(valid=(D.w, None, 0, 0)), "valid is a tuple"),
    "score fraction": (lambda m: m.log_likelihood(D.w + 0.5), "expected whole numbers"),
    "score -1 padded": (lambda m: m.log_likelihood(D.w.clamp(max=-1), D.n * 0), None),
    "score empty": (lambda m: m.log_likelihood(D.w[:, :0]), None),
    "score T=1": (lambda m: m.log_likelihood(D.w[:1]), None),
    "perplexity nothing": (lambda m: m.perplexity(D.w, D.n * 0), "found no word to score"),
    "perplexity start 6": (lambda m: m.perplexity(D.w, start=T), "found no word to score"),
    "perplexity start -1": (lambda m: m.perplexity(D.w, start=-1), "start is -1"),
    "perplexity start 1.5": (lambda m: m.perplexity(D.w, start=1.5), "start is 1.5"),
}


TOPICAL = {
    "inference": (fit(inference="svi"), 'inference is "svi", expected one of'),
    "num_particles 0": (fit(num_particles=0), "num_particles is 0"),
    "num_sweeps 0": (fit(num_sweeps=0), "num_sweeps is 0"),
    "num_gradient_steps 0": (fit(num_gradient_steps=0), "num_gradient_steps is 0"),
    "averaging 1": (fit(averaging=1.0), "averaging is 1.0, expected a number from 0 to below"),
    "markov_starts 0": (fit(markov_starts=0), "markov_starts is 0"),
    "markov_steps -1": (fit(markov_steps=-1), "markov_steps is -1"),
    "markov word": (fit(markov="hmm"), "markov has topics of shape str"),
    "ancestor_sampling -1": (fit(ancestor_sampling=-1), "ancestor_sampling is -1"),
    "score P=0": (lambda m: m.log_likelihood(D.w, num_particles=0), "num_particles is 0"),
    "score P=1": (lambda m: m.log_likelihood(D.w, num_particles=1), None),
    "topics 0": (lambda m: m.topics(0), "num_words is 0"),
    "topics 99": (lambda m: m.topics(99), None),
    "transform S=0": (lambda m: m.transform(D.w, num_samples=0), "num_samples is 0"),
    "transform -1": (lambda m: m.transform(D.w, warmup_steps=-1), "warmup_steps is -1"),
    "transform empty": (lambda m: m.transform(D.w[:, :0]), None),
    "transform fraction": (lambda m: m.transform(D.w + 0.5), "expected whole numbers"),
    "one particle": (fit(num_particles=1), None),
    "Vocabulary": (lambda m: TopicalSSL(2, Vocabulary(["<unk>", "a"])), None),
    "np.int64": (lambda m: TopicalSSL(np.int64(2), np.int64(3)), None),
    "K=1, V=1": (lambda m: refit(TopicalSSL(1, 1, hidden_size=1), D.w * 0), None),
    "no words": (lambda m: TopicalSSL(2, []), "vocabulary is .*list"),
    "V=0": (lambda m: TopicalSSL(2, 0), "vocabulary is 0"),
    "V=2.5": (lambda m: TopicalSSL(2, 2.5), "vocabulary is 2.5"),
    "dict": (lambda m: TopicalSSL(2, {"a": 0}), r"write sorted\(ids, key=ids.get\)"),
    "K=0": (lambda m: TopicalSSL(0, 3), "num_topics is 0"),
    "hidden_size 0": (lambda m: TopicalSSL(2, 3, hidden_size=0), "hidden_size is 0"),
    "dropout 1": (lambda m: TopicalSSL(2, 3, dropout=1.0), "dropout is 1.0"),
    "concentration 0": (lambda m: TopicalSSL(2, 3, concentration=0.0), "concentration is 0.0"),
    "cell": (lambda m: TopicalSSL(2, 3, cell="gru"), 'cell is "gru"'),
}

LANGUAGE = {
    "clip 0": (fit(clip=0.0), "clip is 0.0, expected a positive number, or math.inf"),
    "batch_size None": (fit(batch_size=None), "batch_size is None"),
    "V=0": (lambda m: LanguageModel(0), "vocab_size is 0"),
    "V a list": (lambda m: LanguageModel(["a"]), r"vocab_size is a list, .*vocab_size=len"),
    "embedding": (lambda m: LanguageModel(3, embedding_size=0), "embedding_size is 0"),
    "all 1": (
        lambda m: refit(LanguageModel(1, embedding_size=1, hidden_size=1), D.w * 0),
        None,
    ),
    "forward": (lambda m: m(D.w + 5), "found words from 5 to"),
    "forward fraction": (lambda m: m(D.w + 0.5), "expected whole numbers"),
}


TABLES = {"TopicalSSL": WORDS | TOPICAL, "LanguageModel": WORDS | LANGUAGE}


@pytest.mark.parametrize("kind, call, told", rows(**TABLES))
def test_a_fault_has_its_error_and_changes_nothing(kind, call, told):
    told_or_right(kind, call, told)


@pytest.mark.parametrize("kind", [TopicalSSL, LanguageModel])
def test_after_all_errors_the_model_scores_as_before(kind):
    goes_on(kind)
