"""How much memory does learning from 10⁸ words take, and how long is an epoch?

    python -m benchmarks.large [--tokens 1e8] [--steps 5] [--folder FOLDER] [--start]

Synthetic texts of 50 to 150 words (V=10,000, rank-frequency 1/r) go into a corpus on disk. An HMM
of K=50 states is fitted to 2,000 of them. A model that reads ``corpus.batch(index)`` in its body
is then learned by stochastic EM (H=64, P=10) in minibatches by length, with all paths in a file.
With ``--start`` all texts get a path of the HMM first, as ``TopicalSSL.fit`` does.

Each part is printed with its seconds and the peak of the resident memory until then, which counts
pages of the mapped files too. An epoch on 8 machines is that of an eighth of the words on each;
what they send, 4 bytes for each of K V counts and of the parameters in each step, comes on top.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from benchmarks._results import RESULTS, Results
from pyro_ssl import LSTMTransition, StochasticEM, ssl_transition
from pyro_ssl.datasets import TokenCorpus, Vocabulary
from pyro_ssl.models import fit_markov

K, H, V, P, SHORTEST, LONGEST = 50, 64, 10_000, 10, 50, 150
MACHINES = 8


def main() -> None:
    """Print each part, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=float, default=1e8)
    parser.add_argument("--steps", type=int, default=5, help="of stochastic EM, after a first one")
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="for corpus and paths; by default a new one")
    parser.add_argument("--start", action="store_true", help="give all texts a path of the HMM")
    parser.add_argument("--results", type=Path, default=RESULTS / "large.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, options.folder or Path(folder))
    settings = {"K": K, "H": H, "V": V, "P": P, "lengths": [SHORTEST, LONGEST]}
    key = f"{int(options.tokens):,} words, batches of {options.batch_size}"
    key += ", all paths from the HMM" * options.start
    Results(options.results, settings).add(key, found)


def measure(o: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Build, open, and learn; return the figures by name."""
    found: dict[str, float] = {}
    clock, cpu_clock = time.perf_counter(), time.process_time()

    def tell(part: str, name: str) -> float:
        nonlocal clock, cpu_clock
        seconds, clock = time.perf_counter() - clock, time.perf_counter()
        cpu, cpu_clock = time.process_time() - cpu_clock, time.process_time()
        found[f"{name}: seconds"], found[f"{name}: CPU seconds"] = round(seconds, 2), round(cpu, 2)
        found[f"{name}: peak GB"] = peak()
        print(f"{part}: {seconds:.1f} s ({cpu:.1f} of CPU), peak {peak():.2f} GB", flush=True)
        return seconds

    torch.manual_seed(0)
    tell("imported", "import")
    words = Vocabulary(["<unk>", *(f"w{v}" for v in range(1, V))])
    if not (folder / "corpus").exists():
        TokenCorpus.from_ids(folder / "corpus", texts(int(o.tokens)), words)
    tell("corpus built", "build")
    corpus = TokenCorpus.open(folder / "corpus")
    size = sum(file.stat().st_size for file in (folder / "corpus").iterdir()) / 1e9
    found |= {"words": corpus.num_tokens, "texts": len(corpus), "corpus GB": round(size, 3)}
    tell(f"{corpus} opened, {size:.2f} GB on disk", "open")

    transition = LSTMTransition(K, H)

    def model(index: torch.Tensor) -> None:
        pyro.module("transition", transition)
        batch = corpus.batch(index)
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), 0.1)).to_event(1))
        with pyro.plate("texts", len(corpus), subsample=index):
            for t, z in ssl_transition("z", transition, len(batch.words), lengths=batch.lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=batch.words[t])

    def in_memory(words: torch.Tensor, lengths: torch.Tensor | None = None) -> None:
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), 0.1)).to_event(1))
        with pyro.plate("texts", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words), lengths=lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    sample = corpus.batch(torch.randperm(len(corpus))[:2000])
    hmm = fit_markov(in_memory, sample.words, sample.lengths, num_steps=3, num_starts=1)
    tell("HMM of 2,000 texts", "HMM")
    optim = pyro.optim.Adam({"lr": 0.01})
    em = StochasticEM(model, optim, P, averaging=0.9, draw_dirichlet=True, paths_folder=folder)
    if o.start:
        order = corpus.lengths.argsort(stable=True)  # of one length each
        batches = [(index,) for index in order.split(o.batch_size)]
        em.start_from(hmm.for_model(model), batches=batches, transition_steps=0)
        tell("paths of all texts drawn from it", "start")
    batches = corpus.batches(o.batch_size, seed=0)[: o.steps + 1]
    em.step(batches[0])
    tell("first step of stochastic EM", "first step")
    for index in batches[1:]:
        em.step(index)
    seconds = tell(f"{len(batches) - 1} more", "steps")
    learned = int(sum(corpus.lengths[index].sum() for index in batches[1:]))
    rate = learned / seconds
    epoch = corpus.num_tokens / rate / MACHINES
    sent = 4 * (K * V + sum(p.numel() for p in transition.parameters())) / 1e6
    found["words a CPU second"] = round(learned / found["steps: CPU seconds"])
    found |= {"words a second": round(rate), "hours an epoch, 8 machines": round(epoch / 3600, 2)}
    found |= {"MB sent in a step": round(sent, 2), "threads": torch.get_num_threads()}
    print(
        f"{rate:,.0f} words a second on {torch.get_num_threads()} threads; an epoch on {MACHINES} "
        f"machines {epoch / 3600:.2f} hours, {sent:.1f} MB sent in a step; peak {peak():.2f} GB"
    )
    return found


def texts(num_tokens: int) -> Iterator[np.ndarray]:
    """Draw texts of so many words in all, ids 0 to V - 1."""
    draw = np.random.default_rng(0)
    cdf = np.cumsum(1.0 / np.arange(1, V + 1))
    while num_tokens > 0:
        lengths = draw.integers(SHORTEST, LONGEST + 1, 10_000)
        ids = np.searchsorted(cdf, draw.random(lengths.sum()) * cdf[-1])
        for row in np.split(ids, np.cumsum(lengths)[:-1]):
            yield row[:num_tokens]
            num_tokens -= len(row)
            if num_tokens <= 0:
                return


def peak() -> float:
    """Return the largest resident memory so far, in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)


if __name__ == "__main__":
    os.environ.setdefault("CI", "1")  # no progress bars
    main()
