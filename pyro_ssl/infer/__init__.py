"""Inference for models with an ``ssl_transition``."""

from .filter_state import FilterState
from .markov_em import MarkovEM
from .mean_field import MeanFieldGuide
from .mean_field_elbo import MeanFieldELBO
from .particle_elbo import ParticleELBO
from .particle_filter import Evidence, Forecast, ParticleFilter
from .particle_gibbs import ParticleGibbs
from .particle_gibbs_kernel import ParticleGibbsKernel
from .sparse_markov import SparseMarkovEM
from .stochastic_em import StochasticEM
from .suggest import suggest_num_particles

__all__ = [
    "Evidence",
    "FilterState",
    "Forecast",
    "MarkovEM",
    "MeanFieldELBO",
    "MeanFieldGuide",
    "ParticleELBO",
    "ParticleFilter",
    "ParticleGibbs",
    "ParticleGibbsKernel",
    "SparseMarkovEM",
    "StochasticEM",
    "suggest_num_particles",
]
