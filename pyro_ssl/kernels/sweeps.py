"""What compiled sweeps over states and over vectors share: ``src/sweep.h``, called by pointers.

What they return is what ``smc/sweep.py`` would with the same random numbers, up to the rounding of
float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .weights import CellWeights

__all__ = ["Swept", "SweepSettings", "fields", "run_sweep", "trace_back"]

_SIZES = (
    *("T", "B", "P", "H", "I", "kind"),
    *("systematic", "every", "first_redraw", "lag", "threads", "size"),
)
_ARRAYS = (
    *("table", "recurrent", "to_m", "bias_h", "head", "head_bias", "exogenous"),
    *("scale", "inputs", "lengths", "order", "reference", "u_ancestors", "u_redraws"),
    *("z", "ancestors", "log_likelihood", "chosen_by", "weights", "h", "c"),
    *("z_start", "h_start", "c_start", "w_start"),
)


def fields(*own: str) -> list[tuple[str, type]]:
    """Fields of ``SweepArguments`` of ``src/arguments.h``, and arrays of one kind's own."""
    sizes = ((name, ctypes.c_int64) for name in _SIZES)
    return [*sizes, *((name, ctypes.c_void_p) for name in (*_ARRAYS, *own))]


class SweepSettings(NamedTuple):
    """What does not depend on the kind of latent, and the numbers that draw ancestors."""

    systematic: bool
    #: steps at which the reference's ancestor is redrawn
    redraw_at: range
    lag: int
    #: ``(B,)``
    scale: Tensor | None
    #: exogenous, ``(T, B, input_size)``
    inputs: Tensor | None
    #: ``(B,)``
    lengths: Tensor | None
    #: ``(T, B)``, and D where latents are vectors
    reference: Tensor | None
    #: ``(T, B, 1 or P)``, float64, uniform on [0, 1): they draw ancestors
    u_ancestors: Tensor
    #: ``(T, B, 2)``, float64: they redraw the reference's ancestor, and accept it
    u_redraws: Tensor | None
    #: particles that the sweep goes on from, ``None`` where it begins: z_{t-1}, ``(B, P)``, and D
    #: where latents are vectors; the cell's states, ``(B P, H)``; weights ``(B, P)``, if any
    z_start: Tensor | None = None
    h_start: Tensor | None = None
    c_start: Tensor | None = None
    w_start: Tensor | None = None


class Swept(NamedTuple):
    """What a sweep leaves: see ``Sweep`` of ``smc/sweep.py``."""

    z: Tensor
    ancestors: Tensor
    log_likelihood: Tensor
    chosen_by: Tensor
    weights: Tensor | None
    h: Tensor
    c: Tensor


def run_sweep(
    entry: Callable[..., int],
    structure: type[ctypes.Structure],
    cell: CellWeights,
    settings: SweepSettings,
    z: Tensor,
    arrays: Mapping[str, Tensor | None],
    *,
    size: int,
    weighted: bool,
) -> Swept:
    """Run it, in as many threads as torch has; they change no draw.

    :param entry: function of the library, of a ``structure`` with the ``fields`` above.
    :param Tensor z: to be filled, ``(T, B, P)``, and D where latents are vectors.
    :param arrays: those of the kind's own.
    :param int size: K or D.
    :param bool weighted: whether there is a twist.
    :raises MemoryError: if there is too little.
    """
    (T, B, P), H = z.shape[:3], cell.recurrent.shape[-1]
    double = partial(torch.empty, dtype=torch.float64, device="cpu")
    found = Swept(
        z=z,
        ancestors=torch.empty(T, B, P, dtype=torch.long, device="cpu"),
        log_likelihood=double(T, B),
        chosen_by=double(T, B, P),
        weights=double(B, P) if weighted else None,
        h=cell.table.new_empty(B * P, H),
        c=cell.table.new_empty(B * P, H),
    )
    lengths, redraw_at = settings.lengths, settings.redraw_at
    # by falling length, so that those of a group that have not ended stand first
    ends = torch.full((B,), T, dtype=torch.long, device="cpu") if lengths is None else lengths
    order = ends.argsort(descending=True, stable=True)
    given = {**cell._asdict(), **settings._asdict(), **found._asdict(), **arrays, "order": order}
    # Held until the call is over, for a pointer does not keep its array.
    names = (*_ARRAYS, *arrays)
    held = {n: None if given[n] is None else given[n].contiguous() for n in names}
    sizes = {"T": T, "B": B, "P": P, "H": H, "I": cell.exogenous.shape[-1], "size": size}
    sizes |= {"kind": cell.kind, "systematic": int(settings.systematic), "lag": settings.lag}
    sizes |= {"threads": torch.get_num_threads(), "every": redraw_at.step if redraw_at else 0}
    sizes |= {"first_redraw": redraw_at.start if redraw_at else 0}
    pointers = {n: None if value is None else value.data_ptr() for n, value in held.items()}
    if entry(ctypes.byref(structure(**sizes, **pointers))):
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
