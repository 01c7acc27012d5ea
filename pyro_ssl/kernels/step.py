"""One step of a recurrent cell and its output layer, compiled: ``src/step.cpp``."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import torch
from torch import Tensor

from .weights import CellWeights

__all__ = ["CompiledStep"]


class _Arguments(ctypes.Structure):
    """``StepArguments`` of ``src/step.cpp``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("N", "threads")),
        *((name, ctypes.c_void_p) for name in ("read", "h", "c", "h_next", "c_next", "out")),
    ]


class CompiledStep:
    """A cell over vectors, its weights packed once.

    :param library: the compiled library.
    :param CellWeights cell: its ``table`` as over vectors.
    :raises MemoryError: if there is too little.
    """

    def __init__(self, library: Any, cell: CellWeights) -> None:
        self.library, self.outputs = library, len(cell.head)
        sizes = (cell.kind, len(cell.table), cell.recurrent.shape[-1], self.outputs)
        arrays = (cell.table, cell.recurrent, cell.to_m, cell.bias_h, cell.head, cell.head_bias)
        library.step_new.restype = ctypes.c_void_p
        packed = library.step_new(
            *map(ctypes.c_int64, sizes),
            *(ctypes.c_void_p(None if v is None else v.data_ptr()) for v in arrays),
        )
        if packed is None:
            raise MemoryError("too little memory for the weights of a cell.")
        self.packed = ctypes.c_void_p(packed)
        weakref.finalize(self, library.step_free, self.packed)

    def __call__(self, read: Tensor | None, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next h and c ``(N, H)``, and the output layer's ``(N, outputs)``.

        :param Tensor read: numbers ``(N, R)``; ``None`` at the start.
        """
        held = [None if v is None else v.contiguous() for v in (read, h, c)]
        new = [torch.empty_like(h, memory_format=torch.contiguous_format) for _ in range(2)]
        new.append(h.new_empty(len(h), self.outputs))
        pointers = (None if value is None else value.data_ptr() for value in (*held, *new))
        given = _Arguments(len(h), torch.get_num_threads(), *pointers)
        if self.library.step_run(self.packed, ctypes.byref(given)):
            raise MemoryError(f"too little memory for a step of {len(h)} particles.")
        return new[0], new[1], new[2]
