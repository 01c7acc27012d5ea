r"""Exact answers where all is linear and Gaussian: the Kalman filter, the smoother, and draws.

.. math::
    z_1 \sim \mathrm{N}(m, \mathrm{diag}\, s^2), \quad
    z_t \sim \mathrm{N}(A z_{t-1} + b + G u_t, \mathrm{diag}\, q^2), \quad
    x_t \sim \mathrm{N}(C z_t + d, R)

for a :class:`~pyro_ssl.transitions.LinearGaussianTransition` and a :class:`LinearEmission` (Zheng
et al. 2017, arXiv 1711.11179, eq. 10). The samplers over R^D are tested against them.

All covariances are carried as triangular roots, and conditioning is one QR decomposition (the
square-root array form): nothing is subtracted, so they stay positive in float32. A sensor that is
not observed at a step (NaN, masked, or past a sequence's length) is left out of its measurement.

Next files to read: ``measurements.py``, how; ``linear_em.py``, which learns the parameters.

*Reference*: Särkkä, "Bayesian Filtering and Smoothing", 2013: theorem 4.2 (filter), theorem 8.2
(smoother of Rauch, Tung & Striebel); Kailath, Sayed & Hassibi, "Linear Estimation", 2000, chapter
12 (array forms); Carter & Kohn, "On Gibbs sampling for state space models", 1994 (draws).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import sizes_of
from ..steps import steps_within
from ..transitions import LinearGaussianTransition
from .arguments import check_kalman
from .measurements import LinearEmission, measurements

__all__ = [
    "KalmanFilter",
    "KalmanSmoother",
    "LinearEmission",
    "kalman_filter",
    "kalman_smoother",
    "sample_kalman_paths",
]


class KalmanFilter(NamedTuple):
    """What :func:`kalman_filter` found.

    ``log_likelihood`` log p(x_t | x_{1:t-1}), ``(T, B)``; ``mean`` E[z_t | x_{1:t}],
    ``(T, B, D)``; ``covariance`` Cov[z_t | x_{1:t}], ``(T, B, D, D)``.
    """

    log_likelihood: Tensor
    mean: Tensor
    covariance: Tensor


class KalmanSmoother(NamedTuple):
    """What :func:`kalman_smoother` found.

    ``mean`` E[z_t | x_{1:T}], ``(T, B, D)``; ``covariance`` Cov[z_t | x_{1:T}],
    ``(T, B, D, D)``; ``lagged`` Cov[z_{t+1}, z_t | x_{1:T}], ``(T - 1, B, D, D)``.
    """

    mean: Tensor
    covariance: Tensor
    lagged: Tensor


def kalman_filter(
    transition: LinearGaussianTransition,
    emission: LinearEmission,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
) -> KalmanFilter:
    """Filter: p(z_t | x_{1:t}) of every step, and the evidence step by step. Differentiable.

    :param LinearGaussianTransition transition: of dimension D.
    :param LinearEmission emission: of x_t given z_t.
    :param Tensor x: data, time first, ``(T, B, E)``; NaN is a sensor that was not observed.
    :param Tensor mask: bool ``(T, B)``, true where x_t is observed, or ``(T, B, E)``, sensor by
        sensor; the rest may hold anything, and adds 0 to the log-likelihood.
    :param Tensor lengths: integers ``(B,)``: steps at or past a sequence's length are not
        observed, and their moments are predictions.
    :param Tensor inputs: u, ``(T, B, U)``, or ``(T, U)`` for all sequences, where the transition
        reads any.
    :returns: :class:`KalmanFilter`.
    :raises ValueError: if shapes, dtypes or devices do not fit, or the covariance is none.
    :raises NonFiniteError: if an observation is infinite, or an input is not finite.

    Example::

        >>> from pyro_ssl.transitions import LinearGaussianTransition
        >>> chain = LinearGaussianTransition(2)
        >>> emission = LinearEmission(torch.ones(1, 2), torch.zeros(1), torch.eye(1))
        >>> found = kalman_filter(chain, emission, torch.randn(5, 3, 1))     # (T, B, E)
        >>> found.log_likelihood.shape, found.covariance.shape
        (torch.Size([5, 3]), torch.Size([5, 3, 2, 2]))
    """
    seen = check_kalman("kalman_filter", transition, emission, x, mask, lengths, inputs)
    scores, means, roots = _filter(transition, emission, x, seen, inputs)
    return KalmanFilter(scores, means, roots @ roots.mT)


@torch.no_grad()
def kalman_smoother(
    transition: LinearGaussianTransition,
    emission: LinearEmission,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
) -> KalmanSmoother:
    """Smooth: p(z_t | x_{1:T}) of every step; takes what :func:`kalman_filter` takes.

    :returns: :class:`KalmanSmoother`; past a sequence's length these are predictions.

    Example::

        >>> from pyro_ssl.transitions import LinearGaussianTransition
        >>> emission = LinearEmission(torch.ones(1, 2), torch.zeros(1), torch.eye(1))
        >>> found = kalman_smoother(LinearGaussianTransition(2), emission, torch.randn(5, 3, 1))
        >>> found.mean.shape
        torch.Size([5, 3, 2])
    """
    seen = check_kalman("kalman_smoother", transition, emission, x, mask, lengths, inputs)
    return smoothed_with_scores(transition, emission, x, seen, inputs)[1]


@torch.no_grad()
def smoothed_with_scores(
    transition: LinearGaussianTransition,
    emission: LinearEmission,
    x: Tensor,
    seen: Tensor,
    inputs: Tensor | None,
) -> tuple[Tensor, KalmanSmoother]:
    """Return log p(x_t | x_{1:t-1}), ``(T, B)``, and the smoother; nothing is checked.

    :param Tensor seen: what was observed, bool ``(T, B, E)``.
    """
    scores, filtered, roots = _filter(transition, emission, x, seen, inputs)
    drift = _drift(transition, inputs, len(x))
    mean, root = filtered[-1], roots[-1]
    means, smoothed, gains = [mean], [root], []
    for t in range(len(x) - 2, -1, -1):
        ahead, _, gain, rest = _look_back(transition, filtered[t], roots[t], drift[t + 1])
        mean = filtered[t] + _apply(gain, mean - ahead)
        root = _root_of_sum(rest, gain @ root)
        means.append(mean)
        smoothed.append(root)
        gains.append(gain)
    root = torch.stack(smoothed[::-1])
    covariance = root @ root.mT
    gain = torch.stack(gains[::-1]) if gains else covariance[:0]
    found = KalmanSmoother(torch.stack(means[::-1]), covariance, covariance[1:] @ gain.mT)
    return scores, found


@torch.no_grad()
def sample_kalman_paths(
    transition: LinearGaussianTransition,
    emission: LinearEmission,
    x: Tensor,
    sample_shape: torch.Size | tuple[int, ...] = (),
    *,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
) -> Tensor:
    """Draw whole paths z_{1:T} ~ p(z | x), by forward filtering, backward sampling.

    :param torch.Size sample_shape: how many independent paths for each sequence.
    :returns: ``sample_shape + (T, B, D)``, 0 past a sequence's length. The other arguments are
        those of :func:`kalman_filter`.

    Example::

        >>> from pyro_ssl.transitions import LinearGaussianTransition
        >>> emission = LinearEmission(torch.ones(1, 2), torch.zeros(1), torch.eye(1))
        >>> chain, x = LinearGaussianTransition(2), torch.randn(5, 3, 1)
        >>> sample_kalman_paths(chain, emission, x, (100,)).shape
        torch.Size([100, 5, 3, 2])
    """
    seen = check_kalman("sample_kalman_paths", transition, emission, x, mask, lengths, inputs)
    sizes = sizes_of("sample_kalman_paths", "sample_shape", sample_shape)
    _, means, roots = _filter(transition, emission, x, seen, inputs)
    drift = _drift(transition, inputs, len(x))
    shape = sizes + means.shape
    noise = torch.randn(shape, dtype=means.dtype, device=means.device)
    z = means[-1] + _apply(roots[-1], noise[..., -1, :, :])  # sample_shape + (B, D)
    path = [z]
    for t in range(len(x) - 2, -1, -1):
        ahead, _, gain, rest = _look_back(transition, means[t], roots[t], drift[t + 1])
        z = means[t] + _apply(gain, z - ahead) + _apply(rest, noise[..., t, :, :])
        path.append(z)
    drawn = torch.stack(path[::-1], -3)
    if lengths is None:
        return drawn
    past = ~steps_within(lengths, len(x))
    return drawn.masked_fill(past.unsqueeze(-1), 0.0)


def _filter(
    transition: LinearGaussianTransition,
    emission: LinearEmission,
    x: Tensor,
    seen: Tensor,
    inputs: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-likelihoods ``(T, B)``, filtered means ``(T, B, D)`` and roots ``(T, B, D, D)``."""
    B, D = x.shape[1], transition.dim
    drift = _drift(transition, inputs, len(x))
    matrix, value, constant = measurements(emission, x, seen)
    unit = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
    there = seen.any(-1)
    mean = transition.initial_mean.expand(B, D)
    root = transition.initial_scale.diag().expand(B, D, D)
    scores, means, roots = [], [], []
    for t in range(len(x)):
        if t:
            mean, root, _, _ = _look_back(transition, mean, root, drift[t])
        residual = value[t] - _apply(matrix[t], mean)
        root_x, gain, root = _condition(root, matrix[t], unit)
        scores.append(torch.where(there[t], constant[t] + _log_normal(residual, root_x), 0.0))
        mean = mean + _apply(gain, residual)
        means.append(mean)
        roots.append(root)
    return torch.stack(scores), torch.stack(means), torch.stack(roots)


def _drift(transition: LinearGaussianTransition, inputs: Tensor | None, T: int) -> Tensor:
    """What each step adds to A z_{t-1}: ``(T, 1 or B, D)``."""
    if inputs is None:
        return transition.offset.expand(T, 1, -1)
    return transition.drift(inputs if inputs.dim() == 3 else inputs.unsqueeze(1))


def _condition(root: Tensor, matrix: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Condition z ~ N(., root rootᵀ) on y = matrix z + noise N(0, 1).

    :param Tensor root: ``(B, D, D)``.
    :param Tensor matrix: ``(B, E, D)`` or ``(E, D)``.
    :param Tensor noise: ``(E, E)``.
    :returns: a root of Cov[y], ``(B, E, E)``; the gain Cov[z, y] Cov[y]⁻¹, ``(B, D, E)``; a root of
        Cov[z | y], ``(B, D, D)``. Roots are lower triangular, with a diagonal of any sign.
    """
    B, D, E = *root.shape[:2], len(noise)
    ofz = torch.cat([matrix @ root, root], 1)  # what z's noise does to (y, z), (B, E + D, D)
    ofy = torch.cat([noise, noise.new_zeros(D, E)]).expand(B, E + D, E)
    lower = _root_of_sum(ofz, ofy)  # of Cov[(y, z)]
    root_y, cross, rest = lower[:, :E, :E], lower[:, E:, :E], lower[:, E:, E:]
    return root_y, torch.linalg.solve_triangular(root_y, cross, upper=False, left=False), rest


def _look_back(
    transition: LinearGaussianTransition, mean: Tensor, root: Tensor, drift: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From p(z_t): mean and root of z_{t+1}, then gain and root of z_t given z_{t+1}."""
    ahead = mean @ transition.matrix.T + drift
    return ahead, *_condition(root, transition.matrix, transition.scale.diag())


def _root_of_sum(a: Tensor, b: Tensor) -> Tensor:
    """A lower triangular root of a aᵀ + b bᵀ, for ``(B, N, .)`` of N or more columns together."""
    return torch.linalg.qr(torch.cat([a, b], -1).mT).R.mT


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """``(B, N, M)`` and ``(..., B, M)`` to ``(..., B, N)``."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _log_normal(residual: Tensor, root: Tensor) -> Tensor:
    """log N(residual; 0, root rootᵀ) but for its 2π: ``(B, E)`` and ``(B, E, E)`` to ``(B,)``."""
    white = torch.linalg.solve_triangular(root, residual.unsqueeze(-1), upper=False).squeeze(-1)
    log_det = root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    return -0.5 * white.square().sum(-1) - log_det
