"""Conditional SMC, in pure tensors: resampling, the sweep, its kinds of latents."""

from .discrete import conditional_smc, roll_out
from .gaussian import gaussian_smc
from .quadratic import QuadraticEmission
from .resampling import multinomial, systematic
from .sweep import Sweep

__all__ = [
    "QuadraticEmission",
    "Sweep",
    "conditional_smc",
    "gaussian_smc",
    "multinomial",
    "roll_out",
    "systematic",
]
