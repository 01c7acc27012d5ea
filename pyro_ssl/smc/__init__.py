"""Conditional SMC, in tensors only.

Read ``sweep.py`` first, the algorithm and why it is right; then ``resampling.py`` and
``ancestors.py``, and a proposal: ``discrete.py``, ``gaussian.py``, ``expanded.py``.
"""

from .emissions import Emission, QuadraticEmission, TableEmission
from .proposal import LookAhead, Proposal
from .resampling import multinomial, systematic
from .roll_out import RollOut, roll_out
from .sweep import Sweep, conditional_smc

__all__ = [
    "Emission",
    "LookAhead",
    "Proposal",
    "QuadraticEmission",
    "RollOut",
    "Sweep",
    "TableEmission",
    "conditional_smc",
    "multinomial",
    "roll_out",
    "systematic",
]
