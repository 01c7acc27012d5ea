"""The M-step of a linear-Gaussian emission: the regression of the data on the paths.

Next file to read: ``gaussian.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact import LinearEmission

__all__ = ["EmissionRegression"]


class EmissionRegression:
    """R, and if asked C and b, of the highest likelihood given the paths of the epochs so far.

    :param Tensor x: ``(T, B, E)``.
    :param Tensor seen: which steps were observed, bool ``(T, B)``.
    :param int num_paths: M, paths of each sequence.
    :param bool learn_loading: estimate C and b too.
    :param float averaging: weight of the past, in [0, 1).

    Example::

        >>> z = torch.randn(1, 500, 1)
        >>> regression = EmissionRegression(
        ...     3.0 * z.transpose(0, 1), torch.ones(500, 1).bool(), 1, True, 0.0
        ... )
        >>> start = LinearEmission(torch.ones(1, 1), torch.zeros(1), torch.eye(1))
        >>> round(regression.update(z, start).matrix.item(), 3)
        3.0
    """

    def __init__(
        self, x: Tensor, seen: Tensor, num_paths: int, learn_loading: bool, averaging: float
    ) -> None:
        self._seen = seen.repeat(1, num_paths)  # (T, B M)
        self._target = x.repeat(1, num_paths, 1)[self._seen]  # (N, E)
        self._learn_loading, self._averaging = learn_loading, averaging
        self._moments: Tensor | None = None  # of [x, z, 1], (E + D + 1, E + D + 1)

    @property
    def num_observed(self) -> int:
        """Steps observed, those of each path counted."""
        return len(self._target)

    @torch.no_grad()
    def update(self, paths: Tensor, emission: LinearEmission) -> LinearEmission:
        """Take in an epoch's paths ``(B M, T, D)``; return the estimate.

        :param LinearEmission emission: C and b, where they are fixed.
        """
        x, z = self._target, paths.transpose(0, 1)[self._seen]
        joint = torch.cat([x, z, torch.ones_like(z[:, :1])], -1)
        moments = joint.T @ joint / len(joint)
        if self._moments is not None:
            moments = self._averaging * self._moments + (1 - self._averaging) * moments
        self._moments = moments
        loading, offset, _ = emission
        E = len(offset)
        xx, xz, zz = moments[:E, :E], moments[:E, E:], moments[E:, E:]
        weight = torch.cat([loading, offset.unsqueeze(-1)], -1)
        if self._learn_loading:
            ridge = torch.diag(1e-6 * zz.diagonal())
            weight = torch.linalg.solve(zz + ridge, xz.T).T
            loading, offset = weight[:, :-1], weight[:, -1]
        R = xx - weight @ xz.T - xz @ weight.T + weight @ zz @ weight.T
        return LinearEmission(loading, offset, 0.5 * (R + R.T) + torch.diag(1e-6 * xx.diagonal()))
