"""Importances from several fits: how much of them is the data's, and how much the seed's.

Next file to read: ``model.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...arguments import check_level, whole
from .model import IMVLSTM

__all__ = ["SeededImportance", "importance_over_seeds"]

_HALVINGS = 100  # of a bracket: below float64's precision


class SeededImportance(NamedTuple):
    """Importances of S fits.

    ``importance`` is ``(S, N)``, or ``(S, N, Y)`` where each target has a variable of its own;
    ``temporal`` ``(S, N, T)``. :func:`~pyro_ssl.plotting.plot_importance` takes the first, and
    :func:`~pyro_ssl.plotting.plot_importance_ahead` that of targets.
    """

    importance: Tensor
    temporal: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean importance, ``(N,)`` or ``(N, Y)``."""
        return self.importance.mean(0)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return an interval of the mean importance over all seeds, by Student's t.

        It is of the seeds alone: other data are not in it.

        :raises ValueError: if there is one seed only, or the level is no probability.
        """
        return _interval(self.importance, level)

    def temporal_interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return an interval of the mean temporal importance, ``(N, T)`` twice."""
        return _interval(self.temporal, level)


def importance_over_seeds(
    fit: Callable[[], IMVLSTM],
    x: Any,
    y: Any = None,
    *,
    mask: Any = None,
    seeds: int | Iterable[int] = 5,
) -> SeededImportance:
    """Fit a model from several seeds, and return the importances that each finds.

    :param fit: makes a model and fits it; called once for each seed, which sets torch's generators.
        They are as they were afterwards.
    :param x: windows to find importances on; these, ``y`` and ``mask`` are those of
        :meth:`IMVLSTM.importance`.
    :param seeds: how many, 0, 1, 2, ..., or which.
    :raises TypeError: if ``fit`` returns something else than an :class:`IMVLSTM`.

    Example::

        >>> x = torch.randn(40, 5, 3)
        >>> def fit():
        ...     model = IMVLSTM(3, units=2)
        ...     model.fit(x, x[:, -1, 0], num_epochs=1, disable_progbar=True)
        ...     return model
        >>> found = importance_over_seeds(fit, x, x[:, -1, 0], seeds=3)
        >>> low, high = found.interval(0.9)
        >>> found.importance.shape, bool((low < found.mean).all() and (found.mean < high).all())
        (torch.Size([3, 3]), True)
    """
    where = "importance_over_seeds"
    if not isinstance(seeds, Iterable):
        seeds = range(whole(where, "seeds", seeds, 1))
    found = []
    for seed in [whole(where, "seeds", seed, 0) for seed in seeds]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = fit()
        if not isinstance(model, IMVLSTM):
            raise TypeError(
                f"{where}: fit returned a {type(model).__name__}, expected the fitted IMVLSTM; "
                "model.fit returns its history: end the function with return model."
            )
        found.append((model.importance(x, y, mask=mask), model.temporal_importance(x, mask=mask)))
    if not found:
        raise ValueError(f"{where}: found no seed, expected one at least; write seeds=5.")
    return SeededImportance(*(torch.stack(values) for values in zip(*found, strict=True)))


def _interval(runs: Tensor, level: float) -> tuple[Tensor, Tensor]:
    check_level("interval", level)
    S = len(runs)
    if S < 2:
        raise ValueError("interval: found one seed, expected 2 or more; write seeds=5.")
    half = _t_quantile(level, S - 1) * runs.std(0) / S**0.5
    return runs.mean(0) - half, runs.mean(0) + half


def _t_quantile(level: float, freedom: int) -> float:
    """Where Student's t ends its central interval, by bisection."""
    low, high = 0.0, 1.0
    while _t_mass(high, freedom) < level:
        high *= 2.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _t_mass(middle, freedom) < level else (low, middle)
    return 0.5 * (low + high)


def _t_mass(t: float, freedom: int) -> float:
    """P(|T| < t) for a whole number of degrees of freedom (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    total *= math.sin(angle)
    return 2.0 / math.pi * (angle + total) if odd else total
