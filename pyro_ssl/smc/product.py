r"""The product of a diagonal Gaussian and the exponential of a quadratic function, by particle.

.. math::
    \mathrm{N}(z; μ, \mathrm{diag}\, σ^2) \,
    \exp(g^\top (z - μ) - \tfrac12 (z - μ)^\top Λ (z - μ))

With L Lᵀ = diag σ⁻² + Λ and w = L⁻¹ g, its integral is exp(½ |w|²) / Π σ_i L_ii, and normalised it
is the proposal γ̃, N(μ + L⁻ᵀ w, L⁻ᵀ L⁻¹). All is relative to μ: no two large
numbers are subtracted, wherever the path is and however small σ.

A sweep meets thousands of small matrices. To D = 3 their Cholesky factors are written out entry by
entry, each a vector over the particles, which takes a fraction of a library's call for a batch of
matrices. From there on, ``torch.linalg`` does it.

Next file to read: ``gaussian.py``, which uses it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Product", "product"]

#: the greatest D whose factors are written out
UNROLLED = 3


class Product(ABC):
    """What a step needs of γ̃; ``log_mass`` is the log of the integral, ``(B, P)``."""

    log_mass: Tensor

    @abstractmethod
    def solve(self, rows: Tensor | None, noise: Tensor | None) -> Tensor:
        """μ + L⁻ᵀ (w + noise) of given rows of B P, ``(rows, D)``; of all of them, in order."""

    def mean(self) -> Tensor:
        """Its mean, ``(B, P, D)``."""
        return self.solve(None, None).view(*self.log_mass.shape, -1)

    def draw(self, rows: Tensor, noise: Tensor) -> Tensor:
        """Draw from the given rows ``(B P,)``: ``(B, P, D)``.

        :param Tensor noise: standard normal, ``(B P, D)``.
        """
        return self.solve(rows, noise).view(*self.log_mass.shape, -1)


def product(mean: Tensor, scale: Tensor, gradient: Tensor, precision: Tensor) -> Product:
    """Return γ̃ and the integral.

    :param Tensor mean: μ, ``scale`` σ and ``gradient`` g, each ``(B, P, D)``.
    :param Tensor precision: Λ, ``(B, 1 or P, D, D)``, positive semi-definite.
    """
    return (_Unrolled if mean.shape[-1] <= UNROLLED else _Factored)(
        mean, scale, gradient, precision
    )


class _Unrolled(Product):
    """Entries as vectors over the particles; a row holds w, then μ, then L's lower triangle."""

    def __init__(self, mean: Tensor, scale: Tensor, gradient: Tensor, precision: Tensor) -> None:
        self.dim = D = mean.shape[-1]
        tau = scale.square().reciprocal_().unbind(-1)
        entries, scales = precision.flatten(-2).unbind(-1), scale.unbind(-1)
        L: list[list[Tensor]] = []
        w: list[Tensor] = []
        for i, left in enumerate(gradient.unbind(-1)):
            row: list[Tensor] = []
            for j in range(i):
                entry = entries[i * D + j]
                for k in range(j):
                    entry = torch.addcmul(entry, row[k], L[j][k], value=-1.0)
                row.append(entry / L[j][j])
            square = entries[i * D + i] + tau[i]
            for k in range(i):
                square = torch.addcmul(square, row[k], row[k], value=-1.0)
                left = torch.addcmul(left, row[k], w[k], value=-1.0)
            row.append(square.sqrt_())
            w.append(left / row[i])
            L.append(row)
        det, square = L[0][0] * scales[0], w[0].square()
        for i in range(1, D):
            det = det * (L[i][i] * scales[i])
            square = torch.addcmul(square, w[i], w[i])
        self.log_mass = square.mul_(0.5).sub_(det.log_())
        triangle = (entry for row in L for entry in row)
        self.packed = torch.stack([*w, *mean.unbind(-1), *triangle], -1).flatten(0, 1)

    def solve(self, rows: Tensor | None, noise: Tensor | None) -> Tensor:
        """See the base class."""
        D = self.dim
        packed = self.packed if rows is None else self.packed.index_select(0, rows)
        whitened = packed[:, :D] if noise is None else packed[:, :D] + noise
        columns, y = packed.unbind(-1), list(whitened.unbind(-1))
        for i in reversed(range(D)):
            for k in range(i + 1, D):
                y[i] = torch.addcmul(y[i], columns[_entry(D, k, i)], y[k], value=-1.0)
            y[i] = y[i] / columns[_entry(D, i, i)]
        return torch.stack(y, -1).add_(packed[:, D : 2 * D])


class _Factored(Product):
    """By ``torch.linalg``, a factor ``(D, D)`` per particle."""

    def __init__(self, mean: Tensor, scale: Tensor, gradient: Tensor, precision: Tensor) -> None:
        tau = torch.diag_embed(scale.square().reciprocal_())
        factor = torch.linalg.cholesky_ex(precision + tau).L
        whitened = torch.linalg.solve_triangular(factor, gradient.unsqueeze(-1), upper=False)
        log_det = (factor.diagonal(dim1=-2, dim2=-1) * scale).log().sum(-1)
        self.log_mass = 0.5 * whitened.squeeze(-1).square().sum(-1) - log_det
        self.rows = [value.flatten(0, 1) for value in (mean, factor, whitened)]

    def solve(self, rows: Tensor | None, noise: Tensor | None) -> Tensor:
        """See the base class."""
        mean, factor, whitened = (v if rows is None else v[rows] for v in self.rows)
        if noise is not None:
            whitened = whitened + noise.unsqueeze(-1)
        solved = torch.linalg.solve_triangular(factor.mT, whitened, upper=True)
        return mean + solved.squeeze(-1)


def _entry(dim: int, i: int, j: int) -> int:
    """Where a row of :class:`_Unrolled` holds L_ij."""
    return 2 * dim + i * (i + 1) // 2 + j
