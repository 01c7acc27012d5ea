"""The default demonstration: topics in Python's language reference.

Fit a topical SSL, next to a unigram and an exact HMM; print what comes out, and write a page.
"""

from __future__ import annotations

import argparse
import time

import pyro
from torch import Tensor
from tqdm.auto import tqdm

from ..datasets import Corpus, load_python_docs
from ..models import EpochRecord, TopicalSSL
from ..pages import LISTED, readable_topics
from .marked import Passage
from .memory import remember
from .page import write_page
from .report import Report
from .scores import (
    Difference,
    perplexity,
    same_topics,
    score_aside,
    topic_difference,
    unigram_probs,
)

__all__ = ["run"]


def run(args: argparse.Namespace, corpus: Corpus | None = None) -> Report:
    """Fit, print, and write ``index.html`` and pictures to ``args.out``.

    :param args: what :func:`pyro_ssl.demo.main` parses.
    :param Corpus corpus: another text; by default the built-in one.
    """
    started = time.perf_counter()
    corpus = load_python_docs() if corpus is None else corpus
    print(corpus.describe())
    test = corpus.test
    word_probs = unigram_probs(corpus.train.words[corpus.train.mask], len(corpus.vocabulary))
    unigram = perplexity(word_probs[test.words[test.mask]].log())
    print(f"\nTest perplexity of a unigram (counts plus one): {unigram:.1f}")
    print(f"Next, an exact HMM with {args.topics} states, and an LSTM trained on its paths ...\n")

    pyro.set_rng_seed(args.seed)
    beta, names = 0.05, corpus.vocabulary.words
    ssl = TopicalSSL(args.topics, names, hidden_size=args.hidden, concentration=beta)
    test_curve = _fit(ssl, corpus, args, started)
    assert ssl.markov is not None and ssl.phi is not None and ssl.occupancy is not None

    topics = readable_topics(ssl.phi, ssl.occupancy, ssl.vocabulary)
    null = same_topics(word_probs, ssl.occupancy, corpus.train.num_tokens, beta)
    probs = ssl.transform(test.words, test.lengths)
    report = Report(
        corpus=corpus,
        settings={
            "topics": args.topics,
            "hidden units": args.hidden,
            "particles": args.particles,
            "seed": args.seed,
        },
        baselines={
            "unigram": unigram,
            "exact HMM": ssl.markov.perplexity(test.words, test.lengths),
        },
        valid_hmm=ssl.markov.perplexity(corpus.valid.words, corpus.valid.lengths),
        test_curve=test_curve,
        history=ssl.history,
        topics=topics,
        coherence=ssl.coherence(corpus.train.words, corpus.train.lengths, **LISTED),
        phi=ssl.phi,
        occupancy=ssl.occupancy,
        difference=topic_difference(ssl.phi, ssl.occupancy),
        chance=topic_difference(null, ssl.occupancy),
        passages=_passages(corpus, probs),
        usage=probs.sum((0, 1)),
        memory=remember(ssl, test, probs),
        seconds=time.perf_counter() - started,
    )
    _print_comparison(report)
    _print_topics(report)
    _print_difference(report.difference, report.chance)
    _print_memory(report)
    page = write_page(report, args.out)
    print(f"\n{time.perf_counter() - started:.0f} seconds in all. Open {page} in a browser.")
    return report


def _fit(ssl: TopicalSSL, corpus: Corpus, args: argparse.Namespace, started: float) -> list[float]:
    """Fit, and score the test text after every epoch; the fit does not see the score."""
    test_curve: list[float] = []
    test = corpus.test

    def after_epoch(record: EpochRecord) -> None:
        if record.epoch == 1:
            assert ssl.markov is not None
            hmm = ssl.markov.perplexity(test.words, test.lengths)
            tqdm.write(
                f"Test perplexity of the HMM: {hmm:.1f}  (the fit so far: "
                f"{time.perf_counter() - started:.0f} s)\n\n{_first_topics(ssl)}\n\n"
                "  epoch     test    valid   latents moved   seconds"
            )
        test_curve.append(score_aside(ssl, test.words, test.lengths, num_particles=20))
        tqdm.write(
            f"  {record.epoch:5d} {test_curve[-1]:8.1f} {record.score:8.1f} "
            f"{record.change_rate:15.1%} {record.seconds:9.2f}"
        )

    ssl.fit(
        corpus.train.words,
        corpus.train.lengths,
        valid=(corpus.valid.words, corpus.valid.lengths),
        num_epochs=args.epochs,
        num_particles=args.particles,
        num_gradient_steps=3,
        patience=10,
        callback=after_epoch,
    )
    return test_curve


def _first_topics(ssl: TopicalSSL, how_many: int = 6) -> str:
    """List the largest topics of content words, long before the fit ends."""
    assert ssl.phi is not None and ssl.occupancy is not None
    lines = ["The largest topics of content words, so far:"]
    for topic in readable_topics(ssl.phi, ssl.occupancy, ssl.vocabulary).content[:how_many]:
        lines.append(f"  {topic.index:5d} {topic.occupancy:6.1%}  {' '.join(topic.words)}")
    return "\n".join(lines)


def _passages(corpus: Corpus, probs: Tensor, how_many: int = 3) -> list[Passage]:
    """Take the longest test passages that have fewest unknown words, with their topics."""
    test = corpus.test
    unknown = ((test.words == 0) & test.mask).sum(0)
    best = (test.lengths - unknown).argsort(descending=True, stable=True)[:how_many].tolist()
    return [
        Passage(corpus.vocabulary.decode(test.words[:n, b]), probs[:n, b])
        for b, n in zip(best, test.lengths[best].tolist(), strict=True)
    ]


def _print_comparison(report: Report) -> None:
    print(f"\n{'model':<24} test perplexity   under unigram   against HMM")
    for row in report.comparison():
        print(
            f"{row.model:<24} {row.perplexity:15.1f} {row.under_unigram:15.1%} "
            f"{row.against_hmm:+13.1%}"
        )
    print(
        f"The epoch that is kept, {report.kept} of {len(report.history)}, was chosen on the "
        "validation text, as was\nwhere the HMM stops; the test text is only looked at."
    )


def _print_topics(report: Report) -> None:
    content, glue, _ = report.topics
    print(f"\ntopic  share   NPMI  content words, by relevance {LISTED['relevance']}")
    for topic in content:
        held = float(report.coherence[topic.index])
        print(f"{topic.index:5d} {topic.occupancy:6.1%} {held:6.2f}  {' '.join(topic.words)}")
    print(f"\nglue: topics of function words, {sum(t.occupancy for t in glue):.0%} of the text")
    for topic in glue:
        print(f"{topic.index:5d} {topic.occupancy:6.1%}         {' '.join(topic.words)}")


def _print_difference(fitted: Difference, chance: Difference) -> None:
    print("\nHow different are the topics?                    fitted   same but for chance")
    print(
        f"  mean Jensen-Shannon divergence of two, bits   {fitted.divergence:7.2f} "
        f"{chance.divergence:21.2f}\n"
        f"  top-10 words that one topic alone has         {fitted.unique:7.0%} "
        f"{chance.unique:21.0%}\n"
        "  (on the right: topics of the same sizes, each estimated from draws of one unigram)"
    )


def _print_memory(report: Report) -> None:
    if (memory := report.memory) is None:
        return
    pair, names = memory.pair, report.topics.names(4)
    print(
        f"\nWhat does it remember? Two histories that end in topic {pair.topic} "
        f"({names[pair.topic]}), and the next topic"
    )
    for mark, passage in zip("AB", memory.passages, strict=True):
        *before, after = passage.words
        print(f"  {mark}: ... {' '.join(before)} -> {after}")
    print(f"\n  topic {'':<36}LSTM, A  LSTM, B  HMM, both")
    for k in memory.likeliest():
        one, other = (f"{float(p[k]):8.0%}" for p in memory.predicted)
        print(f"  {k:5d} {names[k]:<34.34}{one} {other} {float(memory.markov[k]):10.0%}")
    print(
        f"  The LSTM's two differ by {pair.distance:.2f} (total variation), which is most of all "
        f"{pair.num_pairs:,} pairs\n  with the same last topic; their mean is {pair.typical:.2f}, "
        "and an HMM's 0."
    )
