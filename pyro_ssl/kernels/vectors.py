"""A sweep over vectors, compiled: ``src/vectors.cpp``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .sweeps import SweepSettings, Swept, fields, run_sweep
from .weights import VectorsWeights

__all__ = ["MAX_DIM", "VectorsSwept", "sweep_vectors"]

#: the greatest D that is compiled
MAX_DIM = 8

_QUADRATIC = ("center", "constant", "linear", "precision")
_OWN = (
    *_QUADRATIC,
    *(f"twist_{name}" for name in _QUADRATIC),
    *("noise", "min_scale", "initial", "per_increment", "unit", "matrix", "drift"),
    *("last", "last_start"),
)


class _Arguments(ctypes.Structure):
    """``VectorsArguments`` of ``src/arguments.h``."""

    _fields_ = fields(*_OWN)


class VectorsSwept(NamedTuple):
    """What a sweep leaves, with what a transition that reads increments remembers of z."""

    swept: Swept
    #: [z_{T-2}; 1] of each row, ``(B P, D + 1)``, or ``(B P, 0)`` where positions are read
    last: Tensor


def sweep_vectors(
    library: ctypes.CDLL,
    weights: VectorsWeights,
    emission: Sequence[Tensor],
    twist: Sequence[Tensor] | None,
    noise: Tensor,
    drift: Tensor | None,
    settings: SweepSettings,
    last_start: Tensor | None = None,
) -> VectorsSwept:
    """Run it; see :func:`~pyro_ssl.kernels.sweeps.run_sweep`.

    :param emission: center, constant, linear and precision of log p(x_t | z_t) + log β_t(z_t);
        ``twist`` has those of the latter.
    :param Tensor noise: standard normal, ``(T, B, P, D)``.
    :param Tensor drift: b + G u_t of the chain that the cell corrects, ``(T, B, D)``.
    :param Tensor last_start: ``last`` of the particles that the sweep goes on from.
    """
    _, B, P, D = noise.shape
    reads_increments = weights.per_increment is not None
    last = noise.new_empty(B * P, D + 1 if reads_increments else 0)
    cell, *of_head = weights
    functions = (*emission, *((None,) * 4 if twist is None else twist))
    own = (*functions, noise, *of_head, drift)
    own += (last, last_start) if reads_increments else (None, None)
    swept = run_sweep(
        library.sweep_vectors,
        _Arguments,
        cell,
        settings,
        noise.new_empty(noise.shape),
        dict(zip(_OWN, own, strict=True)),
        size=D,
        weighted=twist is not None,
    )
    return VectorsSwept(swept, last)
