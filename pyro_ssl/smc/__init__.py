"""Conditional SMC, in tensors only.

Read ``sweep.py`` first, the algorithm and why it is right; then ``resampling.py`` and
``ancestors.py``, and a proposal: ``discrete.py``, ``gaussian.py``, ``expanded.py``; ``twist.py``
and ``surrogate.py`` let particles look ahead.
"""

from .emissions import Emission, QuadraticEmission, TableEmission
from .filtering import Filtered, filter_smc
from .particles import Standing
from .proposal import LookAhead, Proposal
from .resampling import multinomial, systematic
from .roll_out import RollOut, roll_out
from .surrogate import (
    LinearSurrogate,
    MarkovSurrogate,
    Surrogate,
    fit_surrogate,
    linear_along,
    surrogate_along,
)
from .sweep import Sweep, conditional_smc

__all__ = [
    "Emission",
    "Filtered",
    "LinearSurrogate",
    "LookAhead",
    "MarkovSurrogate",
    "Proposal",
    "QuadraticEmission",
    "RollOut",
    "Standing",
    "Surrogate",
    "Sweep",
    "TableEmission",
    "conditional_smc",
    "filter_smc",
    "fit_surrogate",
    "linear_along",
    "multinomial",
    "roll_out",
    "surrogate_along",
    "systematic",
]
