"""How far off filled gaps are, found by hiding what is known.

The intervals of a filled gap are those of the model. Sensors do not follow one another quite as a
model with few latents has it, the less the longer a sensor is silent: where none of it was seen,
its intervals rest on the others alone, and are too narrow. How much too narrow, data tell of which
some numbers are hidden: an interval is stretched by the factor at which it would have held as often
as it says, which depends on the sensor and on how far the nearest observation of it is.

*Reference*: conformal prediction by groups, Vovk, Gammerman & Shafer, "Algorithmic Learning in a
Random World", 2005, section 4.5; scores relative to the interval, Romano, Patterson & Candès,
"Conformalized quantile regression", 2019. Steps of a series are no independent draws, so the level
is that of series alike, not guaranteed.

Next file to read: ``gaussian_outputs.py``, which fills gaps.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ROWS", "factors_of", "hidden_gaps", "misses", "num_rounds", "rows_of", "stretched"]

#: rows of the factors: distances 1, 2 to 3, 4 to 7, ..., 512 and more, and never observed
ROWS = 11
#: numbers that a row has to have of a sensor, to speak for it alone
LEAST = 50
#: least and largest factor
NARROWEST, WIDEST = 0.2, 20.0


def rows_of(seen: Tensor) -> Tensor:
    """Return the row of each cell by its distance to the nearest observation, ``(T, B, E)``.

    Example::

        >>> seen = torch.tensor([True, False, False, False]).view(4, 1, 1)
        >>> rows_of(torch.cat([seen, torch.zeros_like(seen)], -1)).squeeze(1).T
        tensor([[ 0,  0,  1,  1],
                [10, 10, 10, 10]])
    """
    steps = torch.arange(len(seen), device=seen.device, dtype=torch.double).view(-1, 1, 1)
    last = torch.where(seen, steps, -torch.inf).cummax(0).values
    following = torch.where(seen, -steps, -torch.inf).flip(0).cummax(0).values.flip(0)
    distance = torch.minimum(steps - last, following.neg() - steps)
    row = distance.clamp(min=1.0).log2().floor().clamp(max=ROWS - 2)
    return torch.where(distance.isinf(), ROWS - 1, row).long()


def num_rounds(num_series: int, num_sensors: int) -> int:
    """Return how often to hide, that each sensor is out wholly in a series at least."""
    return -(-num_sensors // num_series)


def hidden_gaps(ends: Tensor, shape: tuple[int, ...], turn: int) -> Tensor:
    """Return what to hide: of each series one sensor, and a gap in each of the others.

    Gaps begin anywhere, and their lengths are uniform in their logarithm, up to half of a series. A
    sensor that is alone is not hidden wholly.

    :param Tensor ends: where each series ends, ``(B,)``.
    :param int turn: with it the sensor that is out goes round.
    """
    T, B, E = shape
    steps = torch.arange(T, device=ends.device).view(-1, 1, 1)
    end = ends.double().unsqueeze(-1)
    place, size = torch.rand(2, B, E, dtype=torch.double, device=ends.device)
    begin = (place * end).floor()
    length = (size * (end / 2.0).clamp(min=1.0).log()).exp()
    gap = (steps >= begin) & (steps < begin + length)
    if E > 1:
        series = torch.arange(B, device=ends.device)
        gap[:, series, (series + turn * B) % E] = True
    return gap


def misses(truth: Tensor, samples: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """Return by which factor each interval had to be stretched to hold the truth, ``(T, B, E)``."""
    low, high = ends
    mean = samples.mean(0)
    least = torch.finfo(truth.dtype).tiny
    below = (mean - truth) / (mean - low).clamp(min=least)
    return torch.maximum(below, (truth - mean) / (high - mean).clamp(min=least)).double()


def factors_of(
    score: Tensor, row: Tensor, sensor: Tensor, num_sensors: int, level: float
) -> Tensor:
    """Return the factors, ``(ROWS, E)``: the quantile at ``level`` of the scores of each group.

    A group of few is one with the same row of all sensors; a row of few is like the one before it,
    and the first ones are like the first that is known.

    :param Tensor score: ``(N,)`` of :func:`misses`, with ``row`` and ``sensor`` of each.
    """
    found = score.new_full((ROWS, num_sensors), torch.nan)
    for r in range(ROWS):
        here = row == r
        if int(here.sum()) >= LEAST:
            found[r] = _quantile(score[here], level)
        for e in range(num_sensors):
            own = here & (sensor == e)
            if int(own.sum()) >= LEAST:
                found[r, e] = _quantile(score[own], level)
    for r in range(1, ROWS):
        found[r] = torch.where(found[r].isnan(), found[r - 1], found[r])
    for r in reversed(range(ROWS - 1)):
        found[r] = torch.where(found[r].isnan(), found[r + 1], found[r])
    return found.nan_to_num(1.0).clamp(NARROWEST, WIDEST)


def _quantile(score: Tensor, level: float) -> Tensor:
    """The least score that so many of them, and one more to come, do not exceed."""
    place = min(int((len(score) + 1) * level), len(score) - 1)
    return score.sort().values[place]


def stretched(samples: Tensor, seen: Tensor, factors: Tensor | None) -> Tensor:
    """Stretch draws ``(S, T, B, E)`` about their mean where nothing was seen."""
    if factors is None:
        return samples
    factor = factors.to(samples).gather(0, rows_of(seen).flatten(0, 1)).view(seen.shape)
    mean = samples.mean(0)
    return torch.where(seen, samples, mean + factor * (samples - mean))
