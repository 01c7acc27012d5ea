"""What several benchmarks need."""

import statistics
import time
from collections.abc import Callable

import torch


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that one call takes, to the end of the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def mean_sd(values: list[float], digits: int) -> str:
    """``mean ± sd``; the mean alone where the values are one or all the same."""
    text = f"{statistics.fmean(values):,.{digits}f}"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{text} ± {spread:.{digits}f}" if spread else text
