"""State space LSTMs with particle Gibbs, for Pyro.

The names here are what most models need. The rooms behind them are attributes too, loaded when
they are first asked for: ``pyro_ssl.exact``, ``pyro_ssl.belief``, ``pyro_ssl.datasets``,
``pyro_ssl.distributed``, ``pyro_ssl.estimators``, ``pyro_ssl.pages``, ``pyro_ssl.plotting``,
``pyro_ssl.testing``. ``pyro_ssl.mini`` is the whole idea in one file.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .cells import LSTMCell
from .errors import SSLError
from .infer import (
    MarkovEM,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    ParticleGibbsKernel,
    StochasticEM,
    suggest_num_particles,
)
from .models import IMVLSTM, GaussianSSL, LanguageModel, TopicalSSL
from .primitive import ssl_transition
from .transitions import (
    DiscreteTransition,
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovTransition,
    MultiplicativeLSTMTransition,
    RecurrentTransition,
)

if TYPE_CHECKING:
    from .testing import invariance_test, verify

__version__ = "0.1.0"

__all__ = [
    "DiscreteTransition",
    "GaussianLSTMTransition",
    "GaussianSSL",
    "IMVLSTM",
    "LSTMCell",
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
    "RecurrentTransition",
    "SSLError",
    "StochasticEM",
    "TopicalSSL",
    "invariance_test",
    "ssl_transition",
    "suggest_num_particles",
    "verify",
]

_ROOMS = tuple("belief datasets distributed estimators exact mini pages plotting testing".split())


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name in ("invariance_test", "verify"):
        return getattr(importlib.import_module(".testing", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *__all__})
