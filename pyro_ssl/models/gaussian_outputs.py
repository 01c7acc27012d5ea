"""What a fitted Gaussian SSL says of sensors: what holes held, what may come, how good that is.

Next file to read: ``gaussian_starts.py``, from where a fit starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import at_least, check_level
from ..reading.context import all_or_nothing
from ..transitions import PathDistribution
from .frames import inputs_from_tables
from .gaussian_data import Series, take_inputs
from .gaussian_forecasting import Forecaster
from .gaussian_gaps import factors_of, hidden_gaps, misses, num_rounds, rows_of, stretched
from .gaussian_results import Imputed, Scores, Simulated
from .settings import checked

__all__ = ["Outputs", "crps"]


class Outputs(Forecaster):
    """A tracker that fills holes, makes series, and scores its forecasts."""

    @checked
    @torch.no_grad()
    def impute(
        self,
        x: Any,
        lengths: Any = None,
        *,
        mask: Any = None,
        inputs: Any = None,
        num_samples: int = 100,
        warmup_steps: int = 20,
        num_chains: int = 4,
        num_particles: int = 20,
    ) -> Imputed:
        """Return the data with holes filled: by their mean given all that was observed.

        Paths are drawn by particle Gibbs, and along each what the sensors would have seen. Where a
        sensor is silent for long, intervals are too narrow until :meth:`calibrate` was called.

        Example::

            >>> from pyro_ssl import GaussianSSL
            >>> x = torch.randn(30, 1, 4).cumsum(0)
            >>> x[10:20, :, 2] = torch.nan
            >>> ssl = GaussianSSL(dim=2, hidden_size=4, linear=True, noise="diagonal")
            >>> history = ssl.fit(x, num_epochs=2, linear_steps=5, disable_progbar=True)
            >>> found = ssl.impute(x, num_samples=10, warmup_steps=2)
            >>> found.x.isfinite().all(), found.interval(0.9)[0].shape
            (tensor(True), torch.Size([30, 1, 4]))
        """
        data = self._take("impute", x, lengths, mask, inputs)
        how = {"num_samples": num_samples, "warmup_steps": warmup_steps}
        samples = self._filled(data, num_particles, num_chains, **how)
        samples = stretched(samples, data.seen, self.gap_factors)
        within = data.within.unsqueeze(-1)
        filled = torch.where(data.seen, data.x, samples.mean(0))
        return Imputed(
            torch.where(within, filled, torch.nan),
            torch.where(within, samples, torch.nan),
            data.labels,
        )

    @checked
    @torch.no_grad()
    def calibrate(
        self,
        x: Any,
        lengths: Any = None,
        *,
        mask: Any = None,
        inputs: Any = None,
        level: float = 0.9,
        num_samples: int = 50,
        warmup_steps: int = 20,
        num_chains: int = 4,
        num_particles: int = 20,
    ) -> Tensor:
        """Find how far intervals of filled gaps are to be stretched, by hiding what is known.

        In each series one sensor is hidden wholly, and a gap of random length in each of the
        others; each sensor has its turn. :meth:`impute` then stretches what it draws about its
        mean, by sensor and by the distance to its nearest observation, so that central intervals of
        ``level`` hold as often as they say on series like these: better those of validation, if
        they are many, than those of the fit. A new fit forgets it; :meth:`save` keeps it.

        :returns: the factors, float64 ``(11, E)``: rows are distances of 1, 2 to 3, 4 to 7, ...,
            512 steps and more, and sensors that a series has not at all. What 50 hidden numbers do
            not speak for is as in all sensors together, or as at the next shorter distance.
        :raises ValueError: of flags and counts, whose draws cannot be stretched, or if ``level`` is
            no probability, or there is one draw alone.
        """
        check_level("GaussianSSL.calibrate", level, "calibrate(x, level=0.9)")
        if not at_least(2, num_samples):
            raise ValueError(
                f"GaussianSSL.calibrate: num_samples is {num_samples}, expected an integer from 2, "
                "for an interval to have two ends; write num_samples=50."
            )
        if not self.family.located:
            raise ValueError(
                f'GaussianSSL.calibrate: emission is "{self.config["emission"]}", of which draws '
                'cannot be stretched, expected "gaussian" or "student_t"; write impute(x), without '
                "calibrate."
            )
        data = self._take("calibrate", x, lengths, mask, inputs)
        how = {"num_samples": num_samples, "warmup_steps": warmup_steps}
        E = data.x.shape[2]
        sensor = torch.arange(E, device=data.x.device).expand(data.x.shape)
        found: list[list[Tensor]] = []
        for turn in range(num_rounds(data.x.shape[1], E)):
            hidden = hidden_gaps(data.ends, tuple(data.x.shape), turn) & data.seen
            rest = data._replace(mask=data.seen & ~hidden)
            samples = self._filled(rest, num_particles, num_chains, **how)
            score = misses(data.x, samples, Imputed(data.x, samples).interval(level))
            found.append([each[hidden] for each in (score, rows_of(rest.seen), sensor)])
        score, row, sensor = (torch.cat(each) for each in zip(*found, strict=True))
        factors = factors_of(score, row, sensor, E, level)
        self.gap_factors = factors.to(self.emission.offset)
        return factors

    def _filled(self, data: Series, num_particles: int, num_chains: int, **how: int) -> Tensor:
        """Draws of all sensors given what was observed, ``(S, T, B, E)``."""
        z, whole = self._drawn(data, num_particles, num_chains, **how)  # (S, T, B, D)
        if whole is not None:
            return whole
        moved, offset = self._moved(z, data)
        covariance = self.emission.covariance
        if self.family.gaussian:
            return _seen_or_drawn(data, moved + offset, covariance)
        drawn = self.family.sample(moved, offset, covariance)  # independent given the path
        return torch.where(data.seen, data.x, drawn)

    @checked
    @torch.no_grad()
    def simulate(self, num_steps: int, num_series: int = 1, *, inputs: Any = None) -> Simulated:
        """Draw series from the model, as if none had been observed.

        :param inputs: u, ``(num_steps, num_series, U)``, or ``(num_steps, U)`` for all of them.
        """
        emission = self.emission
        size = num_steps, num_series, self.transition.input_size
        like = self.transition.like
        u = take_inputs("GaussianSSL.simulate", inputs_from_tables(inputs), like, size)
        u = self._standard_inputs(u)
        paths = PathDistribution(
            self.transition,
            num_steps,
            inputs=None if u is None else u.transpose(0, 1),
            batch_shape=(num_series,),
        )
        z = paths.sample().transpose(0, 1)
        moved, offset = self._moved(z)
        x = self.family.sample(moved + offset, torch.zeros_like(offset), emission.covariance)
        draws = (x - offset).unsqueeze(0)
        shift = self._shift_of_draws(draws, offset, torch.zeros_like(draws[:, 0]))
        if shift is not None:
            x = x + shift.squeeze(0)
        return Simulated(x, z, self._labels())

    @checked
    @all_or_nothing
    @torch.no_grad()
    def score(
        self,
        x: Any,
        horizon: int,
        lengths: Any = None,
        *,
        mask: Any = None,
        inputs: Any = None,
        start: int = 1,
        every: int | None = None,
        level: float = 0.9,
        num_particles: int = 500,
    ) -> Scores:
        """Forecast from several steps of each series, and compare with what came.

        With ``autoregressive``, each forecast of series in which something is missing before it
        takes nearly as long as :meth:`smooth`: a larger ``every`` makes fewer of them.

        :param int horizon: S, steps of each forecast.
        :param int start: the first forecast is of step ``start`` on, given those before it.
        :param int every: steps from one forecast to the next; by default ``horizon``.
        :raises ValueError: if no forecast has an observation to be compared with.
        """
        check_level("GaussianSSL.score", level, "score(x, horizon, level=0.9)")
        data = self._take("score", x, lengths, mask, inputs)
        totals = torch.zeros(5, horizon, data.x.shape[2], dtype=torch.double, device=data.x.device)
        for end, which in _origins(data, start, every or horizon, horizon):
            past = data.select(which, end, horizon)._replace(lengths=None, labels=None)
            forecast = self._forecast_from(past, end, horizon, num_particles)
            later = data.select(which, end + horizon)
            truth, there = later.x[end:], later.seen[end:]
            assert forecast.latents is not None
            C, b, R = self.emission
            eta = forecast.latents @ C.T + b
            eta = eta if forecast.shift is None else eta + forecast.shift
            log_p = self.family.log_prob(truth, eta, R)
            low, high = forecast.interval(level)
            values = torch.stack(
                [
                    log_p.logsumexp(0) - math.log(num_particles),
                    crps(forecast.samples, truth),
                    (forecast.mean - truth).square(),
                    ((low <= truth) & (truth <= high)).to(truth),
                    torch.ones_like(truth),
                ]
            )
            totals += torch.where(there, values, 0.0).sum(2).double()
        if not bool((totals[4] > 0).any()):
            raise ValueError(
                f"GaussianSSL.score: nothing was observed in {horizon} steps from step {start} on, "
                f"expected longer series; write start=1, or a horizon below {horizon}."
            )
        log_score, score, square, inside, count = totals.unbind()
        parts = (log_score / count, score / count, (square / count).sqrt(), inside / count, count)
        return Scores(*parts, level, data.labels)


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score of draws ``(P, ...)``: ``E|X - x| - ½ E|X - X'|``.

    Example::

        >>> float(crps(torch.tensor([0.0, 2.0]), torch.tensor(0.0)))
        0.5
    """
    P = len(samples)
    ordered = samples.sort(0).values
    rank = torch.arange(1, P + 1, dtype=samples.dtype, device=samples.device)
    weight = ((2.0 * rank - P - 1.0) / P**2).reshape(-1, *(1 for _ in truth.shape))
    return (samples - truth).abs().mean(0) - (weight * ordered).sum(0)


def _origins(data: Series, start: int, every: int, horizon: int) -> Iterator[tuple[int, Tensor]]:
    """Steps to forecast from, each with the series that are so long."""
    for end in range(max(start, 1), len(data.x) - horizon + 1, every):
        which = (data.ends >= end + horizon).nonzero().squeeze(-1)
        if len(which):
            yield end, which


def _seen_or_drawn(data: Series, place: Tensor, covariance: Tensor) -> Tensor:
    """Data, and where there are none draws about C z + b ``(S, T, B, E)`` given the other sensors.

    With noise e, e_gone given e_there is K e_there and what is left: a fresh draw e' of all, less
    K e'_there.
    """
    there = data.seen
    fresh = dist.MultivariateNormal(torch.zeros_like(place), covariance).sample()
    if bool((covariance == covariance.diagonal().diag()).all()):
        return torch.where(there, data.x, place + fresh)
    away = torch.where(there, data.x - place - fresh, 0.0)  # (S, T, B, E)
    patterns, index = there.flatten(0, 1).unique(dim=0, return_inverse=True)
    index = index.view(there.shape[:2])
    for i, pattern in enumerate(patterns):
        cells, gone = index == i, ~pattern
        if bool(pattern.any()) and bool(gone.any()):
            gain = torch.linalg.solve(covariance[pattern][:, pattern], covariance[pattern][:, gone])
            more = torch.zeros_like(away[:, cells])
            more[..., gone] = away[:, cells][..., pattern] @ gain
            fresh[:, cells] += more
    return torch.where(there, data.x, place + fresh)
