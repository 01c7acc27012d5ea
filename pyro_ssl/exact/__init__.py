"""Exact answers: enumeration, forward-backward, the Kalman filter and smoother."""

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

__all__ = [
    "Enumeration",
    "KalmanFilter",
    "KalmanSmoother",
    "LinearEmission",
    "enumerate_paths",
    "kalman_filter",
    "kalman_smoother",
    "markov_filter",
    "markov_log_likelihood",
    "markov_marginals",
    "sample_kalman_paths",
    "sample_markov_paths",
]
