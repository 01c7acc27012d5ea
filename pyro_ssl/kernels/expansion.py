"""One step of a proposal by expansion, compiled: ``src/expansion.cpp``, called by pointers."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from .vectors import MAX_DIM

__all__ = ["MAX_DIM", "ExpansionSteps"]

_SIZES = ("B", "P", "D", "threads")
_ARRAYS = (
    *("power", "kept", "mean", "scale", "value", "linear", "precision", "mode", "blind"),
    *("at_mode", "alpha", "shift", "rows", "noise", "defend", "z", "at_z", "log_w"),
)


class _Arguments(ctypes.Structure):
    """``ExpansionArguments`` of ``src/expansion.cpp``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        ("share", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
    ]


class ExpansionSteps:
    """The memory of one sweep's steps, and the calls that fill it; see ``smc/expanded.py``.

    What a call returns is overwritten by the same call of the next step.

    :param library: the compiled library.
    :param shape: B, P, D; D at most ``MAX_DIM``.
    :param float share: how often the transition proposes.
    :param Tensor power: of p(z_t | z_{1:t-1}), ``(B,)``, or ``None``.
    """

    def __init__(
        self, library: Any, shape: tuple[int, int, int], share: float, power: Tensor | None
    ) -> None:
        (B, P, D), self.library = shape, library
        library.expansion_entries.restype = library.expansion_rows.restype = ctypes.c_int64
        per_block = library.expansion_entries(ctypes.c_int64(D))
        blocks = -(-B * P // library.expansion_rows())
        new = torch.empty
        self.mode, self.z = (new(B, P, D, dtype=torch.float32, device="cpu") for _ in range(2))
        self.log_w, self.at_mode, self.at_z = (
            new(B, P, dtype=torch.float32, device="cpu") for _ in range(3)
        )
        self.alpha = new(B, P, dtype=torch.float64, device="cpu")
        self.shift = new(B, dtype=torch.float64, device="cpu")
        self.blind = torch.zeros((), dtype=torch.long, device="cpu")
        # Blocks are read as vectors: they have to begin where one may.
        room = new(blocks * per_block + 16, dtype=torch.float32, device="cpu")
        aligned = room[-room.data_ptr() % 64 // 4 :]
        self._given = _Arguments(B, P, D, torch.get_num_threads(), share)
        self._held: dict[str, Tensor] = {}  # a pointer does not keep its array
        own = ("mode", "log_w", "alpha", "shift", "blind", "at_mode", "at_z")
        self._give(kept=aligned, **{name: getattr(self, name) for name in own})
        if power is not None:
            self._give(power=power)

    def ahead(
        self, mean: Tensor, scale: Tensor, value: Tensor, linear: Tensor, precision: Tensor
    ) -> Tensor:
        """Make γ̃ of the transition and an expansion about its mean, and return its mode."""
        self._give(mean=mean, scale=scale, value=value, linear=linear, precision=precision)
        self._call(self.library.expansion_ahead)
        return self.mode

    def settle(self, at_mode: Tensor) -> tuple[Tensor, Tensor]:
        """Return α̃ over e^shift, and the shift, of log p(x_t | mode)."""
        self.at_mode.copy_(at_mode)
        self._call(self.library.expansion_settle)
        return self.alpha, self.shift

    def draw(self, rows: Tensor, noise: Tensor, defend: Tensor) -> Tensor:
        """Draw z_t from γ̃ of given rows, or by the transition where ``defend`` says so."""
        self._give(rows=rows, noise=noise, defend=defend, z=self.z)
        self._call(self.library.expansion_draw)
        return self.z

    def weigh(self, rows: Tensor, z: Tensor, at_z: Tensor) -> Tensor:
        """Return log w_t of z, drawn from given rows, where log p(x_t | z) is ``at_z``."""
        self.at_z.copy_(at_z)
        self._give(rows=rows, z=z)
        self._call(self.library.expansion_weigh)
        return self.log_w

    def _give(self, **arrays: Tensor) -> None:
        for name, value in arrays.items():
            self._held[name] = value = value.contiguous()
            setattr(self._given, name, value.data_ptr())

    def _call(self, function: Any) -> None:
        function(ctypes.byref(self._given))
