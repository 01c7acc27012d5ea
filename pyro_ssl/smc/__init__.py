"""Conditional SMC: resampling, the sweep, its latents, and reading the emission."""

from .emission import EmissionSite, StateGrid
from .gaussian import gaussian_smc
from .quadratic import QuadraticEmission
from .resampling import multinomial, systematic
from .states import conditional_smc, roll_out
from .sweep import Sweep

__all__ = [
    "EmissionSite",
    "QuadraticEmission",
    "StateGrid",
    "Sweep",
    "conditional_smc",
    "gaussian_smc",
    "multinomial",
    "roll_out",
    "systematic",
]
