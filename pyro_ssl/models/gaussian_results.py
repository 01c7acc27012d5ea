"""What a Gaussian SSL finds: where a path is, where it goes, and what a sensor would have seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import check_level
from .frames import Labels, to_tables, unnamed

__all__ = ["GaussianForecast", "Imputed", "Scores", "Simulated", "Tracked"]

#: share of the draws that are beyond the fit, from which a forecast extrapolates
BEYOND = 0.25


class _Band(NamedTuple):
    mean: Tensor
    scale: Tensor


class Tracked(_Band):
    """``mean`` and ``scale`` (standard deviation) of E[x_t | z_t], each ``(T, B, E)``.

    That is C z_t + b, and with ``autoregressive`` what x_{t-1} adds to it; of flags how probable
    they are, and of counts the rate. An observation there varies more: of Gaussian noise its
    variance is R's diagonal more than ``scale`` squared.
    """

    #: mean and standard deviation of z_t, each ``(T, B, D)``; ``None`` where it was made by hand
    latents: tuple[Tensor, Tensor] | None = None
    labels: Labels | None = None

    @classmethod
    def of_paths(
        cls,
        moved: Tensor,
        offset: Tensor,
        z: Tensor | None = None,
        labels: Labels | None = None,
        weights: Tensor | None = None,
    ) -> Tracked:
        """Return where draws of E[x_t | z_t], ``(S, T, B, E)``, less an offset, are.

        One alone has the scale 0; ``weights`` ``(S, T, B, 1)``, if they differ, are of mean 1.
        """
        mean, scale = _moments(moved, weights)
        found = cls(mean + offset, scale)
        if z is not None:
            found.latents = _moments(z, weights)
        found.labels = labels
        return found

    def sensor(self, name: str) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of one sensor, each ``(T, B)``."""
        e = _place(self.labels, name, self.mean.shape[-1])
        return self.mean[..., e], self.scale[..., e]

    def to_frame(self) -> Any:
        """Return a DataFrame of columns (sensor or latent, "mean" or "scale"); a list of several.

        Needs pandas: ``pip install pyro-ssl[pandas]``.
        """
        parts = [(_labels(self.labels, self.mean), self.mean, self.scale)]
        if self.latents is not None:
            names = tuple(f"z{d}" for d in range(self.latents[0].shape[-1]))
            parts.append((Labels(names), *self.latents))

        def columns(b: int, T: int) -> dict[Any, Tensor]:
            return {
                (name, kind): value[:T, b, e]
                for labels, *values in parts
                for e, name in enumerate(labels.sensors)
                for kind, value in zip(("mean", "scale"), values, strict=True)
            }

        return to_tables(columns, parts[0][0], *self.mean.shape[:2])


class _Forecast(NamedTuple):
    samples: Tensor
    mean: Tensor
    covariance: Tensor


class GaussianForecast(_Forecast):
    """Later observations: draws, ``samples`` ``(P, S, B, E)``, and their ``mean`` ``(S, B, E)``.

    ``covariance`` ``(S, B, E, E)`` is that of E[x_t | z_t], the path without the noise: of
    C z_t + b, of the probabilities of flags, of the rates of counts. With ``autoregressive`` the
    noise of a step moves the steps after it, and is part of theirs.
    """

    #: draws of z, ``(P, S, B, D)``
    latents: Tensor | None = None
    #: G (x_{t-1} - m) of the draws, ``(P, S, B, E)``, where all series end at one step
    shift: Tensor | None = None
    #: share of the draws that are where no latent of the fit was, ``(S, B)``
    outside: Tensor | None = None
    labels: Labels | None = None

    @classmethod
    def of_paths(
        cls, moved: Tensor, offset: Tensor, samples: Tensor, z: Tensor | None = None
    ) -> GaussianForecast:
        """Return that of draws of E[x_t | z_t], less an offset, and x_t, ``(P, S, B, E)``."""
        mean = moved.mean(0)
        away = moved - mean
        covariance = torch.einsum("psbe,psbf->sbef", away, away) / len(away)
        found = cls(samples, mean + offset, covariance)
        found.latents = z
        return found

    @classmethod
    def together(
        cls, each: list[tuple[Tensor, GaussianForecast]], labels: Labels | None
    ) -> GaussianForecast:
        """Return forecasts of some series each, ``(index, forecast)``, as one."""
        place = torch.cat([index for index, _ in each]).argsort()
        named = each[0][1].outside is not None
        parts = [(*one, one.latents, *([one.outside] if named else [])) for _, one in each]
        dims = (2, 1, 1, 2, 1)[: 4 + named]  # of the series
        whole = [
            torch.cat(values, dim).index_select(dim, place)
            for values, dim in zip(zip(*parts, strict=True), dims, strict=True)
        ]
        found = cls(*whole[:3])
        found.latents, found.labels = whole[3], labels
        found.outside = whole[4] if named else None
        return found

    @property
    def extrapolates(self) -> Tensor:
        """Where a quarter of the draws is where no latent of the fit was, bool ``(S, B)``.

        Of the fit's own draws that is one in a hundred. Intervals there rest on the form of the
        transition alone: do not count on their level. Fits from other seeds differ there;
        :meth:`pooled` takes them together.
        """
        if self.outside is None:
            raise RuntimeError(
                "extrapolates: the forecast is of a model that does not know where its latents "
                "were; fit it anew, by ssl.fit(x)."
            )
        return self.outside > BEYOND

    @classmethod
    def pooled(cls, forecasts: Sequence[GaussianForecast]) -> GaussianForecast:
        """Return the mixture of the forecasts of several fits, with the fits' differences in it.

        A single fit knows nothing of how sure its own parameters are.

        :param forecasts: of the same steps, each of as many draws.
        :raises ValueError: if they are of other shapes.
        """
        shapes = {tuple(one.samples.shape) for one in forecasts}
        if len(shapes) != 1:
            raise ValueError(
                f"GaussianForecast.pooled: found forecasts of shapes {sorted(shapes)}, expected "
                "one or more of one shape; write pooled([ssl.forecast(x, S) for ssl in fits])."
            )
        mean = torch.stack([one.mean for one in forecasts])
        away = mean - mean.mean(0)
        covariance = torch.stack([one.covariance for one in forecasts]).mean(0)
        covariance = covariance + torch.einsum("nsbe,nsbf->sbef", away, away) / len(away)
        found = cls(torch.cat([one.samples for one in forecasts]), mean.mean(0), covariance)
        known = [one.outside for one in forecasts if one.outside is not None]
        found.outside = torch.stack(known).mean(0) if len(known) == len(forecasts) else None
        found.labels = forecasts[0].labels
        return found

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval, each ``(S, B, E)``."""
        return _interval(self.samples, level)

    def sensor(self, name: str) -> Tensor:
        """Return the draws of one sensor, ``(P, S, B)``."""
        return self.samples[..., _place(self.labels, name, self.mean.shape[-1])]

    def to_frame(self, level: float = 0.9) -> Any:
        """Return a DataFrame of columns (sensor, "mean", "low" or "high"); a list of several.

        Its index goes on from that of the data. Needs pandas: ``pip install pyro-ssl[pandas]``.
        """
        labels = _labels(self.labels, self.mean)
        low, high = self.interval(level)
        ends = {"mean": self.mean, "low": low, "high": high}

        def columns(b: int, T: int) -> dict[Any, Tensor]:
            return {
                (name, kind): value[:T, b, e]
                for e, name in enumerate(labels.sensors)
                for kind, value in ends.items()
            }

        return to_tables(columns, labels, *self.mean.shape[:2])


class Imputed(NamedTuple):
    """``x`` ``(T, B, E)`` with its holes filled, and ``samples`` ``(S, T, B, E)`` of all of it.

    What was observed is in all samples as it was, a hole of x holds their mean, and past a series'
    length all is NaN. Where data were tables, :meth:`to_frame` returns x as such.
    """

    x: Tensor
    samples: Tensor
    labels: Labels | None = None

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval, each ``(T, B, E)``."""
        return _interval(self.samples, level)

    def to_frame(self) -> Any:
        """Return x as a DataFrame with a column for each sensor; a list of several."""
        labels = _labels(self.labels, self.x)

        def columns(b: int, T: int) -> dict[Any, Tensor]:
            return {name: self.x[:T, b, e] for e, name in enumerate(labels.sensors)}

        return to_tables(columns, labels, *self.x.shape[:2])


class Simulated(NamedTuple):
    """Series that a model makes: ``x`` ``(T, B, E)``, and the path ``z`` ``(T, B, D)``."""

    x: Tensor
    z: Tensor
    labels: Labels | None = None

    def to_frame(self) -> Any:
        """Return x as a DataFrame with a column for each sensor; a list of several."""
        return Imputed(self.x, self.x, self.labels).to_frame()


class Scores(NamedTuple):
    """How good forecasts are, by step ahead and sensor, each ``(S, E)``; NaN where none was seen.

    ``log_score`` is the mean log-density of an observation in nats, of flags and counts their
    log-probability, ``crps`` the continuous ranked probability score, in units of the sensor, lower
    is better, ``rmse`` the error of the mean, and ``coverage`` the share of observations within the
    central intervals of ``level``; of ``num_observed`` of them.
    """

    log_score: Tensor
    crps: Tensor
    rmse: Tensor
    coverage: Tensor
    num_observed: Tensor
    level: float = 0.9
    labels: Labels | None = None

    def to_frame(self) -> Any:
        """Return a DataFrame of columns (sensor, score), a row for each step ahead.

        Needs pandas: ``pip install pyro-ssl[pandas]``.
        """
        names = _labels(self.labels, self.crps).sensors
        scores = {name: getattr(self, name) for name in self._fields[:5]}

        def columns(b: int, T: int) -> dict[Any, Tensor]:
            return {
                (sensor, score): value[:, e]
                for e, sensor in enumerate(names)
                for score, value in scores.items()
            }

        ahead = Labels(names, (range(1, len(self.crps) + 1),))
        return to_tables(columns, ahead, len(self.crps), 1)


def _moments(draws: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of draws."""
    if weights is None:
        return draws.mean(0), draws.std(0, correction=min(1, len(draws) - 1))
    mean = (weights * draws).mean(0).to(draws)
    return mean, (weights * (draws - mean).square()).mean(0).sqrt().to(draws)


def _interval(samples: Tensor, level: float) -> tuple[Tensor, Tensor]:
    check_level("interval", level)
    tail = (1.0 - level) / 2.0
    return samples.quantile(tail, 0), samples.quantile(1.0 - tail, 0)


def _labels(labels: Labels | None, values: Tensor) -> Labels:
    return labels if labels is not None else Labels(unnamed(values.shape[-1]))


def _place(labels: Labels | None, name: str, num_sensors: int) -> int:
    names = unnamed(num_sensors) if labels is None else labels.sensors
    if name not in names:
        raise KeyError(f"no sensor is named {name!r}, expected one of {list(names)}")
    return names.index(name)
