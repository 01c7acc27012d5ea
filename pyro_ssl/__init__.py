"""State space LSTMs with particle Gibbs, for Pyro."""

from .infer import (
    Forecast,
    MarkovEM,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    ParticleGibbsKernel,
    StochasticEM,
)
from .models import TopicalSSL
from .primitive import ssl_transition
from .transitions import LSTMTransition, MarkovTransition

__version__ = "0.1.0"

__all__ = [
    "Forecast",
    "LSTMTransition",
    "MarkovEM",
    "MarkovTransition",
    "MeanFieldELBO",
    "MeanFieldGuide",
    "ParticleFilter",
    "ParticleGibbs",
    "ParticleGibbsKernel",
    "StochasticEM",
    "TopicalSSL",
    "ssl_transition",
]
