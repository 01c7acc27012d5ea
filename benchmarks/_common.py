"""What several benchmarks need."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that one call takes, including the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def mean_sd(values: list[float], digits: int) -> str:
    """``mean ± sd``; the mean alone for a single value, or if all are the same."""
    text = f"{statistics.fmean(values):,.{digits}f}"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{text} ± {spread:.{digits}f}" if spread else text


def print_ratios(
    title: str,
    floor: Callable[[], object],
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
) -> None:
    """Run all in turn, and print the time of each job in units of the floor: median and range."""
    for job in (floor, *work.values()):
        timed(job, device)  # warm up
    ratios: dict[str, list[float]] = {name: [] for name in work}
    seconds: list[float] = []
    for _ in range(rounds):
        seconds.append(timed(floor, device))
        for name, job in work.items():
            ratios[name].append(timed(job, device) / seconds[-1])
    print(f"{title}: {statistics.median(seconds) * 1e3:.1f} ms")
    for name, values in ratios.items():
        low, high = min(values), max(values)
        print(f"{name:<42} {statistics.median(values):6.2f} x  ({low:.2f} to {high:.2f})")
