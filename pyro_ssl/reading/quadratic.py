r"""Is log p(x_t | z_t) a quadratic function of z_t? If so, which?

A quadratic function on R^D has n = 1 + D + D (D + 1) / 2 coefficients. Its values at 2n points in
general position determine them and tell, by what is left over, whether it is one; whatever the
user's code. A linear-Gaussian emission is one, with any loading, offset, noise and mask.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..smc.quadratic import Quadratic
from ..transitions import Transition

__all__ = ["find_quadratic", "fit_quadratic", "probe_points"]

#: Fit again about the mode just found, at most LOOKS times, while it is farther than FAR from the
#: centre of the last fit, whose points are standard normal about it.
FAR, LOOKS = 10.0, 4

#: so many steps of sequences are looked at before all others
FEW = 32


def probe_points(transition: Transition) -> Tensor:
    """Return the points at which an emission is looked at, ``(2n, D)``: the same at every call."""
    (D,) = transition.event_shape
    n = 1 + D + D * (D + 1) // 2
    generator = torch.Generator(device="cpu").manual_seed(D)
    points = torch.randn(2 * n, D, generator=generator, device="cpu", dtype=torch.float64)
    return points.to(transition.like)


def find_quadratic(
    table: Tensor, points: Tensor, evaluate: Callable[[Tensor], Tensor]
) -> Quadratic | None:
    """Return log p(x_t | z_t) as a quadratic function about a point near its mode.

    Far from the mode large numbers cancel, so the first fit may miss it; the fit is repeated about
    the mode that it found.

    :param Tensor table: its values at ``points``, ``(T, B, S)``.
    :param Tensor points: ``(S, D)``.
    :param evaluate: returns its values ``(T, B, S)`` at points ``(S, T, B, D)``.
    :returns: ``None`` if it is not quadratic, or not concave.
    """
    found = fit_quadratic(table, points)
    if found is None:
        return None
    values = table
    for _ in range(LOOKS):
        step = _to_mode(found, values)
        if not bool((step.abs() > FAR).any()):
            break
        center = found.center + step
        values = evaluate(points[:, None, None] + center)
        closer = fit_quadratic(values, points, center, known=True)
        if closer is None:
            return None
        found = closer
    return found


def fit_quadratic(
    table: Tensor, points: Tensor, center: Tensor | None = None, *, known: bool = False
) -> Quadratic | None:
    """Return the quadratic function that takes the values ``table`` at ``points``.

    :param Tensor table: ``(T, B, S)``.
    :param Tensor points: ``(S, D)``, relative to the center.
    :param Tensor center: ``(T, B, D)``; zero where left out.
    :param bool known: it is quadratic, so that this is not checked.
    :returns: ``None`` if there is none, or none that is concave.
    """
    D, x = points.shape[1], points.double()
    row, column = torch.triu_indices(D, D, device=x.device)
    design = torch.cat([torch.ones_like(x[:, :1]), x, x[:, row] * x[:, column]], -1)  # (S, n)
    inverse, rounding = torch.linalg.pinv(design).T, torch.finfo(table.dtype).eps
    if not known:  # most often a few steps tell one that is not, and the rest need no algebra
        few = table.flatten(0, 1)
        few = few[:: max(len(few) // FEW, 1)].double()
        if not _agrees(few @ inverse, design, few, rounding):
            return None
    wide = table.double()
    if not bool(wide.isfinite().all()):
        return None
    found = wide @ inverse  # (T, B, n)
    upper = torch.zeros((*table.shape[:2], D, D), device=x.device, dtype=x.dtype)
    upper[..., row, column] = found[..., 1 + D :]
    precision = -(upper + upper.mT)
    if not known and not _agrees(found, design, wide, rounding):
        return None
    if not _is_concave(precision, wide, rounding):
        return None
    if center is None:
        center = table.new_zeros((*table.shape[:2], D))
    parts = (found[..., 0], found[..., 1 : 1 + D], precision)
    return Quadratic(center, *(part.to(table.dtype) for part in parts))


def _to_mode(function: Quadratic, values: Tensor) -> Tensor:
    """Λ⁻¹ b as (Λ + ε)⁻¹ Λ (Λ + ε)⁻¹ b, ε what rounding does to Λ: no step along what x ignores."""
    precision, linear = function.precision.double(), function.linear.double()
    size = 1.0 + precision.abs().amax((-2, -1)) + values.double().abs().amax(-1)
    rounding = 8.0 * torch.finfo(values.dtype).eps * size
    wider = precision + torch.diag_embed(rounding.unsqueeze(-1).expand(linear.shape))
    step = torch.linalg.solve_ex(wider, linear.unsqueeze(-1)).result
    step = torch.linalg.solve_ex(wider, precision @ step).result.squeeze(-1)
    return step.nan_to_num(0.0, 0.0, 0.0).to(function.linear)


def _agrees(found: Tensor, design: Tensor, values: Tensor, rounding: float) -> bool:
    """Whether the coefficients give all values, but for rounding."""
    rest = (found @ design.T - values).abs()
    size = 1.0 + values.abs().amax(-1, keepdim=True)
    return not bool((rest > 200.0 * rounding * size).any())


def _is_concave(precision: Tensor, values: Tensor, rounding: float) -> bool:
    """Whether Λ is positive semi-definite: a little more of the diagonal then makes it definite.

    What rounding does to Λ goes with the values that it was found from, large ones far from the
    mode; near it they are small, and the answer is sharp.
    """
    size = 1.0 + precision.abs().amax((-2, -1)) + values.abs().amax(-1)
    more = torch.diag_embed((1e3 * rounding * size).unsqueeze(-1).expand(precision.shape[:-1]))
    return not bool(torch.linalg.cholesky_ex(precision + more).info.any())
