"""Continue a review: a published experiment with a topical SSL, repeated.

200 IMDB reviews of 170 words or more, cut to 170; learn from words 1 to 100, predict words 101 to
170; V = 5,000, P = 10, H = 64, 5 epochs, K of 10, 50 or 100.

*Reference*: Kirscher, Remmache, Morisset, "State Space LSTM Model for NLP", ENSAE 2024. Its figures
stay near 4,900 for every model, because it takes probabilities for logits; see
:func:`~pyro_ssl.demo.scores.perplexity_of_probs_as_logits`. Here they stand beside perplexities.
"""

from __future__ import annotations

import argparse
import statistics
import time

import pyro
from torch import Tensor
from tqdm.auto import tqdm

from ..datasets import PrefixSplit, imdb_prefix_split
from ..infer import MarkovEM
from ..models import EpochRecord, TopicalSSL
from .scores import perplexity, perplexity_of_probs_as_logits, score_aside, unigram_probs

__all__ = ["choose_markov_steps", "run"]


def run(args: argparse.Namespace) -> dict[str, list[float]]:
    """Fit with each seed, and print what comes out.

    :param args: what :func:`pyro_ssl.demo.main` parses.
    :returns: the perplexities of each model, one per seed.
    """
    split = imdb_prefix_split(args.path, num_reviews=args.reviews)
    full, start, V = split.full, len(split.train.words), len(split.vocabulary)
    print(
        f"{len(full.lengths)} reviews of {len(full.words)} words; learn from the first {start} of "
        f"each, predict the others given these.\n{V:,} words in the vocabulary, "
        f"{full.unknown_rate:.1%} unknown."
    )
    probs = unigram_probs(split.train.words, V)
    results: dict[str, list[Tensor]] = {"unigram": [probs[full.words[start:]].log()]}
    seconds: list[float] = []
    for seed in range(args.seed, args.seed + args.seeds):
        print(f"\nSeed {seed}, K = {args.topics}")
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        hmm, ssl, per_epoch = _fit(split, args)
        results.setdefault("exact HMM", []).append(hmm)
        results.setdefault("SSL", []).append(ssl)
        seconds.append(per_epoch)
    _print_table(results, seconds, V)
    return {name: [perplexity(log_p) for log_p in runs] for name, runs in results.items()}


def choose_markov_steps(ssl: TopicalSSL, words: Tensor, most: int = 60) -> int:
    """Choose how long to fit the HMM, looking at training text alone.

    Fits it to the first four fifths of each review, and returns the number of iterations after
    which it predicted the last fifth best.
    """
    hmm, start = MarkovEM(ssl.model, dirichlet="mean"), len(words) * 4 // 5
    scores: dict[int, float] = {}
    for i in range(1, most + 1):
        hmm.step(words[:start])
        scores[i] = float(hmm.log_likelihood(words)[start:].sum())
    return max(scores, key=scores.__getitem__)


def _fit(split: PrefixSplit, args: argparse.Namespace) -> tuple[Tensor, Tensor, float]:
    """Fit once; return log p of the words to predict by HMM and SSL, and seconds per epoch."""
    words, full, start = split.train.words, split.full.words, len(split.train.words)
    ssl = TopicalSSL(
        args.topics,
        split.vocabulary.words,
        hidden_size=args.hidden,
        concentration=1.0 / args.topics,  # in total as much smoothing as adding one to the unigram
    )
    started = time.perf_counter()
    markov_steps = choose_markov_steps(ssl, words)

    def hmm_log_p() -> Tensor:
        assert ssl.markov is not None
        return ssl.markov.log_likelihood(full)[start:]

    def after_epoch(record: EpochRecord) -> None:
        if record.epoch == 1:
            spent = time.perf_counter() - started - record.seconds
            tqdm.write(
                f"  exact HMM  perplexity {perplexity(hmm_log_p()):.1f}   {markov_steps} "
                f"iterations, and the LSTM's start   {spent:.0f} s"
            )
        score = score_aside(ssl, full, start=start)
        tqdm.write(
            f"  epoch {record.epoch:<4d} perplexity {score:.1f}   latents moved "
            f"{record.change_rate:.1%}   {record.seconds:.2f} s"
        )

    history = ssl.fit(
        words,
        num_epochs=args.epochs,
        num_particles=args.particles,
        markov_steps=markov_steps,
        callback=after_epoch,
    )
    predicted = ssl.log_likelihood(full)[start:]
    seconds = sum(record.seconds for record in history) / len(history)
    return hmm_log_p(), predicted, seconds


def _print_table(results: dict[str, list[Tensor]], seconds: list[float], V: int) -> None:
    print(f"\n{'':<12}{'perplexity':>16}{'probabilities taken for logits':>36}")
    for name, runs in results.items():
        true = _mean_sd([perplexity(log_p) for log_p in runs])
        theirs = _mean_sd([perplexity_of_probs_as_logits(log_p, V) for log_p in runs])
        print(f"{name:<12}{true:>16}{theirs:>36}")
    print(
        "\nPerplexity is exp(-mean log p(word | all words before it)). On the right is what the "
        f"published\ncode computes, about (V + 1) exp(-mean p) with V = {V:,}: it is close to V "
        "for any model, good or\nbad, and is no perplexity.\n"
        f"{_mean_sd(seconds, 2)} seconds per epoch."
    )


def _mean_sd(values: list[float], digits: int = 1) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
