"""Four noisy curves, tracked and forecast: ``python -m pyro_ssl.demo.curves``.

A Gaussian SSL learns each curve of Zheng et al. 2017 (arXiv 1711.11179, section 5.1) from 100 noisy
points, and forecasts the next 40. Drawn are its estimate of the path, given all 100 points, and its
forecast; and the curve itself, which the model never sees.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..arguments import hides_progbar
from ..datasets import CURVES, Curve, noisy_curve
from ..models import GaussianSSL, Tracked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Followed", "follow", "main"]

TRAIN, HORIZON, NOISE = 100, 40, 0.3
_LEVEL = 0.9


class Followed(NamedTuple):
    """One curve, a model's estimates of it, and their errors.

    ``smoothed`` is of the first 100 steps; ``forecast`` is the mean ``(40, 2)`` of the path after
    them, and its covariance ``(40, 2, 2)``; ``scores`` are by the names of the table's columns.
    """

    curve: Curve
    smoothed: Tracked
    forecast: tuple[Tensor, Tensor]
    scores: dict[str, float]


def follow(
    kind: str, seed: int, num_epochs: int, callback: Callable[[str], None] = lambda stage: None
) -> Followed:
    """Fit a model to one curve, smooth and forecast its path, and score both.

    :param callback: called with the name of each stage, with ``"fit"`` after each epoch.
    """
    started = time.perf_counter()
    curve = noisy_curve(kind, TRAIN + HORIZON, noise=NOISE, seed=seed)
    torch.manual_seed(seed)
    ssl = GaussianSSL(dim=2)
    seen = curve.x[:TRAIN]
    ssl.fit(seen, num_epochs=num_epochs, callback=lambda _: callback("fit"), disable_progbar=True)
    callback("smooth")
    smoothed = ssl.smooth(seen, num_samples=50, num_particles=10)
    ahead = ssl.forecast(seen, HORIZON)
    low, high = ahead.interval(_LEVEL)
    later = curve.x[TRAIN:]
    noise = ssl.emission.covariance
    scores = {
        "smoothed": _rmse(smoothed.mean, curve.z[:TRAIN]),
        "filtered": _rmse(ssl.filter(curve.x).mean, curve.z),
        "observed": _rmse(curve.x, curve.z),
        "forecast": _rmse(ahead.mean, curve.z[TRAIN:]),
        "covered": float(((low < later) & (later < high)).double().mean()),
        "beyond": float(ahead.extrapolates.double().mean()),
        "noise": float(noise.diagonal().mean().sqrt()),
        "seconds": time.perf_counter() - started,
    }
    return Followed(curve, smoothed, (ahead.mean[:, 0], ahead.covariance[:, 0]), scores)


def draw(found: dict[str, Followed]) -> Figure:
    """Draw a panel for each curve."""
    from matplotlib.figure import Figure

    from ..plotting import plot_track

    figure = Figure(figsize=(3.5 * len(found), 4.3), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for ax, (kind, one) in zip(panels, found.items(), strict=True):
        plot_track(
            one.curve.x,
            one.smoothed,
            one.forecast,
            truth=one.curve.z,
            level=_LEVEL,
            legend=False,
            ax=ax,
        )
        ax.set_title(kind, size=14)
    named = panels[0].get_legend_handles_labels()
    figure.legend(
        *named, loc="outside lower center", ncols=len(named[0]), frameon=False, fontsize=12
    )
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, print what was measured, and draw.

    :param argv: by default the arguments of the command line.
    """
    o = _parser().parse_args(argv)
    torch.set_num_threads(o.threads)
    started = time.perf_counter()
    found: dict[str, Followed] = {}
    quiet = hides_progbar(None)
    with tqdm(total=len(CURVES) * (o.epochs + 1), unit="epoch", disable=quiet) as bar:

        def told(stage: str) -> None:
            bar.update()
            if stage != "fit":
                bar.set_postfix_str("smoothing")

        for kind in CURVES:
            bar.set_description(kind)
            bar.set_postfix_str("")
            found[kind] = follow(kind, o.seed, o.epochs, told)
    _report(found)
    o.out.parent.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(o.out, dpi=o.dpi)
    print(f"\n{o.out}, after {time.perf_counter() - started:.0f} s")


def _report(found: dict[str, Followed]) -> None:
    print(
        f"Gaussian SSL, D=2, H=32, particle Gibbs with P=10; learned from {TRAIN} points with "
        f"noise of standard deviation {NOISE}.\n"
    )
    columns = list(next(iter(found.values())).scores)
    print(f"{'':<12}" + "".join(f"{name:>10}" for name in columns))
    for kind, one in found.items():
        digits = {"covered": ".0%", "beyond": ".0%", "seconds": ".1f"}
        cells = (f"{one.scores[name]:>10{digits.get(name, '.3f')}}" for name in columns)
        print(f"{kind:<12}" + "".join(cells))
    print(_NOTES)


_NOTES = f"""
The first four are root mean squared errors, per coordinate:
  smoothed  of the path at t <= {TRAIN}, given those points
  filtered  of the path at all t, each given the points up to t
  observed  of the points themselves
  forecast  of the path at the {HORIZON} steps after t = {TRAIN}, given the points up to there
covered     held-out points in the forecast's {_LEVEL:.0%} intervals, which have the noise in
            them; the picture's tubes are of the path, without it
beyond      steps of the forecast at which it extrapolates: a quarter of its draws or more is where
            no latent of the fit was, and its intervals there are not to be relied on
noise       estimate of the noise's standard deviation, {NOISE}
Forecasts differ much from seed to seed: try --seed, or see benchmarks/curves.py for five."""


def _rmse(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).square().mean().sqrt())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyro_ssl.demo.curves",
        description="Track and forecast four noisy curves, and draw them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("curves.png"), help="the picture, by its suffix")
    add("--seed", type=int, default=1, help="of the noise and of the fits")
    add("--epochs", type=int, default=60, help="of each fit")
    add("--dpi", type=int, default=150, help="of the picture")
    # The tensors are small: more threads wait for each other longer than they work.
    add("--threads", type=int, default=1, help="of torch")
    return parser


if __name__ == "__main__":
    main()
