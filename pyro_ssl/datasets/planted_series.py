r"""Series of which it is known which variables matter, and at which lag.

Variables :math:`x^n_t` are independent, each a first-order autoregression of unit variance, and

.. math::
    y_t = \sum_i w_i\, f_i\bigl(x^{n_i}_{t - l_i}\bigr) + \text{noise}

depends on a few of them alone; or y_t follows one of them at a time, drawn anew at every step, so
that the importance of each is known as a number. The past of y is no input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .arguments import generator, integer, real, several
from .series import TimeSeries

__all__ = ["PlantedVariables", "planted_variables"]


class PlantedVariables(NamedTuple):
    """The series, and the truth about it.

    ``variables`` are the places of those that matter among the inputs, and ``lags`` how many steps
    before the target each does: in a window of T steps, lag l is step T - l, counted from 0.
    ``shares`` are how often y follows each, where it follows one at a time.
    """

    series: TimeSeries
    variables: tuple[int, ...]
    lags: tuple[int, ...]
    shares: tuple[float, ...] | None


def planted_variables(
    num_rows: int = 3000,
    num_variables: int = 10,
    *,
    lags: Sequence[int] = (2, 5),
    weights: Sequence[float] = (1.0, 1.0),
    noise: float = 0.3,
    autocorrelation: float = 0.0,
    nonlinear: bool = False,
    shares: Sequence[float] | None = None,
    seed: int = 0,
) -> PlantedVariables:
    """Draw a series in which a few variables matter, each at one lag.

    :param int num_rows: Steps.
    :param int num_variables: N.
    :param lags: l_i, 1 or more, of each variable that matters; which variables these are is drawn.
    :param weights: w_i.
    :param float noise: Standard deviation of the noise in y.
    :param float autocorrelation: Of each variable with itself a step before, in [0, 1). The larger,
        the less can be told which of two neighbouring lags matters.
    :param bool nonlinear: Let f_i be (x² - 1) / √2 instead of x, which has no linear trace.
    :param shares: Probabilities that y_t follows each of the variables that matter, with no part of
        the others; by default it is their sum.
    :param int seed: Of all draws, which have a generator of their own.
    :raises ValueError: if the arguments do not fit one another.

    **Example**::

        >>> from pyro_ssl.datasets import make_windows, planted_variables
        >>> data = planted_variables(500, lags=(3, 1), seed=1)
        >>> parts = make_windows(data.series, window=8)
        >>> x, y = parts.train.x, parts.train.y[:, 0]
        >>> x.shape[1:], len(data.variables)
        (torch.Size([8, 10]), 2)
        >>> n = data.variables[0]
        >>> correlation = torch.corrcoef(torch.stack([*x[:, :, n].T, y]))[-1, :-1]
        >>> int(correlation.argmax())                              # T - l = 8 - 3
        5
    """
    caller = "planted_variables"
    num_rows = integer(num_rows, "num_rows", caller)
    num_variables = integer(num_variables, "num_variables", caller)
    noise = real(noise, "noise", caller)
    autocorrelation = real(autocorrelation, "autocorrelation", caller)
    lags = tuple(integer(lag, "lags", caller, least=None) for lag in several(lags))
    weights = tuple(real(weight, "weights", caller) for weight in several(weights))
    if shares is not None:
        shares = tuple(real(share, "shares", caller) for share in several(shares))
    draw = generator(seed, caller)
    if not len(lags) == len(weights) <= num_variables or any(lag < 1 for lag in lags):
        raise ValueError(
            f"planted_variables: found lags={lags} and weights={weights} for {num_variables} "
            "variables, expected as many weights as lags, no more than variables, and lags of 1 or "
            "more. Write planted_variables(lags=(2, 5), weights=(1.0, 1.0))."
        )
    if not 0.0 <= autocorrelation < 1.0 or noise < 0.0 or num_rows <= max(lags, default=0):
        raise ValueError(
            f"planted_variables: found autocorrelation={autocorrelation}, noise={noise} and "
            f"num_rows={num_rows}, expected one in [0, 1), one of 0 or more, and more rows than "
            "the longest lag."
        )
    if shares is not None and (
        len(shares) != len(lags) or min(shares, default=0.0) < 0.0 or not sum(shares)
    ):
        raise ValueError(
            f"planted_variables: found shares={shares} for lags={lags}, expected a "
            "probability for each lag. Write shares=(0.6, 0.4)."
        )
    dtype = torch.get_default_dtype()
    true = torch.randperm(num_variables, generator=draw, device="cpu")[: len(lags)].tolist()
    fresh = torch.randn(num_rows, num_variables, generator=draw, device="cpu", dtype=dtype)
    x = [fresh[0]]
    for shock in fresh[1:]:
        x.append(autocorrelation * x[-1] + math.sqrt(1.0 - autocorrelation**2) * shock)
    rows = torch.stack(x)
    y = noise * torch.randn(num_rows, generator=draw, device="cpu", dtype=dtype)
    y[: max(lags, default=0)] = math.nan  # what they would depend on was not drawn
    followed = None
    if shares is not None:
        probs = torch.tensor(shares, device="cpu", dtype=dtype)
        followed = torch.multinomial(probs, num_rows, replacement=True, generator=draw)
    for i, (n, lag, weight) in enumerate(zip(true, lags, weights, strict=True)):
        effect = (rows[:, n].square() - 1.0) / math.sqrt(2.0) if nonlinear else rows[:, n]
        counts = 1.0 if followed is None else (followed[lag:] == i).to(dtype)
        y[lag:] += counts * weight * effect[:-lag]
    names = tuple(f"x{n}" for n in range(num_variables))
    values = torch.cat([rows, y.unsqueeze(-1)], -1)
    series = TimeSeries("planted variables", (*names, "y"), (values,), names, ("y",))
    return PlantedVariables(series, tuple(true), lags, shares)
