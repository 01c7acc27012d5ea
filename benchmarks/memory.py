"""How much memory does a sweep need at its peak?

    python -m benchmarks.memory
    python -m benchmarks.memory --fit [--path wikitext-2]
    python -m benchmarks.memory --draws 10000 [--keep paths [--draws-folder FOLDER]]

The first: B=2,000 sequences, T=200 steps, P=20 particles, K=100 states, V=5,000 symbols: the user's
model, the emission table, one conditional sweep with ancestor sampling, and the M-step's gradient,
in a process of their own. Also prints the largest tensor that any of it made: one of size
``(T, B, V)`` would take 7.45 GiB.

The second: does a fit of topics grow with the number of documents? B=5,000 documents of T=100
words, K=500 topics, V=10,000 words (of WikiText-2, or drawn uniformly): HMM steps, the start from
it, an epoch of stochastic EM in minibatches of 250, and the perplexity of 500 documents, each with
its seconds and the peak until then. A table ``(T, B, K)`` would take 0.93 GiB, and EM holds eight.

The third: what do draws cost? So many of B=1,000 sequences of T=100 steps (K=10 states, P=2), of
which visits are counted (``keep="occupancy"``), or paths kept, in memory or in a folder: the peak
over what there was after the first two draws, at each tenth of them.
"""

import argparse
import resource
import time
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_ssl import LSTMTransition, ParticleGibbs, StochasticEM, TopicalSSL, ssl_transition
from pyro_ssl.datasets import wikitext2_passages
from pyro_ssl.models import fit_markov

SWEEP = dict(B=2000, T=200, P=20, K=100, V=5000, H=64)
FIT = dict(B=5000, T=100, P=10, K=500, V=10000, H=64)
DRAWS = dict(B=1000, T=100, P=2, K=10, V=50, H=16)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes, self.shape, self.op = 0, torch.Size(), ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                nbytes = tensor.untyped_storage().nbytes()
                if nbytes > self.nbytes:
                    self.nbytes, self.shape, self.op = nbytes, tensor.shape, str(func)
        return out


def main() -> None:
    """Print the peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="a fit of topics, not one sweep")
    parser.add_argument("--draws", type=int, help="of particle Gibbs, not one sweep")
    parser.add_argument("--keep", default="occupancy", choices=["occupancy", "paths"])
    parser.add_argument("--draws-folder")
    for name in SWEEP:
        sizes = f"{SWEEP[name]}; of a fit {FIT[name]}; of draws {DRAWS[name]}"
        parser.add_argument(f"--{name}", type=int, help=sizes)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--path", help="WikiText-2, for --fit; by default uniform words")
    parser.add_argument("--hmm-steps", type=int, default=2)
    parser.add_argument("--transition-steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=250)
    o = parser.parse_args()
    for name, value in (FIT if o.fit else DRAWS if o.draws else SWEEP).items():
        if getattr(o, name) is None:
            setattr(o, name, value)
    torch.manual_seed(0)
    fit(o) if o.fit else draws(o) if o.draws else sweep(o)


def peak() -> float:
    """Return the largest resident memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fit(o: argparse.Namespace) -> None:
    """Print the peak of each part of a fit."""
    words, lengths = torch.randint(o.V, (o.T, o.B)), None
    if o.path:
        data = wikitext2_passages(o.path, passage_length=o.T, vocab_size=o.V).train
        words, lengths = data.words[:, : o.B], data.lengths[: o.B]
    ssl = TopicalSSL(o.K, o.V, hidden_size=o.H).to(o.device)
    words, lengths = words.to(o.device), None if lengths is None else lengths.to(o.device)
    print(f"{words.shape[1]} documents; {peak():.2f} GiB before the first step", flush=True)
    began = time.perf_counter()

    def tell(part: str, times: int = 1) -> None:
        nonlocal began
        seconds, began = time.perf_counter() - began, time.perf_counter()
        print(f"{part}: {seconds / times:.1f} s, peak {peak():.2f} GiB", flush=True)

    how: dict[str, Any] = {"num_steps": o.hmm_steps, "num_starts": 1, "batch_size": o.batch_size}
    hmm = fit_markov(ssl.model, words, lengths, disable_progbar=True, **how)
    tell(f"an HMM step, in batches of {o.batch_size}", o.hmm_steps)
    how = {"num_epochs": 1, "batch_size": o.batch_size, "transition_steps": o.transition_steps}
    ssl.fit(words, lengths, markov=hmm, num_particles=o.P, disable_progbar=True, **how)
    tell(f"start and epoch ({ssl.history[0].seconds:.1f} s of it)")
    few = words[:, :500], None if lengths is None else lengths[:500]
    found = ssl.perplexity(*few)
    tell(f"perplexity of {few[0].shape[1]} documents, {found:.0f}")


def draws(o: argparse.Namespace) -> None:
    """Print how the memory of a run grows with its draws."""
    transition, phi = LSTMTransition(o.K, o.H), torch.rand(o.K, o.V).softmax(-1)
    words = torch.randint(o.V, (o.T, o.B))

    def model(words: torch.Tensor) -> None:
        with pyro.plate("documents", o.B):
            for t, z in ssl_transition("z", transition, o.T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    before, began = 0.0, time.perf_counter()

    def tell(params: dict[str, torch.Tensor], i: int) -> None:
        nonlocal before
        if i == 1:
            before = peak()
        if (i + 1) % max(o.draws // 10, 1) == 0:
            seconds = time.perf_counter() - began
            print(f"{i + 1} draws: {peak() - before:.3f} GiB more, {seconds:.0f} s", flush=True)

    how: dict[str, Any] = {"keep": o.keep, "draws_folder": o.draws_folder}
    pg = ParticleGibbs(model, o.P)
    pg.run(words, num_samples=o.draws, hook_fn=tell, disable_progbar=True, **how)
    print(f"the end: {peak() - before:.3f} GiB more than the {before:.2f} after two draws")


def sweep(o: argparse.Namespace) -> None:
    """Print the peak of one sweep and its M-step, and the largest tensor."""
    device = torch.device(o.device)
    transition = LSTMTransition(o.K, o.H).to(device)
    words = torch.randint(o.V, (o.T, o.B), device=device)

    def model(words: torch.Tensor) -> None:
        pyro.module("transition", transition)
        beta = torch.full((o.K, o.V), 0.1, device=device)
        phi = pyro.sample("phi", dist.Dirichlet(beta).to_event(1))
        with pyro.plate("documents", o.B):
            for t, z in ssl_transition("z", transition, o.T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    em = StochasticEM(model, Adam({"lr": 1e-2}), o.P, dirichlet="mean")
    before = peak()
    start = time.perf_counter()
    with LargestTensor() as largest:
        for _ in range(2):
            em.step(words)
    seconds = (time.perf_counter() - start) / 2
    if device.type == "cuda":
        print(f"peak on the device: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    print(f"peak resident memory {peak():.2f} GiB ({before:.2f} GiB of it before the first step)")
    shape = tuple(largest.shape)
    print(f"largest tensor {largest.nbytes / 2**30:.2f} GiB, {shape} by {largest.op}")
    table = o.T * o.B * o.V * 4 / 2**30
    print(f"(T, B, V) would be {table:.2f} GiB; {seconds:.1f} s per step of stochastic EM")


if __name__ == "__main__":
    main()
