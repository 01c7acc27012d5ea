"""What a sweep costs on this machine, in units of ``torch.nn.LSTM``'s forward over its particles.

    python -m pyro_ssl.bench
    python -m pyro_ssl.bench --threads 2 --states 200 --particles 5
    python -m pyro_ssl.bench --exponents

Each job of a row is run in turn with the others, and the median of the rounds' ratios is printed:
machines are shared, and a ratio within one round stands what a time does not.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import kernels
from .smc import MarkovSurrogate, TableEmission, conditional_smc
from .transitions import LSTMTransition, MultiplicativeLSTMTransition, Transition

__all__ = ["Ratios", "machine", "ratios_of", "timed"]


class Ratios(NamedTuple):
    """Times of jobs over that of a floor, round by round, and the floor's seconds."""

    seconds: list[float]
    by_job: dict[str, list[float]]

    def median(self, job: str) -> float:
        """The median of a job's ratios."""
        return statistics.median(self.by_job[job])


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that one call takes, including the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratios_of(
    floor: Callable[[], object],
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
) -> Ratios:
    """Run all in turn, once to warm up and then for so many rounds."""
    for job in (floor, *jobs.values()):
        timed(job, device)
    found = Ratios([], {name: [] for name in jobs})
    for _ in range(rounds):
        found.seconds.append(timed(floor, device))
        for name, job in jobs.items():
            found.by_job[name].append(timed(job, device) / found.seconds[-1])
    return found


def machine(device: torch.device) -> str:
    """Name the processor, torch, its threads, and how sweeps run."""
    name, listing = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif listing.exists():
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{name}, {capability}, torch {torch.__version__}, {torch.get_num_threads()} thread(s); "
        f"{kernels.available(device)}"
    )


def sweeps(B: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The sweeps that are measured, of B sequences."""
    T, K, H, P = options.steps, options.states, options.hidden, options.particles
    device = torch.device(options.device)
    table = TableEmission(torch.randn(T, B, K, device=device))
    chain = 0.5 * torch.eye(K, device=device) + 0.5 / K
    surrogate = MarkovSurrogate(chain)

    def sweep(transition: Transition, **how: object) -> Callable[[], object]:
        transition = transition.to(device)
        path = conditional_smc(transition, table, P).path
        return lambda: conditional_smc(transition, table, P, path, **how)  # type: ignore[arg-type]

    def by_torch(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with kernels.turned_off():
                work()

        return run

    lstm, mlstm = LSTMTransition(K, H), MultiplicativeLSTMTransition(K, H)
    plain, reference = sweep(lstm), conditional_smc(lstm, table, P).path

    def twisted() -> object:  # its messages included
        return conditional_smc(lstm, table, P, reference, twist=surrogate.twist(table))

    found: dict[str, Callable[[], object]] = {
        "plain": plain,
        "ancestor sampling": sweep(lstm, ancestor_sampling=10),
        "twisted": twisted,
        "mLSTM": sweep(mlstm),
    }
    if kernels.available(device):
        found |= {f"{n}, by torch": by_torch(found[n]) for n in ("plain", "ancestor sampling")}
    return found


def row(B: int, options: argparse.Namespace) -> str:
    """One line of the table."""
    device, H = torch.device(options.device), options.hidden
    lstm = torch.nn.LSTM(H, H).to(device)
    inputs = torch.randn(options.steps, B * options.particles, H, device=device)

    @torch.no_grad()
    def floor() -> Tensor:
        return lstm(inputs)[0]

    found = ratios_of(floor, sweeps(B, options), options.rounds, device)
    seconds = statistics.median(found.seconds)
    words = B * options.steps / (seconds * found.median("plain"))
    ratios = " ".join(f"{found.median(name):>{len(name)}.2f}" for name in found.by_job)
    return f"{B:>5} {seconds * 1e3:>9.1f} {ratios} {words:>12,.0f}"


def exponents(options: argparse.Namespace) -> str:
    """How time grows with each size: log2 of what it takes at twice the size."""
    device, sizes = torch.device(options.device), ("steps", "states", "hidden", "particles")
    B = max(options.batches)

    def plain(B: int, **others: int) -> Callable[[], object]:
        return sweeps(B, argparse.Namespace(**vars(options) | others))["plain"]

    twice = {name: plain(B, **{name: 2 * getattr(options, name)}) for name in sizes}
    found = ratios_of(plain(B), {"batch": plain(2 * B), **twice}, options.rounds, device)
    return ", ".join(f"{name} {math.log2(found.median(name)):.2f}" for name in found.by_job)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse and print.

    :param argv: by default the arguments of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pyro_ssl.bench", description=(__doc__ or "").splitlines()[0]
    )
    sizes = {"states": 50, "hidden": 64, "particles": 10, "steps": 100, "rounds": 9, "threads": 1}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--exponents", action="store_true", help="how time grows with each size")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(machine(torch.device(options.device)))
    if options.exponents:
        print(f"time grows with a power of each size: {exponents(options)}")
        return
    print(
        f"T = {options.steps}, K = {options.states}, H = {options.hidden}, "
        f"P = {options.particles}; sweeps over nn.LSTM's forward, medians of {options.rounds}"
    )
    print(f"{'B':>5} {'LSTM, ms':>9} {' '.join(sweeps(1, options))} {'tokens/s':>12}")
    for B in options.batches:
        print(row(B, options), flush=True)


if __name__ == "__main__":
    main()
