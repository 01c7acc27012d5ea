"""Many sensors of one process: which model forecasts them, and which fills their holes?

    python -m benchmarks.sensors --sml2010 FOLDER --pm25 FILE [--results FILE] [--seeds 3]

SML2010 (a house's 15 sensors, each quarter of an hour) and Beijing PM2.5 (fine dust and six
variables of the weather, each hour, 5 % of the dust missing). Of each piece of the data the first
70 % are to learn from, 10 % to choose by, and the last 20 % to be tested on, in windows: 200 steps
to learn from; to be tested on 150 steps, and the 50 after them. All in standard deviations of the
training data. D latents for both models with latents: 8 of SML2010, 5 of PM2.5.

* Forecasts: RMSE at 1 and at 50 steps; of the methods with a distribution its CRPS and the share of
  90 % intervals that hold.
* Holes: test windows of 200 steps in which a fifth of the numbers is hidden, and one sensor wholly,
  another one in each window. RMSE and CRPS of both, and the share of 90 % intervals that hold; of
  the SSL also after it was calibrated on the windows to learn from and to choose by.

Mean ± sd over seeds, of the fit; persistence, VAR, ARIMA and EM have none. ARIMA is by
``statsforecast`` (``make bench-forecasters``), and left out where it is not there.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.datasets import load_beijing_pm25, load_sml2010

from ._common import mean_sd
from ._results import Results, parser_of, shown
from ._sensors_methods import METHODS, Split

PAST, HORIZON, TRAIN = 150, 50, 200
DIMS = {"sml2010": 8, "pm25": 5}
WINDOWS = {"sml2010": (100, 25), "pm25": (600, 400)}  # steps between those of training and test
SETTINGS = {"past": PAST, "horizon": HORIZON, "train": TRAIN, "dims": DIMS, "windows": WINDOWS}
COLUMNS = {
    **{f"rmse_{n}": (f"RMSE, {n} step{'s' * (n > 1)}", 3) for n in (1, HORIZON)},
    **{f"crps_{n}": (f"CRPS, {n}", 3) for n in (1, HORIZON)},
    **{f"coverage_{n}": (f"in 90 %, {n}", 2) for n in (1, HORIZON)},
    **{"holes_rmse": ("holes, RMSE", 3), "holes_crps": ("CRPS", 3)},
    **{"holes_coverage": ("in 90 %", 2), "holes_calibrated_coverage": ("calibrated", 2)},
    **{"sensor_rmse": ("a sensor out, RMSE", 3), "sensor_crps": ("CRPS", 3)},
    **{"sensor_coverage": ("in 90 %", 2), "sensor_calibrated_coverage": ("calibrated", 2)},
    "seconds": ("seconds", 0),
}


def windows(x: Tensor, length: int, every: int) -> Tensor:
    """Cut ``(N, E)`` into ``(length, B, E)``."""
    starts = range(0, len(x) - length + 1, every)
    return torch.stack([x[i : i + length] for i in starts], 1)


def split_of(name: str, path: Path) -> Split:
    """Read one data set; return its windows."""
    series = load_sml2010(path) if name == "sml2010" else load_beijing_pm25(path)
    pieces = [p if name == "sml2010" else p[:, :7] for p in series.pieces]
    ends = [(int(0.7 * len(p)), int(0.8 * len(p))) for p in pieces]
    learned = torch.cat([p[:a] for p, (a, _) in zip(pieces, ends, strict=True)])
    mean = learned.nanmean(0)
    sd = (learned - mean).square().nanmean(0).sqrt()
    parts: list[list[Tensor]] = [[], [], []]
    every, test_every = WINDOWS[name]
    for piece, (a, b) in zip(pieces, ends, strict=True):
        y = (piece - mean) / sd
        parts[0].append(windows(y[:a], TRAIN, every))
        parts[1].append(windows(y[a:b], min(TRAIN, b - a), max(every // 2, 1)))
        parts[2].append(windows(y[b:], PAST + HORIZON, test_every))
    shortest = min(len(part) for part in parts[1])
    parts[1] = [part[:shortest] for part in parts[1]]
    return Split(*(torch.cat(part, 1).double() for part in parts))


def run(data: Split, method: str, dim: int, seed: int) -> dict[str, Any]:
    """Fit one method, and measure it."""
    torch.manual_seed(seed)
    started = time.perf_counter()
    fitted = METHODS[method][1](data, dim, seed)
    found: dict[str, Any] = {"seconds": time.perf_counter() - started}
    past, truth = data.test[:PAST], data.test[PAST:]
    values = fitted.forecast(past, truth)
    for n in (1, HORIZON):
        at = [None if value is None else value[n - 1] for value in values]
        found |= _scores(at, truth[n - 1], f"_{n}", "")
    if hasattr(fitted, "impute"):
        found |= _filled(fitted, data.test, seed, "")
    if hasattr(fitted, "calibrate"):
        fitted.calibrate(data)
        found |= _filled(fitted, data.test, seed, "calibrated_")
    return found


def _filled(fitted: Any, test: Tensor, seed: int, how: str) -> dict[str, float]:
    """Score what is filled in, of holes and of sensors that are out."""
    hidden, holes, out = spoiled(test, seed)
    filled, found = fitted.impute(hidden, test), {}
    for name, which in (("holes", holes), ("sensor", out)):
        some = [None if value is None else value[which] for value in filled]
        found |= _scores(some, test[which], "", f"{name}_{how}")
    return found


def spoiled(x: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hide a fifth of the numbers, and a sensor of each window; return where."""
    generator = torch.Generator().manual_seed(seed)
    T, B, E = x.shape
    out = torch.zeros(T, B, E, dtype=torch.bool)
    out[:, torch.arange(B), torch.arange(B) % E] = True
    holes = (torch.rand(T, B, E, generator=generator) < 0.2) & ~out
    return x.masked_fill(holes | out, torch.nan), holes, out


def _scores(values: list[Any], truth: Tensor, after: str, before: str) -> dict[str, float]:
    mean, low, high, crps = values
    there = ~truth.isnan()
    found = {f"{before}rmse{after}": float((mean - truth)[there].square().mean().sqrt())}
    if crps is not None:
        found[f"{before}crps{after}"] = float(crps[there].mean())
        inside = ((low <= truth) & (truth <= high))[there]
        found[f"{before}coverage{after}"] = float(inside.double().mean())
    return found


def report(results: Results) -> None:
    """Print a table for each data set."""
    for name in DIMS:
        keys = [key for key in results.runs if key.startswith(f"{name}/")]
        if not keys:
            continue
        print(f"\n{name}\n| | {' | '.join(title for title, _ in COLUMNS.values())} |")
        print("|---" * (1 + len(COLUMNS)) + "|")
        for method, (title, _) in METHODS.items():
            runs = [results.runs[key] for key in keys if key.split("/")[1] == method]
            if not runs:
                continue
            cells = [
                mean_sd([run[column] for run in runs], digits) if column in runs[0] else ""
                for column, (_, digits) in COLUMNS.items()
            ]
            print(f"| {title} | {' | '.join(cells)} |")


def main() -> None:
    """Run what is not done yet; print the tables."""
    parser = parser_of("sensors", __doc__, seeds=3)
    parser.add_argument("--sml2010", type=Path, help="folder of the data; left out without it")
    parser.add_argument("--pm25", type=Path, help="file or folder of the data")
    there = [name for name in METHODS if name != "arima" or find_spec("statsforecast")]
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=there)
    o = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    results = Results(o.results, SETTINGS)
    data = {n: split_of(n, path) for n in DIMS if (path := getattr(o, n)) is not None}
    learned = ("lstm", "ssl", "ssl_ar")
    jobs = [
        (name, method, seed)
        for name in data
        for seed in range(o.seeds)
        for method in o.methods
        if seed == 0 or method in learned
    ]
    for name, method, seed in shown(jobs):
        key = f"{name}/{method}/{seed}"
        if key not in results:
            results.add(key, run(data[name], method, DIMS[name], seed))
    report(results)


if __name__ == "__main__":
    main()
