"""Exact answers: enumeration, forward-backward, the Kalman filter and smoother, EM with them."""

from .chains import (
    Enumeration,
    enumerate_paths,
    markov_filter,
    markov_log_likelihood,
    markov_marginals,
    sample_markov_paths,
)
from .kalman import (
    KalmanFilter,
    KalmanSmoother,
    LinearEmission,
    kalman_filter,
    kalman_smoother,
    sample_kalman_paths,
)
from .linear_em import LinearGaussianEM

__all__ = [
    "Enumeration",
    "KalmanFilter",
    "KalmanSmoother",
    "LinearEmission",
    "LinearGaussianEM",
    "enumerate_paths",
    "kalman_filter",
    "kalman_smoother",
    "markov_filter",
    "markov_log_likelihood",
    "markov_marginals",
    "sample_kalman_paths",
    "sample_markov_paths",
]
