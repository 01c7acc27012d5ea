"""Backward messages of a Markov chain, compiled: ``src/messages.cpp``, ``gpu/messages.py``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .loading import library, on_gpu
from .plain import all_plain

__all__ = ["compiled_messages"]

#: from how many states on torch's product of all sequences at once is the faster
MANY_STATES = 256


def compiled_messages(back: Tensor, emission: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return β_t(k), each of maximum 1, ``(T, B, K)``; ``None`` where torch has to.

    :param Tensor back: A(j, k) in row k, ``(K, K)``.
    :param Tensor emission: p(x_t | k) over constants, float32 ``(T, B, K)``.
    """
    (T, B, K), kind = emission.shape, emission.device.type
    if back.dim() != 2 or K > MANY_STATES or not emission.numel():
        return None
    if emission.dtype != torch.float32 or not all_plain(back, emission, lengths, kind=kind):
        return None
    gpu = on_gpu(emission.device)
    if gpu is not None:
        return gpu.backward_messages(back, emission, lengths) if K <= gpu.MOST_STATES else None
    found = library()
    if found is None or kind != "cpu":
        return None
    beta = torch.ones_like(emission, memory_format=torch.contiguous_format)
    arrays = (back, emission, lengths)
    held = [None if value is None else value.contiguous() for value in arrays]
    pointers = [None if value is None else value.data_ptr() for value in held]
    sizes = [ctypes.c_int64(n) for n in (T, B, K)]
    if found.backward_messages(*sizes, *map(ctypes.c_void_p, (*pointers, beta.data_ptr()))):
        raise MemoryError(f"too little memory for the messages of {B} sequences.")
    return beta
