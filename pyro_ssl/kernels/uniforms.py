"""Random numbers by counter, compiled: ``src/uniforms.cpp``, bit for bit those of torch."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .loading import library, on_gpu
from .plain import all_plain

__all__ = ["compiled_uniforms"]


def compiled_uniforms(
    seed: int,
    purpose: int,
    first: int,
    shape: tuple[int, int, int],
    sequences: Tensor,
    dtype: torch.dtype,
) -> Tensor | None:
    """Return numbers in [0, 1) of a shape (T, B, n); ``None`` where torch has to make them.

    See :class:`pyro_ssl.smc.randomness.Randomness`.
    """
    if dtype not in (torch.float32, torch.float64):
        return None
    gpu = on_gpu(sequences.device)
    if gpu is not None and all_plain(sequences, kind=sequences.device.type):
        return gpu.uniforms(seed, purpose, first, shape, sequences, dtype)
    found = library()
    if found is None or not all_plain(sequences):
        return None
    out, sequences = torch.empty(shape, dtype=dtype, device="cpu"), sequences.contiguous()
    sizes = [ctypes.c_int64(n) for n in (seed, purpose, first, *shape)]
    arrays = [ctypes.c_void_p(value.data_ptr()) for value in (sequences, out)]
    (found.uniform_floats if dtype == torch.float32 else found.uniform_doubles)(*sizes, *arrays)
    return out
