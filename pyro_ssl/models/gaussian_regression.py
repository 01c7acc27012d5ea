"""The M-step of C, b and R, given paths: regression of the data on them, by running moments.

Sensors that were not observed count with what they would have been, given the path and the others:
the expectations of EM.

C is identified by where it starts: with C₀⁺ the pseudo-inverse of that start, in units of its
noise, C₀⁺ C = 1. Any other C means the same as one of these with latents in other coordinates, to
which the transition would have to be moved.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..exact import LinearEmission
from ..exact.standard import unit_of

__all__ = ["EmissionRegression"]


class EmissionRegression:
    """R, and if asked C and b, of the highest likelihood given the paths of the epochs so far.

    :param Tensor x: ``(T, B, E)``.
    :param Tensor seen: what was observed, bool ``(T, B, E)``.
    :param int num_paths: M, paths of each sequence.
    :param LinearEmission start: C₀, b and R before any path.
    :param bool learn_loading: estimate C and b too.
    :param float averaging: weight of the past, in [0, 1).
    :param form: makes R one of its form, as :func:`~.gaussian_noise.form_of` does; by default any.

    Example::

        >>> z = torch.randn(1, 500, 1)
        >>> x = torch.cat([z, 3.0 * z], -1).transpose(0, 1)
        >>> start = LinearEmission(torch.ones(2, 1), torch.zeros(2), torch.eye(2))
        >>> seen = torch.ones(500, 1, 2).bool()
        >>> regression = EmissionRegression(x, seen, 1, start, True, 0.0)
        >>> C = regression.update(z, start).matrix.squeeze(-1)
        >>> round(float(C[1] - C[0]), 3), round(float(C.mean()), 3)
        (2.0, 1.0)
    """

    def __init__(
        self,
        x: Tensor,
        seen: Tensor,
        num_paths: int,
        start: LinearEmission,
        learn_loading: bool,
        averaging: float,
        form: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._origin, self._unit = unit_of(x, seen)
        self._seen = seen.any(-1).repeat(1, num_paths)  # (T, B M)
        standard = torch.where(seen, (x.double() - self._origin) / self._unit, 0.0)
        self._target = standard.repeat(1, num_paths, 1)[self._seen]  # (N, E)
        self._there = seen.repeat(1, num_paths, 1)[self._seen]  # (N, E)
        self._whole = bool(self._there.all())
        self._learn_loading, self._averaging = learn_loading, averaging
        self._form, self._start = form, self._standard(start)
        self._z_origin: Tensor | None = None  # (D,)
        self._moments: Tensor | None = None  # of [x, z, 1, ...], (E + D + 1 + ..., ...)

    @property
    def state(self) -> tuple[Tensor | None, ...]:
        """What of the epochs so far is kept; to be set, to go on from there."""
        return self._z_origin, self._moments

    @state.setter
    def state(self, state: tuple[Tensor | None, ...]) -> None:
        self._z_origin, self._moments = state

    @property
    def num_observed(self) -> int:
        """Steps observed, those of each path counted."""
        return len(self._target)

    @torch.no_grad()
    def update(self, paths: Tensor, emission: LinearEmission) -> LinearEmission:
        """Take in an epoch's paths ``(B M, T, D)``; return the estimate.

        :param LinearEmission emission: of which they are paths; C and b, where they are fixed.
        """
        z = paths.transpose(0, 1)[self._seen].double()
        # Moments about where x and z are: about 0 they would drown what they are for.
        at = self._z_origin = z.mean(0) if self._z_origin is None else self._z_origin
        moments = self._moments_of(z, at, self._standard(emission))
        if self._moments is not None:
            moments = self._averaging * self._moments + (1 - self._averaging) * moments
        self._moments = moments
        weight, R = self._maximised(moments, emission)
        R = R if self._form is None else self._form(R)
        R = 0.5 * (R + R.T) + 1e-6 * torch.eye(len(R), dtype=R.dtype, device=R.device)
        unit, like = self._unit.unsqueeze(-1), emission.offset
        if self._learn_loading:
            C, b = weight[:, :-1], weight[:, -1:]
            offset = self._origin + (unit * (b - C @ at.unsqueeze(-1))).squeeze(-1)
            emission = LinearEmission((unit * C).to(like), offset.to(like), emission.covariance)
        return LinearEmission(emission.matrix, emission.offset, (unit * R * unit.T).to(like))

    def _maximised(self, moments: Tensor, emission: LinearEmission) -> tuple[Tensor, Tensor]:
        """C and b about where z is ``(E, D + 1)``, and R of any form, of standardised data."""
        E = len(self._unit)
        xz, zz = moments[:E, E:], moments[E:, E:]
        if self._learn_loading:
            x_mean, z_mean = xz[:, -1:], zz[:-1, -1:]
            spread = zz[:-1, :-1] - z_mean @ z_mean.T
            ridge = torch.diag(1e-6 * spread.diagonal())
            C = (xz[:, :-1] - x_mean @ z_mean.T) @ torch.linalg.pinv(spread + ridge)
            C = self._identified(C)
            b = x_mean - C @ z_mean
        else:
            assert self._z_origin is not None
            C, b, _ = self._standard(emission)
            b = b.unsqueeze(-1) + C @ self._z_origin.unsqueeze(-1)
        weight = torch.cat([C, b], -1)
        return weight, self._noise(moments, weight)

    def _noise(self, moments: Tensor, weight: Tensor) -> Tensor:
        """Mean square of what is left of x, ``(E, E)``."""
        E = len(self._unit)
        xx, xz, zz = moments[:E, :E], moments[:E, E:], moments[E:, E:]
        return xx - weight @ xz.T - xz @ weight.T + weight @ zz @ weight.T

    def _standard(self, emission: LinearEmission) -> LinearEmission:
        """C, b and R of standardised data."""
        C, b, R = (value.double() for value in emission)
        unit = self._unit
        C, b = C / unit.unsqueeze(-1), (b - self._origin) / unit
        return LinearEmission(C, b, R / unit / unit.unsqueeze(-1))

    def _identified(self, C: Tensor) -> Tensor:
        """C₀ and what of C - C₀ the pseudo-inverse of C₀ does not see."""
        start = self._start.matrix
        noise = self._start.covariance.diagonal().sqrt().unsqueeze(-1)
        inside = start @ torch.linalg.pinv(start / noise)  # times C / noise: what it does see
        return start + (C - inside @ (C / noise))

    def _moments_of(self, z: Tensor, at: Tensor, emission: LinearEmission) -> Tensor:
        """Moments of [x, z - at, 1], those of missing x as expected, ``(E + D + 1, ...)``."""
        x, more = self._target, None
        if not self._whole:
            x, more = self._filled(z, emission)
        joint = torch.cat([x, self._row(z - at)], -1)
        moments = joint.T @ joint / len(joint)
        if more is not None:
            moments[: len(more), : len(more)] += more
        return moments

    def _row(self, z: Tensor) -> Tensor:
        """What x is regressed on."""
        return torch.cat([z, torch.ones_like(z[:, :1])], -1)

    def _expected(self, z: Tensor, emission: LinearEmission) -> Tensor:
        """E[x | z], ``(N, E)``."""
        return z @ emission.matrix.T + emission.offset

    def _filled(self, z: Tensor, emission: LinearEmission) -> tuple[Tensor, Tensor]:
        """E[x | z, what was observed], ``(N, E)``, and the mean of the covariances, ``(E, E)``."""
        R, expected = emission.covariance, self._expected(z, emission)
        if torch.equal(R, R.diagonal().diag()):
            share = (~self._there).double().mean(0)
            filled = torch.where(self._there, self._target, expected)
            return filled, torch.diag(share * R.diagonal())
        filled, more = self._target.clone(), torch.zeros_like(R)
        patterns, index = self._there.unique(dim=0, return_inverse=True)
        precision = torch.linalg.inv(R)
        for i, there in enumerate(patterns):
            if bool(there.all()):
                continue
            rows, gone = index == i, ~there
            of_gone = torch.linalg.inv(precision[gone][:, gone])
            away = (self._target[rows] - expected[rows])[:, there]
            known = expected[rows][:, gone] - away @ (of_gone @ precision[gone][:, there]).T
            filled[rows.unsqueeze(-1) & gone] = known.flatten()
            both = gone.unsqueeze(-1) & gone
            more[both] += (rows.double().mean() * of_gone).flatten()
        return filled, more
