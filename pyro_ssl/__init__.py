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
from .models import IMVLSTM, GaussianSSL, LanguageModel, TopicalSSL
from .primitive import ssl_transition
from .transitions import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovTransition,
    MultiplicativeLSTMTransition,
)

__version__ = "0.1.0"

__all__ = [
    "Forecast",
    "GaussianLSTMTransition",
    "GaussianSSL",
    "IMVLSTM",
    "LSTMTransition",
    "LanguageModel",
    "MarkovEM",
    "MarkovTransition",
    "MeanFieldELBO",
    "MeanFieldGuide",
    "MultiplicativeLSTMTransition",
    "ParticleFilter",
    "ParticleGibbs",
    "ParticleGibbsKernel",
    "StochasticEM",
    "TopicalSSL",
    "ssl_transition",
]
