"""Methods of ``sensors.py``: each is fitted once, forecasts, and fills holes where it can.

A forecast and a filled series are ``(mean, low, high, crps)``, the last three ``None`` where a
method has points alone. All data are ``(T, B, E)``, in standard deviations of the training data.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_ssl import GaussianSSL
from pyro_ssl.exact import LinearGaussianEM, kalman_filter, kalman_smoother
from pyro_ssl.models import crps

__all__ = ["METHODS", "Split"]

Z90 = 1.6448536269514722
ORDER = 4  # of the VAR


class Split(NamedTuple):
    """Windows to learn from, to choose by, and to test on, ``(T, B, E)`` each."""

    train: Tensor
    valid: Tensor
    test: Tensor


def carried(x: Tensor) -> Tensor:
    """Fill holes by the last value seen, and 0 before the first."""
    filled = x.clone()
    filled[0] = torch.where(x[0].isnan(), 0.0, x[0])
    for t in range(1, len(x)):
        filled[t] = torch.where(x[t].isnan(), filled[t - 1], x[t])
    return filled


def gaussian(mean: Tensor, sd: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
    """Mean, central 90 % interval and CRPS of independent Gaussians."""
    normal = torch.distributions.Normal(0.0, 1.0, validate_args=False)
    z = (truth - mean) / sd
    score = sd * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - math.pi**-0.5)
    return mean, mean - Z90 * sd, mean + Z90 * sd, score


class Persistence:
    """The last value seen, for ever; holes by linear interpolation, a dead sensor by its mean."""

    def __init__(self, data: Split, dim: int, seed: int) -> None:
        pass

    def forecast(self, past: Tensor, truth: Tensor) -> tuple[Any, ...]:
        """Return the last values."""
        return carried(past)[-1].expand_as(truth), None, None, None

    def impute(self, x: Tensor, truth: Tensor) -> tuple[Any, ...]:
        """Interpolate between the values before and after."""
        before, after = carried(x), carried(x.flip(0)).flip(0)
        steps = torch.arange(len(x), dtype=x.dtype).view(-1, 1, 1).expand_as(x)
        known = torch.where(x.isnan(), torch.nan, steps)
        last, following = carried(known - 1e9) + 1e9, carried(known.flip(0)).flip(0)
        width = (following - last).clamp(min=1.0)
        share = ((steps - last) / width).clamp(0.0, 1.0)
        return before + share * (after - before), None, None, None


class VectorAutoregression:
    """Ridge VAR of order 4, the ridge chosen by one-step errors of the validation windows."""

    def __init__(self, data: Split, dim: int, seed: int) -> None:
        fits = [self._fit(data.train, ridge) for ridge in (1e-3, 1e-1, 1.0, 10.0, 100.0)]
        valid = carried(data.valid)
        errors = []
        for weight in fits:
            found = self._design(valid) @ weight
            errors.append(float((found - data.valid[ORDER:]).square().nanmean()))
        self.weight = fits[errors.index(min(errors))]

    @staticmethod
    def _design(x: Tensor) -> Tensor:
        """[x_{t-1}, ..., x_{t-4}, 1] of steps 4 to T - 1."""
        lags = [x[ORDER - k : len(x) - k] for k in range(1, ORDER + 1)]
        return torch.cat([*lags, torch.ones_like(lags[0][..., :1])], -1)

    def _fit(self, x: Tensor, ridge: float) -> Tensor:
        design, target = self._design(carried(x)).flatten(0, 1), x[ORDER:].flatten(0, 1)
        whole = target.isfinite().all(-1)
        design, target = design[whole], target[whole]
        gram = design.T @ design + ridge * torch.eye(design.shape[1])
        return torch.linalg.solve(gram, design.T @ target)

    def forecast(self, past: Tensor, truth: Tensor) -> tuple[Any, ...]:
        """Iterate."""
        x = list(carried(past)[-ORDER:])
        for _ in range(len(truth)):
            one = torch.ones_like(x[0][..., :1])
            x.append(torch.cat([*x[: -ORDER - 1 : -1], one], -1) @ self.weight)
        return torch.stack(x[ORDER:]), None, None, None


class Arima:
    """An ARIMA of each sensor alone, its orders chosen on each window: ``statsforecast``."""

    def __init__(self, data: Split, dim: int, seed: int) -> None:
        pass

    def forecast(self, past: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        """Fit each sensor of each window by itself; return its Gaussian forecast."""
        from statsforecast.models import AutoARIMA

        mean, high = torch.empty_like(truth), torch.empty_like(truth)
        for b in range(past.shape[1]):
            for e, y in enumerate(carried(past[:, b]).T):
                found = AutoARIMA().forecast(y.numpy(), h=len(truth), level=[90])
                mean[:, b, e] = torch.as_tensor(found["mean"])
                high[:, b, e] = torch.as_tensor(found["hi-90"])
        return gaussian(mean, ((high - mean) / Z90).clamp(min=1e-6), truth)


class Recurrent:
    """An LSTM of 64 units that predicts the next increment; iterated, from its own predictions."""

    def __init__(self, data: Split, dim: int, seed: int) -> None:
        torch.manual_seed(seed)
        E = data.train.shape[-1]
        self.lstm, self.head = nn.LSTM(E, 64), nn.Linear(64, E)
        parameters = [*self.lstm.parameters(), *self.head.parameters()]
        optim = torch.optim.AdamW(parameters, 3e-3, weight_decay=1e-3)
        train, best, kept = carried(data.train), math.inf, []
        for _ in range(150):
            for index in torch.randperm(train.shape[1]).split(16):
                optim.zero_grad()
                self._loss(train[:, index], data.train[:, index]).backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optim.step()
            with torch.no_grad():
                score = float(self._loss(carried(data.valid), data.valid))
            if score < best:
                best, kept = score, [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)

    def _loss(self, x: Tensor, truth: Tensor) -> Tensor:
        h, _ = self.lstm(x[:-1])
        there = ~truth[1:].isnan()
        return (x[:-1] + self.head(h) - truth[1:])[there].square().mean()

    @torch.no_grad()
    def forecast(self, past: Tensor, truth: Tensor) -> tuple[Any, ...]:
        """Iterate."""
        x = carried(past)
        h, state = self.lstm(x)
        now, found = x[-1:] + self.head(h[-1:]), []
        for _ in range(len(truth)):
            found.append(now)
            h, state = self.lstm(now, state)
            now = now + self.head(h)
        return torch.cat(found), None, None, None


class Linear:
    """Exact EM of a linear-Gaussian model of D latents."""

    def __init__(self, data: Split, dim: int, seed: int) -> None:
        self.em = LinearGaussianEM(dim)
        self.em.fit(data.train, num_steps=100, disable_progbar=True)

    def forecast(self, past: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        """Filter on."""
        x = torch.cat([past, torch.full_like(truth, torch.nan)])
        found = kalman_filter(self.em.transition, self.em.emission, x)
        return self._places(found.mean[len(past) :], found.covariance[len(past) :], truth)

    def impute(self, x: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        """Smooth."""
        found = kalman_smoother(self.em.transition, self.em.emission, x)
        return self._places(found.mean, found.covariance, truth)

    def _places(self, mean: Tensor, covariance: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        C, d, R = self.em.emission
        spread = (C @ covariance @ C.mT).diagonal(dim1=-2, dim2=-1) + R.diagonal()
        return gaussian(mean @ C.mT + d, spread.sqrt(), truth)


class SSL:
    """The Gaussian SSL that starts as the linear model of as many latents."""

    autoregressive = False

    def __init__(self, data: Split, dim: int, seed: int) -> None:
        torch.manual_seed(seed)
        # In single precision its sweeps run compiled.
        how: dict[str, Any] = {"linear": True, "noise": "diagonal"}
        how["autoregressive"] = self.autoregressive
        self.ssl = GaussianSSL(dim, hidden_size=32, **how).float()
        self.ssl.fit(
            data.train.float(),
            valid=(data.valid.float(), None),
            num_epochs=40,
            num_paths=2,
            disable_progbar=True,
        )

    def forecast(self, past: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        """Roll particles out."""
        found = self.ssl.forecast(past.float(), len(truth), num_particles=500)
        return _of_samples(found.samples, found.mean, found.interval(0.9), truth)

    def calibrate(self, data: Split) -> None:
        """Learn how sure filled gaps are, by hiding some of what the fit has seen."""
        short = len(data.train) - len(data.valid)
        valid = nn.functional.pad(data.valid, (0, 0, 0, 0, 0, short), value=torch.nan)
        x = torch.cat([data.train, valid], 1).float()
        self.ssl.calibrate(x, num_particles=10)

    def impute(self, x: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        """Particle Gibbs."""
        how = {"num_samples": 50, "warmup_steps": 20, "num_particles": 10}
        found = self.ssl.impute(x.float(), **how)
        return _of_samples(found.samples, found.x, found.interval(0.9), truth)


class AutoregressiveSSL(SSL):
    """The same, with an emission that reads the sensors a step ago."""

    autoregressive = True


def _of_samples(
    samples: Tensor, mean: Tensor, ends: tuple[Tensor, Tensor], truth: Tensor
) -> tuple[Tensor, ...]:
    return mean, *ends, crps(samples, truth)


METHODS: dict[str, tuple[str, Any]] = {
    "persistence": ("persistence, interpolation", Persistence),
    "var": ("ridge VAR(4)", VectorAutoregression),
    "arima": ("ARIMA of each sensor", Arima),
    "lstm": ("LSTM, H=64", Recurrent),
    "linear": ("linear-Gaussian EM", Linear),
    "ssl": ("Gaussian SSL", SSL),
    "ssl_ar": ("Gaussian SSL, autoregressive", AutoregressiveSSL),
}
