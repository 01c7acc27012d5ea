"""Do the words of a topic belong together, and does another seed find the same topics?

    python -m benchmarks.coherence --path imdb_train.jsonl.xz [--seeds 5] [--states 50]

IMDB reviews, their first words, with and without stop words: a state space LSTM by particle Gibbs,
the exact HMM that it starts from, and LDA by ``tomotopy`` (collapsed Gibbs; of the extra
``bench``, left out where it is not there). Of each topic the ten words of the highest relevance
(λ = 0.6, without stop words and the unknown word) are scored by NPMI, over other reviews than those
of the fit. ``NPMI`` is the mean over topics, ``by share`` weighs them by their share of the words.
``stable`` is how much of their probability the topics of two seeds share, 1 - TV, matched one to
one, the mean over pairs of seeds; ``words`` the same of the ten words. Words per second are those
of the text times passes over it, over the seconds that these took, on one thread. Finished runs are
in a JSON file, and are not run again; topics, by which seeds are compared, in a folder.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pyro_ssl import TopicalSSL
from pyro_ssl.datasets import STOP_WORDS, UNKNOWN, Vocabulary, batchify, load_imdb, tokenize
from pyro_ssl.models import list_topics, npmi

from ._common import mean_sd
from ._results import RESULTS, Results

NUM_WORDS, RELEVANCE = 10, 0.6
LEARNING: dict[str, Any] = {"batch_size": 250, "num_epochs": 6}
LEARNING |= {"markov_steps": 40, "markov_starts": 1, "draw_transition": False}
CONCENTRATION = 0.03
#: of LDA: sweeps, and its priors as tomotopy has them
LDA: dict[str, Any] = {"sweeps": 1000, "alpha": 0.1, "eta": 0.01}

#: one method's topics φ ``(K, V)``, their shares ``(K,)``, passes over the words, and seconds
Found = tuple[Tensor, Tensor, int, float]


class Texts:
    """Reviews to learn from, and others in which words are seen together."""

    def __init__(self, o: argparse.Namespace, with_stop_words: bool) -> None:
        reviews = load_imdb(o.path)
        random.Random(0).shuffle(reviews)
        left_out = frozenset() if with_stop_words else STOP_WORDS
        lists = [[word for word in tokenize(r.text) if word not in left_out] for r in reviews]
        train, others = lists[: o.reviews], lists[o.reviews : o.reviews + o.reference]
        self.train = [words[: o.length] for words in train]
        self.vocabulary = Vocabulary.build(self.train, o.vocabulary)
        self.batch = batchify(self.train, self.vocabulary)
        known = batchify(others, self.vocabulary)
        self.reference = known.words
        self.active = torch.arange(len(known.words)).unsqueeze(1) < known.lengths

    def coherence(self, phi: Tensor, shares: Tensor) -> tuple[Tensor, list[list[str]]]:
        """NPMI of each topic, and its first words."""
        names, left_out = self.vocabulary.words, {*STOP_WORDS, UNKNOWN}
        listed = list_topics(phi, shares, names, NUM_WORDS, RELEVANCE, left_out)
        words = [topic.words for topic in sorted(listed, key=lambda topic: topic.index)]
        ids = [self.vocabulary.encode(w) for w in words]
        return npmi(ids, self.reference, self.active), words


def ssl(texts: Texts, o: argparse.Namespace, seed: int) -> dict[str, Found]:
    """A state space LSTM, and the HMM that it starts from."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    made = TopicalSSL(o.states, texts.vocabulary.words, concentration=CONCENTRATION)
    began, how = time.perf_counter(), {**LEARNING, "disable_progbar": True}
    history = made.fit(texts.batch.words, texts.batch.lengths, **how)
    learning = sum(record.seconds for record in history)
    start = time.perf_counter() - began - learning
    hmm = made.markov
    assert hmm is not None and made.phi is not None and made.occupancy is not None
    shares = hmm.counts["phi"].sum(-1)
    return {
        "SSL, particle Gibbs": (made.phi, made.occupancy, LEARNING["num_epochs"], learning),
        "HMM, exact": (hmm.values["phi"], shares / shares.sum(), LEARNING["markov_steps"], start),
    }


def lda(texts: Texts, o: argparse.Namespace, seed: int) -> dict[str, Found]:
    """Latent Dirichlet allocation by collapsed Gibbs, on the same words of the vocabulary."""
    import tomotopy

    made = tomotopy.LDAModel(k=o.states, alpha=LDA["alpha"], eta=LDA["eta"], seed=seed)
    for words in texts.train:
        made.add_doc([word if word in texts.vocabulary else UNKNOWN for word in words])
    began = time.perf_counter()
    made.train(LDA["sweeps"], workers=1, parallel=tomotopy.ParallelScheme.NONE)
    seconds, place = time.perf_counter() - began, {w: v for v, w in enumerate(made.used_vocabs)}
    phi = torch.zeros(o.states, len(texts.vocabulary))
    known = [v for v, word in enumerate(texts.vocabulary.words) if word in place]
    order = [place[texts.vocabulary.words[v]] for v in known]
    dist = np.array([made.get_topic_word_dist(k) for k in range(o.states)])
    phi[:, known] = torch.from_numpy(dist[:, order])
    counts = torch.tensor(made.get_count_by_topics(), dtype=torch.float64)
    return {"LDA, tomotopy": (phi, counts / counts.sum(), LDA["sweeps"], seconds)}


def run(
    method: Callable[..., dict[str, Found]], texts: Texts, o: argparse.Namespace, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit; return figures, and topics with their words, by the method's name."""
    figures, topics = {}, {}
    for name, (phi, shares, epochs, seconds) in method(texts, o, seed).items():
        scores, words = texts.coherence(phi, shares)
        figures[name] = {
            "NPMI": float(scores.mean()),
            "by share": float((scores * shares).sum()),
            "words per second": epochs * sum(map(len, texts.train)) / seconds,
            "seconds": seconds,
        }
        topics[name] = {"phi": phi.float(), "words": words}
    return figures, topics


def stability(topics: list[dict[str, Any]]) -> tuple[float, float]:
    """How much topics of two seeds share, matched one to one: of probability, and of words."""
    shared, same = [], []
    for one, other in itertools.combinations(topics, 2):
        a, b = one["phi"], other["phi"]
        table = torch.stack([torch.minimum(row, b).sum(-1) for row in a])  # 1 - TV
        rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
        shared.append(float(table[rows, columns].mean()))
        matched = zip(rows, columns, strict=True)
        pairs = [(set(one["words"][i]), set(other["words"][j])) for i, j in matched]
        same.append(statistics.fmean(len(v & w) / NUM_WORDS for v, w in pairs))
    return statistics.fmean(shared), statistics.fmean(same)


def main() -> None:
    """Run what has not been run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="IMDB's folder or file")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--reviews", type=int, default=5000)
    parser.add_argument("--reference", type=int, default=5000)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--results", type=Path, default=RESULTS / "coherence.json")
    parser.add_argument("--topics", type=Path, default=Path("coherence"), help="folder of topics")
    o = parser.parse_args()
    torch.set_num_threads(1)
    own = ("path", "seeds", "results", "topics")
    settings = {k: v for k, v in vars(o).items() if k not in own}
    settings |= {"learning": LEARNING, "concentration": CONCENTRATION, "LDA": LDA}
    results = Results(o.results, settings)
    o.topics.mkdir(exist_ok=True)
    for kind in ("stop words dropped", "all words"):
        texts = None
        for seed, (key, method) in itertools.product(range(o.seeds), METHODS.items()):
            file = o.topics / f"{kind}, {key} {seed}.pt"
            if f"{kind}, {key} {seed}" in results and file.exists():
                continue
            texts = texts or Texts(o, kind == "all words")
            try:
                figures, topics = run(method, texts, o, seed)
            except ImportError as error:
                print(f"{key} is left out: {error}")
                continue
            torch.save(topics, file)
            results.add(f"{kind}, {key} {seed}", figures)
            print(kind, seed, figures, flush=True)
    for kind in ("stop words dropped", "all words"):
        for key in METHODS:
            files = [o.topics / f"{kind}, {key} {seed}.pt" for seed in range(o.seeds)]
            found = [torch.load(file) for file in files if file.exists()]
            for name in found[0] if len(found) > 1 else ():
                stable = stability([topics[name] for topics in found])
                results.content.setdefault("stable", {})[f"{kind}, {name}"] = stable
    results.write()
    report(results)


METHODS = {"ssl": ssl, "lda": lda}


def report(results: Results) -> None:
    """Print a row for each method."""
    rows: dict[str, list[dict[str, float]]] = {}
    for key, by_name in results.runs.items():
        for name, figures in by_name.items():
            rows.setdefault(f"{key.split(', ')[0]}, {name}", []).append(figures)
    asked = results.content["settings"]
    print(f"\nIMDB, {asked['reviews']:,} reviews, K={asked['states']}")
    for name, found in rows.items():
        stable = results.content.get("stable", {}).get(name)
        text = "" if stable is None else f"stable {stable[0]:.2f}, words {stable[1]:.2f}  "
        speeds = [f["words per second"] for f in found if "words per second" in f]
        speed = f"{statistics.fmean(speeds):,.0f} words per second" if speeds else ""
        print(
            f"{name:<40} {len(found)} seed{'s' * (len(found) > 1):<1}  "
            f"NPMI {mean_sd([f['NPMI'] for f in found], 3)}  "
            f"by share {mean_sd([f['by share'] for f in found], 3)}  {text}{speed}"
        )


if __name__ == "__main__":
    main()
