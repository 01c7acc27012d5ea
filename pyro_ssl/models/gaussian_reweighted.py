r"""The M-step of C, b and the noise's scale, given paths, where the noise is not Gaussian.

Each step is a weighted regression of what stands for x on the paths, sensor by sensor: Newton's for
flags and counts (iteratively reweighted least squares), EM's for Student-t noise (Lange, Little &
Taylor 1989, "Robust statistical modeling using the t distribution"). Its moments are those of this
epoch's paths and, with less and less weight, of the epochs before: log p(x | z) of each, to second
order about the estimate of its time.

C has a prior N(C₀, 1) about its start, by standard deviations of the latents, and b one of
N(b₀, 3²). So flags that are always on have finite log-odds, and of all C that mean the same, with
latents in other coordinates, it takes the nearest to the start.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..exact import LinearEmission
from ..exact.standard import unit_of
from .gaussian_family import Family

__all__ = ["ReweightedRegression"]

#: standard deviations of the prior, of C and b
SPREAD = 1.0, 3.0
#: weighted regressions of an epoch
NUM_STEPS = 3
#: how far one may move C and b of a sensor of flags or counts: Newton's steps may overshoot
REACH = 1.0
#: rows of paths in memory at a time
ROWS = 8192


class _Moments(NamedTuple):
    """Σ w v vᵀ ``(E, D + 1, D + 1)``, Σ w y v ``(E, D + 1)`` and Σ w y² ``(E,)`` of v = (z, 1)."""

    design: Tensor
    response: Tensor
    square: Tensor


class ReweightedRegression:
    """C and b, and a scale of Student-t noise, given the paths of the epochs so far.

    :param Family family: of the data.
    :param Tensor x: ``(T, B, E)``.
    :param Tensor seen: what was observed, bool ``(T, B, E)``.
    :param int num_paths: M, paths of each sequence.
    :param LinearEmission start: C₀, b₀ and R before any path.
    :param learns: whether C is estimated, and whether b is; C never alone.
    :param float averaging: weight of the past, in [0, 1).

    Example::

        >>> from pyro_ssl.models.gaussian_family import FAMILIES
        >>> z = torch.randn(2000, 1, 1)
        >>> x = torch.poisson((0.5 * z + 1.0).exp())
        >>> start = LinearEmission(torch.zeros(1, 1), torch.zeros(1), torch.eye(1))
        >>> given = (FAMILIES["poisson"], x, x > -1, 1, start, (True, True), 0.0)
        >>> found = ReweightedRegression(*given).update(z.transpose(0, 1), start, num_steps=20)
        >>> round(float(found.matrix), 1), round(float(found.offset), 1)
        (0.5, 1.0)
    """

    def __init__(
        self,
        family: Family,
        x: Tensor,
        seen: Tensor,
        num_paths: int,
        start: LinearEmission,
        learns: tuple[bool, bool],
        averaging: float,
    ) -> None:
        self._family, self._num_paths = family, num_paths
        # Clones: it may be a model's buffers, into which load_state_dict writes.
        self._start = LinearEmission(*(value.clone() for value in start))
        self._learns, self._averaging = learns, averaging
        self._origin, self._unit = unit_of(x, seen)
        if not family.located:
            self._origin, self._unit = torch.zeros_like(self._origin), torch.ones_like(self._unit)
        self._seen = seen.any(-1)  # (T, B)
        self._there = seen[self._seen]  # (N, E)
        standard = (x[self._seen].double() - self._origin) / self._unit
        self._target = torch.where(self._there, standard, 0.0)
        self._units: tuple[Tensor, Tensor] | None = None  # of z, (D,) each
        self._moments: _Moments | None = None

    @property
    def state(self) -> tuple[Any, ...]:
        """Where it started, and what of the epochs so far is kept; to be set, to go on from there.

        A start may be of draws, and so is not the same if it is found again.
        """
        moments = None if self._moments is None else tuple(self._moments)
        return tuple(self._start), self._units, moments

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        start, units, moments = state
        self._start = LinearEmission(*start)
        self._units = None if units is None else (units[0], units[1])
        self._moments = None if moments is None else _Moments(*moments)

    @property
    def num_observed(self) -> int:
        """Steps observed, those of each path counted."""
        return self._num_paths * len(self._target)

    @torch.no_grad()
    def update(
        self, paths: Tensor, emission: LinearEmission, num_steps: int = NUM_STEPS
    ) -> LinearEmission:
        """Take in an epoch's paths ``(B M, T, D)``; return the estimate.

        :param LinearEmission emission: of which they are paths, from which the steps go on.
        """
        z = paths.transpose(0, 1).unflatten(1, (self._num_paths, -1)).movedim(1, 0)
        z = z[:, self._seen].double()  # (M, N, D)
        if self._units is None:
            spread = z.flatten(0, 1).std(0, correction=0)
            self._units = z.mean((0, 1)), torch.where(spread > 0, spread, 1.0)
        at, unit = self._units
        z = (z - at) / unit
        weight, scale = self._standard(emission)
        before = self._moments
        for _ in range(num_steps):
            found = self._moments_of(z, weight, scale)
            if before is not None:
                pairs = zip(before, found, strict=True)
                a = self._averaging
                found = _Moments(*(a * old + (1.0 - a) * now for old, now in pairs))
            self._moments = found
            weight = self._regressed(weight, scale)
            scale = self._rescaled(weight, scale)
        return self._original(weight, scale, emission)

    def _moments_of(self, z: Tensor, weight: Tensor, scale: Tensor) -> _Moments:
        """Means over the M paths of sums over all steps."""
        E, n = weight.shape
        design, response, square = z.new_zeros(E, n * n), z.new_zeros(E, n), z.new_zeros(E)
        for path in z:
            blocks = (part.split(ROWS) for part in (path, self._target, self._there))
            for rows, x, there in zip(*blocks, strict=True):
                v = torch.cat([rows, torch.ones_like(rows[:, :1])], -1)
                w, wy = self._family.working(x, v @ weight.T, scale)
                w, wy = torch.where(there, w, 0.0), torch.where(there, wy, 0.0)
                design += w.T @ (v.unsqueeze(-1) * v.unsqueeze(-2)).flatten(1)
                response += wy.T @ v
                square += (wy * x).sum(0)
        M = len(z)
        return _Moments(design.view(E, n, n) / M, response / M, square / M)

    def _regressed(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The next C and b, as weights ``(E, D + 1)``."""
        if not self._learns[1]:
            return weight
        assert self._moments is not None
        design, response, _ = self._moments
        first, _ = self._standard(self._start)
        spread = first.new_tensor([SPREAD[0]] * (weight.shape[1] - 1) + [SPREAD[1]])
        prior = scale.square().unsqueeze(-1) / spread.square()  # in units of the noise's precision
        free = [*range(weight.shape[1])] if self._learns[0] else [weight.shape[1] - 1]
        design = design + torch.diag_embed(prior)
        slope = response + prior * first - (design @ weight.unsqueeze(-1)).squeeze(-1)
        step = torch.zeros_like(weight)
        step[:, free] = torch.linalg.solve(design[:, free][:, :, free], slope[:, free])
        if not self._family.located:
            step *= REACH / step.norm(dim=-1, keepdim=True).clamp(min=REACH)
        return weight + step

    def _rescaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Student-t noise's scale ``(E,)``; 1 of all else."""
        if not self._family.located:
            return scale
        assert self._moments is not None
        design, response, square = self._moments
        fitted = torch.einsum("ei,eij,ej->e", weight, design, weight)
        rest = square - 2.0 * (weight * response).sum(-1) + fitted
        return (rest / self._there.sum(0) + 1e-6).clamp(min=1e-6).sqrt()

    def _standard(self, emission: LinearEmission) -> tuple[Tensor, Tensor]:
        """C and b of standardised data and latents ``(E, D + 1)``, and the noise's scale."""
        assert self._units is not None
        at, unit = self._units
        C, b, R = (value.double() for value in emission)
        b = (b - self._origin + C @ at) / self._unit
        weight = torch.cat([C * unit / self._unit.unsqueeze(-1), b.unsqueeze(-1)], -1)
        return weight, R.diagonal().sqrt() / self._unit

    def _original(self, weight: Tensor, scale: Tensor, emission: LinearEmission) -> LinearEmission:
        """C, b and R of the data; what is not estimated stays as it is, to the last bit."""
        assert self._units is not None
        at, unit = self._units
        C, b, R = emission
        if self._learns[0]:
            C = (weight[:, :-1] * self._unit.unsqueeze(-1) / unit).to(C)
        if self._learns[1]:
            b = (self._origin + self._unit * weight[:, -1] - C.double() @ at).to(b)
        if self._family.located:
            R = torch.diag((scale * self._unit).square()).to(R)
        return LinearEmission(C, b, R)
