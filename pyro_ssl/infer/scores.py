"""From log-likelihoods of steps to one score."""

from __future__ import annotations

from torch import Tensor

from ..reading.program import ModelRun

__all__ = ["perplexity"]


def perplexity(run: ModelRun, log_likelihood: Tensor, start: int) -> float:
    """Return exp(-mean log p(x_t | x_{1:t-1})) over the observed cells from step ``start`` on.

    :param Tensor log_likelihood: ``(T,) + batch_shape``.
    :param int start: from 0 to T - 1.
    :raises ValueError: if ``start`` is out of range, or no cell is left to score.
    """
    name, T = run.loop.name, run.loop.num_steps
    if not 0 <= start < T:
        raise ValueError(
            f'Site "{name}": scores from start={start}, expected 0 to T - 1 = {T - 1}.'
        )
    observed = run.grid.observed()[start:]
    if not bool(observed.any()):
        raise ValueError(
            f'Site "{name}": no step from start={start} on was observed in any of '
            f"{run.num_sequences} sequences, expected one at least; write start=0, or leave "
            "sequences out that are shorter."
        )
    log_p = log_likelihood.reshape(T, -1)[start:][observed].double()
    return float((-log_p.mean()).exp())
