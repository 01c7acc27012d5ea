"""Conditional SMC over discrete latents: resampling, the sweep, and reading the emission."""

from .emission import EmissionSite, StateGrid
from .resampling import multinomial, systematic
from .sweep import Sweep, conditional_smc, roll_out

__all__ = [
    "EmissionSite",
    "StateGrid",
    "Sweep",
    "conditional_smc",
    "multinomial",
    "roll_out",
    "systematic",
]
