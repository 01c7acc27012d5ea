"""Do runs that last grow, or slow down?

    python -m benchmarks.soak [--minutes 60] [--kinds em gibbs ...] [--results soak.json]
    taskset -c 0 python -m benchmarks.soak --at-once 6

Each kind of run goes on for so many minutes in a process of its own, on one thread, so many of them
at once:

- ``em``: stochastic EM on minibatches, saved after every 50 steps;
- ``gibbs``: particle Gibbs with ``keep="occupancy"``;
- ``filter``: perplexities by a particle filter;
- ``markov``: epochs of exact EM for the HMM;
- ``fits``: fits of a topical SSL, one after the other, each with checkpoints;
- ``stream``: documents that come, a few at a time and each time of another length: EM learns from
  them, and a particle filter scores them.

Three hundred times the resident memory is read, and the steps so far are counted. What waits to be
freed is freed before: cycles of objects, which Python collects when there are many (a fitted
``TopicalSSL`` and its HMM refer to each other), and what malloc keeps of freed memory, up to 64 MiB
in glibc. After the first fifth, in which caches fill, a line is fitted to memory, and to steps in
units of a fixed piece of work (an LSTM's forward and backward pass) that is timed at each reading,
in CPU seconds of the process, since the machine may do something else too; the median of nine
neighbours is the unit. ``growth`` and ``drift`` are the line's rise from the first end to the last,
in percent of the mean, drift with its standard error.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from pyro.optim import Adam

from benchmarks._results import RESULTS, Results
from pyro_ssl import MarkovEM, ParticleFilter, ParticleGibbs, StochasticEM, TopicalSSL

T, B, K, V, H, BATCH = 50, 200, 10, 500, 32, 50
SAMPLES, WARM_UP, SAVE_EVERY = 300, 0.2, 50

#: called after every step; it ends the run
Tick = Callable[..., None]


def documents(num: int = B, length: int = T) -> torch.Tensor:
    """Return words ``(T, B)`` of topics that follow one another."""
    topic = torch.randint(K, (length, num)).cummax(0).values
    return topic * (V // K) + torch.randint(V // K, (length, num))


def fitted(words: torch.Tensor) -> TopicalSSL:
    """Return a model that has seen a little."""
    ssl = TopicalSSL(K, V, hidden_size=H)
    ssl.fit(words, num_epochs=1, markov_steps=5, markov_starts=1, disable_progbar=True)
    return ssl


def em(tick: Tick) -> None:
    """Take steps of stochastic EM."""
    words, ssl, num = documents(), TopicalSSL(K, V, hidden_size=H), 0
    fit = StochasticEM(ssl.model, Adam({"lr": 0.01}), 10, draw_dirichlet=True)
    with tempfile.TemporaryDirectory() as folder:
        while True:
            for index in torch.randperm(B).split(BATCH):
                fit.step(words, None, index)
                num += 1
                if num % SAVE_EVERY == 0:
                    fit.save(folder)
                tick()


def gibbs(tick: Tick) -> None:
    """Draw paths, and count their states."""
    words = documents()
    how: dict[str, Any] = {"keep": "occupancy", "num_samples": 10**9, "disable_progbar": True}
    ParticleGibbs(fitted(words).fitted_model).run(words, hook_fn=tick, **how)


def filters(tick: Tick) -> None:
    """Score documents."""
    words = documents()
    scores = ParticleFilter(fitted(words).fitted_model, 20)
    while True:
        scores.perplexity(words)
        tick()


def markov(tick: Tick) -> None:
    """Fit an HMM."""
    words, hmm = documents(), MarkovEM(TopicalSSL(K, V, hidden_size=H).model)
    while True:
        hmm.epoch([(words, None, index) for index in torch.arange(B).split(BATCH)])
        tick()


def fits(tick: Tick) -> None:
    """Fit models, with checkpoints."""
    words = documents()
    how: dict[str, Any] = {"markov_steps": 5, "markov_starts": 1, "batch_size": BATCH}
    while True:
        with tempfile.TemporaryDirectory() as folder:
            ssl = TopicalSSL(K, V, hidden_size=H)
            how |= {"num_epochs": 2, "checkpoint": folder, "disable_progbar": True}
            ssl.fit(words, valid=(words[:, :BATCH],), num_valid_particles=5, **how)
        tick()


def stream(tick: Tick) -> None:
    """Learn from documents that come."""
    ssl = TopicalSSL(K, V, hidden_size=H)
    fit = StochasticEM(ssl.model, Adam({"lr": 0.01}), 10, averaging=0.9)
    while True:
        words = documents(20, int(torch.randint(T // 2, T, ())))
        fit.step(words)
        ParticleFilter(fit.fitted_model, 20).log_likelihood(words)
        tick()


KINDS = {"em": em, "gibbs": gibbs, "filter": filters, "markov": markov, "fits": fits}
KINDS |= {"stream": stream}


def sampled(kind: str, seconds: float) -> dict[str, list[float]]:
    """Run for so many seconds; return times, memory in MiB and steps at each sample."""
    found: dict[str, list[float]] = {
        name: [] for name in ("seconds", "CPU seconds", "MiB", "steps", "unit")
    }
    num, began, spent = 0, time.perf_counter(), 0.0

    def tick(*_: Any) -> None:
        nonlocal num, spent
        num, now = num + 1, time.perf_counter() - began
        if now >= (len(found["steps"]) + 1) * seconds / SAMPLES:
            own, memory = time.process_time() - spent, resident()
            unit = work()
            spent += unit
            for name, value in zip(found, (now, own, memory, num, unit), strict=True):
                found[name].append(value)
        if len(found["steps"]) == SAMPLES or now > seconds:
            raise KeyboardInterrupt

    try:
        KINDS[kind](tick)
    except KeyboardInterrupt:
        pass
    return found


def work() -> float:
    """Do a fixed piece of work; return its CPU seconds."""
    began = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lstm, x = torch.nn.LSTM(K, H), torch.randn(T, BATCH, K)
        for _ in range(60):  # small ones: they leave the memory as it was
            lstm(x)[0].square().sum().backward()
    return time.process_time() - began


def resident() -> float:
    """Return the resident memory of this process, in MiB, without what waits to be freed."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def local_median(values: torch.Tensor, width: int = 9) -> torch.Tensor:
    """Return the median of so many neighbours of each value."""
    ends = values[:1].expand(width // 2), values[-1:].expand(width // 2)
    return torch.cat([ends[0], values, ends[1]]).unfold(0, width, 1).median(-1).values


def rise(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return how much a line through y rises over x, in percent of y, and its standard error."""
    x, square = x - x.mean(), (x - x.mean()).square().sum()
    slope = (x * (y - y.mean())).sum() / square
    error = ((y - y.mean() - slope * x).square().sum() / (len(x) - 2) / square).sqrt()
    percent = 100.0 * (x[-1] - x[0]) / y.mean()
    return float(percent * slope), float(percent * error)


def summary(samples: dict[str, list[float]]) -> dict[str, Any]:
    """Return growth and drift, in percent, and what they are of, at each reading."""
    first = int(WARM_UP * len(samples["steps"]))
    seconds, cpu, memory, steps, unit = (
        torch.tensor(v[first:], dtype=torch.float64) for v in samples.values()
    )
    if len(seconds) < 10:
        raise SystemExit(f"found {samples['steps']} steps, expected more of them: write --minutes")
    rate = steps.diff() / (cpu.diff() / local_median(unit)[1:])
    drift, error = rise(seconds[1:], rate)
    return {
        "minutes": round(samples["seconds"][-1] / 60, 1),
        "steps": samples["steps"][-1],
        "MiB": round(float(memory.mean()), 1),
        "growth": round(rise(seconds, memory)[0], 3),
        "steps per unit": round(float(rate.mean()), 3),
        "drift": round(drift, 2),
        "error of drift": round(error, 2),
        "readings": [round(r, 3) for r in rate.tolist()],
    }


def main() -> None:
    """Print a row for each kind, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--results", type=Path, default=RESULTS / "soak.json")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--alone", choices=list(KINDS), help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.alone:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        warnings.simplefilter("ignore")
        print(json.dumps(sampled(o.alone, 60.0 * o.minutes)))
        return
    sizes = {"T": T, "B": B, "K": K, "V": V, "H": H}
    results = Results(o.results, {"minutes": o.minutes, "at once": o.at_once, **sizes})

    def run(kind: str) -> Any:
        if kind in results:
            return results.runs[kind]
        command = [sys.executable, "-m", "benchmarks.soak", "--alone", kind]
        command += ["--minutes", str(o.minutes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return summary(json.loads(done.stdout.splitlines()[-1]))

    with ThreadPoolExecutor(o.at_once) as pool:
        for kind, row in zip(o.kinds, pool.map(run, o.kinds), strict=True):
            if kind not in results:
                results.add(kind, row)
            rate = f"{row['steps per unit']:.2f} steps per unit"
            print(
                f"{kind:<8}{row['steps']:>9,} steps, {row['MiB']:7.1f} MiB, "
                f"growth {row['growth']:+.2f} %, {rate}, drift {row['drift']:+.1f} % "
                f"(s.e. {row['error of drift']:.1f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
