r"""Surrogates of several independent chains: what ``surrogate.py`` fits to each of them, together.

.. math:: A_{(j, j'), (k, k')} = A^a_{jk} A^b_{j'k'}

K_a² + K_b² numbers are learned from as many steps as K_a² K_b² would be; and Markov chains are
their own surrogate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..transitions import MarkovTransition, ProductTransition, Transition
from .surrogate import MAX_ENTRIES, MarkovSurrogate, Surrogate, fit_surrogate, surrogate_along

__all__ = ["along_states", "fit_any_surrogate", "from_sums"]

#: sums of p(z_t | z_{1:t-1}), and of steps, by z_{t-1}: see :func:`surrogate_along`
Sums = tuple[Tensor, Tensor]


@torch.no_grad()
def fit_any_surrogate(
    transition: Transition, num_steps: int, *, inputs: Tensor | None = None
) -> Surrogate:
    """Fit a chain to a transition, to each of its chains where it is several; see
    :func:`~.surrogate.fit_surrogate`.
    """
    if not isinstance(transition, ProductTransition):
        return fit_surrogate(transition, num_steps, inputs=inputs)
    parts, each = list(transition.transitions), transition._inputs(inputs)
    fitted = [
        fit_any_surrogate(part, num_steps, inputs=u)  # type: ignore[arg-type]
        for part, u in zip(parts, each, strict=True)
    ]
    exact = all(type(p) is MarkovTransition and u is None for p, u in zip(parts, each, strict=True))
    return _product(fitted, 0.0 if exact else None)


def along_states(
    transition: Any, path: Tensor, lengths: Tensor | None, inputs: Tensor | None
) -> list[Sums]:
    """Return the sums of :func:`~.surrogate.surrogate_along`, of each chain."""
    if not isinstance(transition, ProductTransition):
        return [surrogate_along(transition, path, lengths, inputs)]
    each = zip(
        transition.transitions, transition.split(path), transition._inputs(inputs), strict=True
    )
    return [sums for part, z, u in each for sums in along_states(part, z, lengths, u)]


def from_sums(sums: list[Sums]) -> MarkovSurrogate:
    """Return the surrogate of these sums; see :meth:`~.surrogate.MarkovSurrogate.from_sums`."""
    return _product([MarkovSurrogate.from_sums(*one) for one in sums])


def _product(surrogates: list[Any], floor: float | None = None) -> MarkovSurrogate:
    """The chain of all of them.

    :param floor: of the whole; by default the usual one.
    """
    if len(surrogates) == 1:
        return surrogates[0]
    matrix = surrogates[0].matrix
    for other in surrogates[1:]:
        a, b = matrix, other.matrix
        K = a.shape[-1] * b.shape[-1]
        steps = max(one.shape[0] if one.dim() == 3 else 1 for one in (a, b))
        if steps * K * K > MAX_ENTRIES:
            a, b = (one.mean(0) if one.dim() == 3 else one for one in (a, b))
        by_tuple = a[..., :, None, :, None] * b[..., None, :, None, :]
        matrix = by_tuple.flatten(-4, -3).flatten(-2, -1)
    return MarkovSurrogate(matrix) if floor is None else MarkovSurrogate(matrix, floor)
