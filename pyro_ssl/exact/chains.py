r"""Exact answers over discrete latents: forward–backward for a Markov chain, enumeration for all.

The samplers are tested against them, the HMM baseline uses them, and so does the warm start of
stochastic EM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..transitions import DiscreteTransition

__all__ = [
    "Enumeration",
    "enumerate_paths",
    "markov_filter",
    "markov_log_likelihood",
    "markov_marginals",
    "sample_markov_paths",
]

#: enumeration refuses more paths than this
MAX_PATHS = 2_000_000


@dataclass(frozen=True)
class Enumeration:
    """Every path of a short sequence. ``paths`` ``(N, T)`` counts in base K, first step highest;
    ``log_joint`` ``(B, N)`` is log p(z, x); ``log_evidence`` ``(B,)``; ``posterior`` ``(B, N)``.
    """

    paths: Tensor
    log_joint: Tensor

    @property
    def log_evidence(self) -> Tensor:
        """Return log p(x), ``(B,)``."""
        return self.log_joint.logsumexp(-1)

    @property
    def posterior(self) -> Tensor:
        """Return p(z | x) of each path, ``(B, N)``."""
        return self.log_joint.softmax(-1)

    def index(self, path: Tensor) -> Tensor:
        """Return the row of each path in ``paths``: ``(..., T)`` to ``(...)``."""
        N, T = self.paths.shape
        K = round(N ** (1 / T)) if T else 1
        powers = K ** torch.arange(T - 1, -1, -1, device=path.device)
        return (path * powers).sum(-1)


@torch.no_grad()
def enumerate_paths(
    transition: DiscreteTransition,
    log_emission: Tensor,
    *,
    inputs: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Enumeration:
    """Return the joint of all K^T paths with the data, by brute force.

    :param Tensor log_emission: ``(T, B, K)``.
    :param Tensor inputs: ``(T, B, input_size)``.
    :param Tensor lengths: ``(B,)``: paths with anything but 0 past the length have probability 0.
    :raises ValueError: if there are more than ``MAX_PATHS`` paths.
    """
    T, B, K = log_emission.shape
    if K**T > MAX_PATHS:
        raise ValueError(f"{K}^{T} paths are too many to enumerate, expected at most {MAX_PATHS}.")
    device = log_emission.device
    grid = torch.meshgrid([torch.arange(K, device=device)] * T, indexing="ij")
    paths = torch.stack([axis.reshape(-1) for axis in grid], -1)  # (N, T)
    if inputs is None:
        log_prior = transition.log_prob(paths).unsqueeze(1)  # (N, 1, T)
    else:
        log_prior = transition.log_prob(
            paths.unsqueeze(1).expand(-1, B, -1), inputs.transpose(0, 1)
        )  # (N, B, T)
    steps = torch.arange(T, device=device)
    log_x = log_emission[steps, :, paths]  # (N, T, B)
    log_joint = log_prior.transpose(1, 2) + log_x  # (N, T, B)
    if lengths is not None:
        past = steps[:, None] >= lengths  # (T, B)
        log_joint = log_joint.masked_fill(past, 0.0)
        stray = (past & (paths != 0).unsqueeze(-1)).any(1)  # (N, B)
        return Enumeration(paths, log_joint.sum(1).masked_fill(stray, -math.inf).T)
    return Enumeration(paths, log_joint.sum(1).T)


def markov_filter(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Filter an HMM by the forward algorithm, scaled at each step; differentiable.

    :param Tensor initial: p(z_1), ``(K,)``.
    :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor log_emission: log p(x_t | z_t = k), ``(T, B, K)``, of one step at least.
    :param Tensor lengths: ``(B,)``.
    :returns: p(z_t | x_{1:t}), ``(T, B, K)``, which past a sequence's length means nothing, and
        log p(x_t | x_{1:t-1}), ``(T, B)``, which is 0 there.

    Example::

        >>> log_emission = torch.tensor([[[0.9, 0.3]], [[0.1, 0.7]]]).log()
        >>> matrix = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
        >>> belief, log_p = markov_filter(torch.tensor([0.5, 0.5]), matrix, log_emission)
        >>> belief[0, 0], log_p[0].exp()
        (tensor([0.7500, 0.2500]), tensor([0.6000]))
    """
    T, B, K = log_emission.shape
    shift = log_emission.amax(-1, keepdim=True)
    filtered, scales = [], []
    predicted = initial.expand(B, K)
    # Not emission[t]: the gradient of an index is as large as the tensor that was indexed.
    for emission in (log_emission - shift).exp().unbind():
        joint = predicted * emission
        total = joint.sum(-1, keepdim=True)
        filtered.append(joint / total)
        scales.append(total.log())
        predicted = filtered[-1] @ matrix
    log_likelihood = (torch.stack(scales) + shift).squeeze(-1)
    if lengths is not None:
        past = torch.arange(T, device=log_emission.device)[:, None] >= lengths
        log_likelihood = log_likelihood.masked_fill(past, 0.0)
    return torch.stack(filtered), log_likelihood


def markov_log_likelihood(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Return log p(x_t | x_{1:t-1}) of an HMM, ``(T, B)``, by the forward algorithm.

    Differentiable: the gradient of its sum with respect to ``log_emission`` is the posterior
    p(z_t | x), and with respect to log probabilities it is expected counts.

    :param Tensor initial: p(z_1), ``(K,)``.
    :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor log_emission: ``(T, B, K)``.
    """
    return markov_filter(initial, matrix, log_emission, lengths)[1]


@torch.no_grad()
def markov_marginals(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Return p(z_t | x_{1:T}) of an HMM, ``(T, B, K)``, by forward–backward.

    Past a sequence's length the marginals mean nothing.
    """
    filtered, _ = markov_filter(initial, matrix, log_emission, lengths)
    T = len(filtered)
    smoothed = [filtered[-1]]
    for t in range(T - 2, -1, -1):
        predicted = filtered[t] @ matrix
        ratio = torch.where(predicted > 0, smoothed[0] / predicted, 0.0)
        marginal = filtered[t] * (ratio @ matrix.T)
        if lengths is not None:  # at its last step a sequence is filtered only
            marginal = torch.where((lengths == t + 1).unsqueeze(-1), filtered[t], marginal)
        smoothed.insert(0, marginal)
    return torch.stack(smoothed)


@torch.no_grad()
def sample_markov_paths(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Draw z_{1:T} ~ p(z | x) of an HMM, ``(T, B)``, by forward filtering, backward sampling."""
    filtered, _ = markov_filter(initial, matrix, log_emission, lengths)
    T = len(filtered)
    z = torch.multinomial(filtered[-1], 1).squeeze(-1)
    path = [z]
    for t in range(T - 2, -1, -1):
        weights = filtered[t] * matrix[:, path[0]].T
        if lengths is not None:
            weights = torch.where((lengths <= t + 1).unsqueeze(-1), filtered[t], weights)
        path.insert(0, torch.multinomial(weights, 1).squeeze(-1))
    z = torch.stack(path)
    if lengths is not None:
        past = torch.arange(T, device=z.device)[:, None] >= lengths
        z = z.masked_fill(past, 0)
    return z
