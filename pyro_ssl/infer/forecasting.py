"""Forecasts: particles that stand somewhere, rolled out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import at_least
from ..loop_arguments import check_tensor
from ..reading.program import ModelRun
from ..smc import Emission, Standing
from ..smc.roll_out import roll_on
from .filter_mixture import Forecast

__all__ = ["check_forecast", "forecast"]


def forecast(
    run: ModelRun,
    after: Emission,
    standing: Standing,
    P: int,
    *,
    start: int,
    horizon: int,
    inputs: Tensor | None,
) -> Forecast:
    """Roll particles of equal weight out, and score what was observed.

    :param Emission after: of the steps of the run from ``start`` on, which are scored.
    :param int horizon: steps beyond these.
    :param Tensor inputs: of all steps of the run, and beyond, ``(T + horizon, B, input_size)``.
    """
    shape, num_scored = run.loop.batch_shape, after.shape[0]
    sizes, u = (run.num_sequences, P), None if inputs is None else inputs[start:]
    paths, probs = roll_on(run.transition, standing, num_scored + horizon, sizes, u)
    scored = slice(num_scored)
    log_p = after.log_predictive(paths[scored], None if probs is None else probs[scored])
    log_p = torch.where(run.grid.observed()[start:], log_p, 0.0)
    K = 0 if probs is None else probs.shape[-1]
    time_last = paths.movedim(2, 0).transpose(1, 2)  # (P, B, S, ...)
    return Forecast(
        log_p.reshape(log_p.shape[:1] + shape),
        probs if probs is None else run.paths.marginals(probs.reshape(-1, *shape, K)),
        run.paths.result(time_last.reshape((P,) + shape + time_last.shape[2:])),
    )


def check_forecast(run: ModelRun, start: int, horizon: int, future: Tensor | None) -> Tensor | None:
    """Check what is asked; return the inputs of all steps, ``(T + horizon, B, input_size)``."""
    name, T, wanted = run.loop.name, run.loop.num_steps, run.transition.input_size
    if not at_least(0, start, horizon) or start > T or start == T and not horizon:
        raise ValueError(
            f'Site "{name}": forecast from start={start} with horizon={horizon}, expected '
            f"start from 0 to T = {T} and a step after it; write horizon=10 for as many steps "
            "beyond the data."
        )
    if horizon and run.grid.lengths is not None and bool((run.grid.lengths < T).any()):
        raise ValueError(
            f'Site "{name}": a forecast beyond the data of sequences of {T} steps and fewer, '
            "expected one length; forecast those of each length apart."
        )
    expected = (horizon, run.num_sequences, wanted) if wanted and horizon else None
    check_tensor(name, "future_inputs", future, run.loop.device)
    found = None if future is None else tuple(future.shape)
    fits = found == expected
    if found and expected:
        ends = found[:1] + found[-1:] == (horizon, wanted)
        fits = ends and math.prod(found) == math.prod(expected)
    if not fits:
        raise ValueError(
            f'Site "{name}": future_inputs are {found}, expected {expected}: the exogenous '
            "inputs of the steps beyond the data, time first."
        )
    if future is None or run.inputs is None or expected is None:
        return run.inputs
    if not bool(future.isfinite().all()):
        raise ValueError(f'Site "{name}": future_inputs hold NaN or inf, expected finite numbers.')
    return torch.cat([run.inputs, future.reshape(expected).to(run.inputs)])
