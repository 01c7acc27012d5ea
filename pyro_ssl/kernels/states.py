"""A sweep over states, compiled: ``src/states.cpp``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .sweeps import SweepSettings, Swept, fields, run_sweep
from .weights import CellWeights

__all__ = ["sweep_states"]

_OWN = ("emission", "twist", "u_z")


class _Arguments(ctypes.Structure):
    """``StatesArguments`` of ``src/arguments.h``."""

    _fields_ = fields(*_OWN)


def sweep_states(
    library: ctypes.CDLL,
    cell: CellWeights,
    emission: Tensor,
    twist: Tensor | None,
    u_z: Tensor,
    settings: SweepSettings,
) -> Swept:
    """Run it; see :func:`~pyro_ssl.kernels.sweeps.run_sweep`.

    :param Tensor emission: log p(x_t | z_t = k) + log β_t(k), ``(T, B, K)``; ``twist`` is the
        latter.
    :param Tensor u_z: uniforms on [0, 1) that draw z_t, ``(T, B, P)``, float32.
    """
    return run_sweep(
        library.sweep_states,
        _Arguments,
        cell,
        settings,
        torch.empty(u_z.shape, dtype=torch.long, device="cpu"),
        dict(zip(_OWN, (emission, twist, u_z), strict=True)),
        size=emission.shape[-1],
        weighted=twist is not None,
    )
