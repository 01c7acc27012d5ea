"""The methods: each learns from a split, and forecasts the test windows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyro_ssl.datasets import WindowedSplit, Windows
from pyro_ssl.models import IMVLSTM, IMVForecast

from .lstm import PlainLSTM, fit_lstm, permutation_importance
from .tasks import Task

__all__ = ["METHODS", "Method"]

LEVEL = 0.9
PERMUTED = 2000  # validation windows, at most, that permutation importances are measured on
STRENGTHS = [10.0**power for power in range(-4, 6)]  # of ridge


class Method(NamedTuple):
    """A row of the table. ``settings`` are those that the run depends on."""

    title: str
    run: Callable[[WindowedSplit, dict[str, Any], int], dict[str, Any]]
    settings: Callable[[Task], dict[str, Any]]
    seeded: bool = True


def persistence(split: WindowedSplit, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Forecast the newest value."""

    def forecast(windows: Windows) -> Tensor:
        assert windows.last is not None
        scaling = split.scaling
        level = torch.zeros_like(windows.last) if scaling.difference else windows.last
        return (level - scaling.target_mean) / scaling.target_scale

    return {"parameters": 0, **_scores(split, forecast)}


def ridge(split: WindowedSplit, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Least squares on the whole window; its strength is chosen in validation."""

    def rows(windows: Windows) -> Tensor:
        flat = windows.x.flatten(1).double()
        return torch.cat([flat, torch.ones_like(flat[:, :1])], -1)

    A, y = rows(split.train), split.train.y.double()
    penalty = torch.ones_like(A[0])
    penalty[-1] = 0.0
    best, lowest = torch.zeros_like(A.T @ y), math.inf
    found = {}
    for strength in STRENGTHS:
        weight = torch.linalg.solve(A.T @ A + strength * torch.diag(penalty), A.T @ y)
        error = float((rows(split.valid) @ weight - split.valid.y).square().mean())
        found[str(strength)] = error
        if error < lowest:
            best, lowest = weight, error
    return {
        "parameters": best.numel(),
        "valid_mse_by_strength": found,
        **_scores(split, lambda windows: (rows(windows) @ best).to(windows.y.dtype)),
    }


def lstm(split: WindowedSplit, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """A plain LSTM, which learns to forecast means alone."""
    pyro.set_rng_seed(seed)
    fit = dict(settings)
    model = PlainLSTM(len(split.names), fit.pop("units"), split.train.y.shape[-1])
    model.to(split.train.x.device)
    history = fit_lstm(model, split.train, split.valid, **fit)

    @torch.no_grad()
    def forecast(windows: Windows) -> Tensor:
        return model(windows.x)

    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **_permuted(model, split.valid),
        **_learning([record["valid_mse"] for record in history], history),
        **_scores(split, forecast),
    }


def imv(split: WindowedSplit, settings: dict[str, Any], seed: int, cell: str) -> dict[str, Any]:
    """An IMV-LSTM; I and T^n are means over the training windows, as the paper defines them."""
    pyro.set_rng_seed(seed)
    fit = dict(settings)
    network = {name: fit.pop(name) for name in ("units", "bound", "dropout")}
    _, num_steps, N = split.train.x.shape
    network["num_steps"] = num_steps if fit.pop("learn_lags") else None
    y = split.test.y
    model = IMVLSTM(N, cell=cell, num_targets=y.shape[-1], **network).to(y.device)
    history = model.fit(split.train, valid=split.valid, disable_progbar=True, **fit)
    forecast, held_out = model.predict(split.test), model.predict(split.valid)
    low, high = forecast.interval(LEVEL)
    scale = split.scaling.target_scale
    return {
        "parameters": model.num_parameters,
        "importance": model.importance(split.train).tolist(),
        "prior_importance": model.predict(split.train).weights.mean(0).tolist(),
        "temporal_importance": model.temporal_importance(split.train).tolist(),
        **_permuted(lambda x: model.predict(x).mean, split.valid),
        **_learning(
            [record.score for record in history],
            [asdict(record) for record in history],
        ),
        **_errors(split, forecast.mean),
        "coverage": _covered(forecast, y),
        "valid_coverage": _covered(held_out, split.valid.y),
        "width": float(((high - low) * scale).mean()),
        "log_score": float(forecast.log_prob(y).mean() - scale.log().sum()),
    }


def _covered(forecast: IMVForecast, y: Tensor) -> float:
    """The share of y inside the intervals."""
    low, high = forecast.interval(LEVEL)
    return float(((y >= low) & (y <= high)).double().mean())


def _permuted(forecast: Callable[[Tensor], Tensor], valid: Windows) -> dict[str, Any]:
    """Growth of the error if a variable, or one step of it, is taken from another window."""
    few = valid.select(slice(None, None, -(-valid.num_windows // PERMUTED)))
    by_step = permutation_importance(forecast, few, by_step=True, num_draws=1)
    return {
        "permutation": permutation_importance(forecast, few).tolist(),
        "step_permutation": by_step.tolist(),
    }


def _scores(split: WindowedSplit, forecast: Callable[[Windows], Tensor]) -> dict[str, float]:
    """Errors of point forecasts, with a normal distribution as wide as they erred in validation."""
    mean = forecast(split.test)
    spread = (forecast(split.valid) - split.valid.y).square().mean(0).sqrt()
    normal = torch.distributions.Normal(mean, spread)
    half = spread * normal.icdf(torch.full_like(mean, 0.5 + LEVEL / 2.0)).sub(mean).div(spread)
    scale = split.scaling.target_scale
    return {
        **_errors(split, mean),
        "coverage": float(((split.test.y - mean).abs() <= half).double().mean()),
        "width": float((2.0 * half * scale).mean()),
        "log_score": float(normal.log_prob(split.test.y).sum(-1).mean() - scale.log().sum()),
    }


def _errors(split: WindowedSplit, mean: Tensor) -> dict[str, float]:
    """Errors in the data's unit; for changes as for levels, since the level added back cancels."""
    error = ((mean - split.test.y) * split.scaling.target_scale).double()
    mse = float(error.square().mean())
    return {"mse": mse, "rmse": math.sqrt(mse), "mae": float(error.abs().mean())}


def _learning(scores: list[float], history: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "valid_score": scores,
        "kept_epoch": 1 + min(range(len(scores)), key=scores.__getitem__),
        "seconds_per_epoch": statistics.fmean(record["seconds"] for record in history),
    }


METHODS = {
    "persistence": Method("persistence", persistence, lambda task: {}, seeded=False),
    "ridge": Method("ridge on the window", ridge, lambda task: {}, seeded=False),
    "lstm": Method("LSTM", lstm, lambda task: task.lstm),
    "imv_full": Method(
        "IMV-LSTM, full", lambda *args: imv(*args, cell="full"), lambda task: task.imv | task.full
    ),
    "imv_tensor": Method(
        "IMV-LSTM, tensor", lambda *args: imv(*args, cell="tensor"), lambda task: task.imv
    ),
}
