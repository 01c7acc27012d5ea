"""What several benchmarks need."""

import statistics
from collections.abc import Callable, Mapping

import torch

from pyro_ssl.bench import machine, ratios_of, timed

__all__ = ["mean_sd", "print_ratios", "timed"]


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
    found = ratios_of(floor, work, rounds, device)
    print(machine(device))
    print(f"{title}: {statistics.median(found.seconds) * 1e3:.1f} ms")
    for name, values in found.by_job.items():
        low, high = min(values), max(values)
        print(f"{name:<42} {found.median(name):6.2f} x  ({low:.2f} to {high:.2f})")
