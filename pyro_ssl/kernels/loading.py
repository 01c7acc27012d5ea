"""The compiled library: which one this machine runs, and why there is none where there is none.

One library is built for each instruction set, from the same source, when the package is installed
(``setup.py``); the best that the processor has is loaded at first use. They know of neither torch
nor Python: numbers and pointers go in, so that one build serves all versions of both.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["Availability", "available", "library", "turned_off"]

#: instruction sets, best first, and what torch calls a processor that has them
INSTRUCTIONS = {
    "avx512": {"AVX512"},
    "avx2": {"AVX512", "AVX2"},
    "portable": None,
}

#: set it to 0 to sweep by torch alone
SWITCH = "PYRO_SSL_KERNELS"

_turned_off = False


class Availability(NamedTuple):
    """Whether there is a compiled library: true or false by ``yes``, and why."""

    yes: bool
    why: str

    def __bool__(self) -> bool:
        return self.yes

    def __str__(self) -> str:
        return self.why


def available() -> Availability:
    """Return whether sweeps run compiled, and why or why not.

    Example::

        >>> from pyro_ssl import kernels
        >>> print(kernels.available())  # doctest: +SKIP
        sweeps in float32 on the CPU run compiled, for avx512
    """
    if os.environ.get(SWITCH) == "0":
        return Availability(False, f"turned off: the environment has {SWITCH}=0")
    found, why = _load()
    return Availability(found is not None, why)


def library() -> ctypes.CDLL | None:
    """Return the library, or ``None`` where there is none or it is turned off."""
    return None if _turned_off or not available() else _load()[0]


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
        return found, f"sweeps in float32 on the CPU run compiled, for {name}"
    return None, why
