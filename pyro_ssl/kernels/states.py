"""A sweep over states, compiled: ``src/states.cpp``, called by pointers.

What it returns is what ``smc/sweep.py`` would with the same random numbers, up to the rounding of
float32.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .weights import CellWeights

__all__ = ["Swept", "SweepNumbers", "sweep_states", "trace_back"]

_SIZES = (
    "T",
    "B",
    "P",
    "K",
    "H",
    "I",
    "kind",
    "systematic",
    "every",
    "first_redraw",
    "lag",
    "threads",
)
_ARRAYS = (
    *("table", "recurrent", "to_m", "bias_h", "head", "head_bias", "exogenous"),
    *("emission", "twist", "scale", "inputs", "lengths", "order", "reference"),
    *("u_z", "u_ancestors", "u_redraws"),
    *("z", "ancestors", "log_likelihood", "chosen_by", "weights", "h", "c"),
)


class _Arguments(ctypes.Structure):
    """``StatesArguments`` of ``src/states.cpp``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
    ]


class SweepNumbers(NamedTuple):
    """The random numbers of a sweep: uniforms on [0, 1)."""

    #: ``(T, B, P)``, float32: they draw z_t
    z: Tensor
    #: ``(T, B, 1 or P)``, float64: they draw ancestors
    ancestors: Tensor
    #: ``(T, B, 2)``, float64: they redraw the reference's ancestor, and accept it
    redraws: Tensor | None


class Swept(NamedTuple):
    """What a sweep leaves: see ``Sweep`` of ``smc/sweep.py``."""

    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    chosen_by: Tensor
    weights: Tensor | None
    h: Tensor
    c: Tensor


def sweep_states(
    library: ctypes.CDLL,
    cell: CellWeights,
    emission: Tensor,
    numbers: SweepNumbers,
    *,
    redraw_at: range,
    lag: int,
    systematic: bool,
    twist: Tensor | None,
    scale: Tensor | None,
    inputs: Tensor | None,
    lengths: Tensor | None,
    reference: Tensor | None,
) -> Swept:
    """Run it, in as many threads as torch has; they change no draw.

    :param Tensor emission: ``(T, B, K)``, float32, as ``twist`` is.
    :param range redraw_at: steps at which the reference's ancestor is redrawn.
    :param Tensor inputs: exogenous inputs, ``(T, B, input_size)``.
    :raises MemoryError: if there is too little.
    """
    T, B, K = emission.shape
    P, H = numbers.z.shape[-1], cell.recurrent.shape[-1]
    whole = partial(torch.empty, dtype=torch.long, device="cpu")
    double = partial(torch.empty, dtype=torch.float64, device="cpu")
    found = Swept(
        z=whole(T, B, P),
        ancestors=whole(T, B, P),
        log_likelihood=double(T, B),
        chosen_by=double(T, B, P),
        weights=None if twist is None else double(B, P),
        h=emission.new_empty(B * P, H),
        c=emission.new_empty(B * P, H),
    )
    # by falling length, so that those of a group that have not ended stand first
    ends = torch.full((B,), T, device="cpu") if lengths is None else lengths
    order = ends.argsort(descending=True, stable=True)
    arrays = {
        **cell._asdict(),
        **{"emission": emission, "twist": twist, "scale": scale, "inputs": inputs},
        **{"lengths": lengths, "order": order, "reference": reference},
        **{"u_z": numbers.z, "u_ancestors": numbers.ancestors, "u_redraws": numbers.redraws},
        **found._asdict(),
    }
    # Held until the call is over, for a pointer does not keep its array.
    held = {n: None if arrays[n] is None else arrays[n].contiguous() for n in _ARRAYS}
    sizes = {"T": T, "B": B, "P": P, "K": K, "H": H, "kind": cell.kind, "lag": lag}
    sizes |= {"I": cell.exogenous.shape[-1]}
    sizes |= {"systematic": int(systematic), "threads": torch.get_num_threads()}
    sizes |= {"every": redraw_at.step if redraw_at else 0}
    sizes |= {"first_redraw": redraw_at.start if redraw_at else 0}
    pointers = {n: None if value is None else value.data_ptr() for n, value in held.items()}
    if library.sweep_states(ctypes.byref(_Arguments(**sizes, **pointers))):
        raise MemoryError(f"conditional_smc: too little memory for {B} sequences of {P} particles.")
    return found


def trace_back(library: ctypes.CDLL, ancestors: Tensor, slot: Tensor) -> Tensor:
    """Return the particles that each final slot ``(B,)`` descends from: ``(T, B)``."""
    (T, B, P), ancestors, slot = ancestors.shape, ancestors.contiguous(), slot.contiguous()
    lineage = torch.empty(T, B, dtype=torch.long, device="cpu")
    sizes = [ctypes.c_int64(n) for n in (T, B, P)]
    arrays = [ctypes.c_void_p(value.data_ptr()) for value in (ancestors, slot, lineage)]
    library.trace_back(*sizes, *arrays)
    return lineage
