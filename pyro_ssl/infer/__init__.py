"""Inference for models with an ``ssl_transition``."""

from .markov_em import MarkovEM
from .particle_filter import Forecast, ParticleFilter
from .particle_gibbs import ParticleGibbs
from .particle_gibbs_kernel import ParticleGibbsKernel
from .stochastic_em import StochasticEM

__all__ = [
    "Forecast",
    "MarkovEM",
    "ParticleFilter",
    "ParticleGibbs",
    "ParticleGibbsKernel",
    "StochasticEM",
]
