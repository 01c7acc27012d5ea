"""The compiled library: which one this machine runs, and why there is none where there is none.

One library is built for each instruction set, from the same source, when the package is installed
(``setup.py``); the best that the processor has is loaded at first use. They know of neither torch
nor Python: numbers and pointers go in, so that one build serves all versions of both.

For GPUs there is Triton, which builds of torch for CUDA bring; it compiles at first use.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch

__all__ = ["Availability", "available", "library", "on_gpu", "turned_off"]

#: instruction sets, best first, and what torch calls a processor that has them
INSTRUCTIONS = {
    "avx512": {"AVX512"},
    "avx2": {"AVX512", "AVX2"},
    "portable": None,
}

#: set it to 0 to sweep by torch alone
SWITCH = "PYRO_SSL_KERNELS"

#: the kind of device that Triton's kernels run on; in its interpreter it may be the CPU
GPU = "cuda"
#: the first Triton whose tuples of arguments the kernels have been run with
LEAST_TRITON = (3, 6)
LEAST_CAPABILITY = (8, 0)

_turned_off = False


class Availability(NamedTuple):
    """Whether there is a compiled library: true or false by ``yes``, and why."""

    yes: bool
    why: str

    def __bool__(self) -> bool:
        return self.yes

    def __str__(self) -> str:
        return self.why


def available(device: torch.device | str = "cpu") -> Availability:
    """Return whether sweeps on a device run compiled, and why or why not.

    Example::

        >>> from pyro_ssl import kernels
        >>> print(kernels.available())  # doctest: +SKIP
        sweeps in float32 on the CPU run compiled, for avx512
        >>> print(kernels.available("cuda"))  # doctest: +SKIP
        sweeps over states in float32 on this GPU run compiled, by Triton 3.6.0
    """
    if os.environ.get(SWITCH) == "0":
        return Availability(False, f"turned off: the environment has {SWITCH}=0")
    device = torch.device(device)
    found: object | None = None
    if device.type == GPU:
        found, why = _load_triton(device)
    elif device.type == "cpu":
        found, why = _load()
    else:
        why = f"no sweep is compiled for {device.type}"
    return Availability(found is not None, why)


def library() -> ctypes.CDLL | None:
    """Return the library, or ``None`` where there is none or it is turned off."""
    return None if _turned_off or not available() else _load()[0]


def on_gpu(device: torch.device) -> ModuleType | None:
    """Return ``kernels.gpu`` for tensors of a device, or ``None`` if they are not for Triton."""
    if device.type != GPU or _turned_off or not available(device):
        return None
    return _load_triton(device)[0]


@contextmanager
def turned_off() -> Iterator[None]:
    """Sweep by torch alone, in a ``with`` block.

    Example::

        >>> from pyro_ssl import kernels
        >>> with kernels.turned_off():
        ...     kernels.library() is None
        True
    """
    global _turned_off
    before, _turned_off = _turned_off, True
    try:
        yield
    finally:
        _turned_off = before


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    processor = torch.backends.cpu.get_cpu_capability()
    why = (
        "no compiled library beside the package; install it where a C++17 compiler is: "
        "pip install --force-reinstall --no-deps pyro-ssl"
    )
    for name, needs in INSTRUCTIONS.items():
        path = Path(__file__).parent / f"_sweeps_{name}.so"
        if not path.exists() or (needs is not None and processor not in needs):
            continue
        try:
            found = ctypes.CDLL(str(path))
        except OSError as error:
            why = f"{path.name} does not load: {error}"
            continue
        if not _is_of_these_sources(found):
            why = (
                f"{path.name} was built from other sources than those beside it; build it anew: "
                "python setup.py build_ext --inplace, or install the package again"
            )
            continue
        return found, f"sweeps in float32 on the CPU run compiled, for {name}"
    return None, why


def _is_of_these_sources(found: ctypes.CDLL) -> bool:
    """Whether arguments mean to a library what they mean here."""
    if not hasattr(found, "sources_digest"):
        return False
    found.sources_digest.restype = ctypes.c_char_p
    sources = sorted((Path(__file__).parent / "src").iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return bool(found.sources_digest() == digest.encode())


@cache
def _load_triton(device: torch.device) -> tuple[ModuleType | None, str]:
    if device.type == "cuda" and not torch.cuda.is_available():
        return None, "torch finds no GPU"
    try:
        import triton

        from . import gpu
    except ImportError as error:
        return None, f"no Triton ({error}); install it: pip install triton"
    if tuple(map(int, triton.__version__.split(".")[:2])) < LEAST_TRITON:
        least = ".".join(map(str, LEAST_TRITON))
        return None, f"Triton {triton.__version__} is older than {least}; install a newer torch"
    if device.type == "cuda" and not torch.version.hip:
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            return None, f"Triton needs compute capability 8.0, this GPU has {capability}"
    name, sequences = f"Triton {triton.__version__}", torch.arange(1, device=device)
    try:  # it needs a C compiler, and a GPU that it knows
        gpu.uniforms(0, 0, 0, (1, 1, 1), sequences, torch.float32)
    except Exception as error:
        return None, f"{name} does not run here: {error}"
    return gpu, f"sweeps over states in float32 on this GPU run compiled, by {name}"
