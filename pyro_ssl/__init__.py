"""State space LSTMs with particle Gibbs, for Pyro."""

from .infer import ParticleGibbs, ParticleGibbsKernel
from .primitive import ssl_transition
from .transitions import LSTMTransition, MarkovTransition

__version__ = "0.1.0"
