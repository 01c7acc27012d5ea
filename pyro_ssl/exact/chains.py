r"""Exact answers, where there are any: forward–backward for a Markov chain, enumeration for all.

These are the oracles that the samplers are tested against, the HMM baseline, and the start from
which stochastic EM leaves its symmetric plateau.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_kind, check_range, check_tensor
from ..steps import steps_within
from ..transitions import DiscreteTransition
from .arguments import check_chain, check_emission
from .log_space import apart, hard_sequences, log_filter, log_sample, log_smoother

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
        """Return the row of ``paths`` at which each path stands: ``(..., T)`` to ``(...)``.

        :raises ValueError: if a path is of another length, or holds what is no state.
        """
        N, T = self.paths.shape
        K = round(N ** (1 / T))
        write = "z.T for paths (T, B)"
        check_tensor("Enumeration.index", "path", path, (..., T), integer=True, write=write)
        check_range("Enumeration.index", "path", path, K, "0 to K - 1")
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
    :raises ValueError: if there are more than ``MAX_PATHS`` paths, or something does not fit.
    :raises NonFiniteError: if a log-emission is NaN or +inf.
    """
    where = "enumerate_paths"
    check_kind(where, "transition", transition, DiscreteTransition, "MarkovTransition(K)")
    log_emission = check_emission(where, log_emission, lengths)
    T, B, K = log_emission.shape
    if transition.num_states != K:
        raise ValueError(
            f"{where}: log_emission has shape {(T, B, K)}, expected (T, B, "
            f"{transition.num_states}), one for each state of the {type(transition).__name__}; "
            f"write {type(transition).__name__}({K}, ...)."
        )
    if K**T > MAX_PATHS:
        raise ValueError(
            f"{where}: {K}^{T} paths are too many to enumerate, expected at most {MAX_PATHS}; "
            "write log_emission[:8] for the first steps."
        )
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
    initial: Tensor,
    matrix: Tensor,
    log_emission: Tensor,
    lengths: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Filter an HMM by the forward algorithm, scaled at each step; differentiable.

    :param Tensor initial: p(z_1), ``(K,)``.
    :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor log_emission: log p(x_t | z_t = k), ``(T, B, K)``, of one step at least.
    :param Tensor lengths: ``(B,)``.
    :param Tensor scale: a power of p(z), ``(B,)``, in logarithms throughout; by default 1.
    :returns: p(z_t | x_{1:t}), ``(T, B, K)``, which past a sequence's length means nothing, and
        log p(x_t | x_{1:t-1}), ``(T, B)``, which is 0 there. From an observation of probability 0
        on, they are NaN and -inf.
    :raises ValueError: if something does not fit, or a row is no distribution.
    :raises NonFiniteError: if a log-emission is NaN or +inf.

    Example::

        >>> log_emission = torch.tensor([[[0.9, 0.3]], [[0.1, 0.7]]]).log()
        >>> matrix = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
        >>> belief, log_p = markov_filter(torch.tensor([0.5, 0.5]), matrix, log_emission)
        >>> belief[0, 0], log_p[0].exp()
        (tensor([0.7500, 0.2500]), tensor([0.6000]))
    """
    log_emission = check_chain("markov_filter", initial, matrix, log_emission, lengths)
    if scale is not None:
        belief, log_p = log_filter(initial, matrix, log_emission, scale)[1:]
    else:
        belief, log_p, totals = _scaled_filter(initial, matrix, log_emission)
        hard = hard_sequences(totals, lengths)
        if len(hard):
            belief, log_p = apart(
                lambda e, n: _scaled_filter(initial, matrix, e)[:2],
                lambda e, n: log_filter(initial, matrix, e)[1:],
                log_emission,
                None,
                hard,
            )
    if lengths is not None:
        log_p = torch.where(steps_within(lengths, len(log_p)), log_p, 0.0)
    return belief, log_p


def _scaled_filter(
    initial: Tensor, matrix: Tensor, log_emission: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Beliefs and log-likelihoods, and the totals by which :func:`hard_sequences` judges them."""
    shift = log_emission.amax(-1, keepdim=True)
    beliefs, totals = [], []
    predicted = initial.expand(log_emission.shape[1:])
    # Not emission[t]: the gradient of an index is as large as the tensor that was indexed.
    for emission in (log_emission - shift).exp().unbind():
        joint = predicted * emission
        totals.append(joint.sum(-1, keepdim=True))
        beliefs.append(joint / totals[-1])
        predicted = beliefs[-1] @ matrix
    total = torch.stack(totals)
    return torch.stack(beliefs), (total.log() + shift).squeeze(-1), total.detach().squeeze(-1)


def markov_log_likelihood(
    initial: Tensor,
    matrix: Tensor,
    log_emission: Tensor,
    lengths: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Return log p(x_t | x_{1:t-1}) of an HMM, ``(T, B)``, by the forward algorithm.

    Differentiable: the gradient of its sum with respect to ``log_emission`` is the posterior
    p(z_t | x), and with respect to log probabilities it is expected counts.

    :param Tensor initial: p(z_1), ``(K,)``.
    :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor log_emission: ``(T, B, K)``.
    :param Tensor scale: a power of p(z), ``(B,)``; by default 1.
    """
    return markov_filter(initial, matrix, log_emission, lengths, scale)[1]


@torch.no_grad()
def markov_marginals(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Return p(z_t | x_{1:T}) of an HMM, ``(T, B, K)``, by forward–backward.

    Past a sequence's length the marginals mean nothing.

    :raises ValueError: if a sequence has probability 0, or something does not fit.
    """
    log_emission = check_chain("markov_marginals", initial, matrix, log_emission, lengths)
    filtered, _, totals = _scaled_filter(initial, matrix, log_emission)
    hard = hard_sequences(totals, lengths)
    if len(hard):
        (marginals,) = apart(
            lambda e, n: (markov_marginals(initial, matrix, e, n),),
            lambda e, n: (log_smoother(initial, matrix, e, n),),
            log_emission,
            lengths,
            hard,
        )
        return marginals
    smoothed = [filtered[-1]]
    for t in range(len(filtered) - 2, -1, -1):
        predicted = filtered[t] @ matrix
        ratio = torch.where(predicted > 0, smoothed[0] / predicted, 0.0)
        marginal = filtered[t] * (ratio @ matrix.T)
        if lengths is not None:  # the last step of a sequence is its filter's
            marginal = torch.where((lengths == t + 1).unsqueeze(-1), filtered[t], marginal)
        smoothed.insert(0, marginal)
    return torch.stack(smoothed)


@torch.no_grad()
def sample_markov_paths(
    initial: Tensor,
    matrix: Tensor,
    log_emission: Tensor,
    lengths: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Draw z_{1:T} ~ p(z | x) of an HMM, ``(T, B)``, by forward filtering, backward sampling.

    :param Tensor scale: a power of p(z), ``(B,)``; by default 1.
    :raises ValueError: if a sequence has probability 0, or something does not fit.
    """
    log_emission = check_chain("sample_markov_paths", initial, matrix, log_emission, lengths)
    filtered, _, totals = _scaled_filter(initial, matrix, log_emission)
    hard = hard_sequences(totals, lengths)
    if scale is not None:
        path = log_sample(initial, matrix, log_emission, lengths, scale)
    elif len(hard):
        (path,) = apart(
            lambda e, n: (sample_markov_paths(initial, matrix, e, n),),
            lambda e, n: (log_sample(initial, matrix, e, n),),
            log_emission,
            lengths,
            hard,
        )
    else:
        draws = [torch.multinomial(filtered[-1], 1).squeeze(-1)]
        for t in range(len(filtered) - 2, -1, -1):
            weights = filtered[t] * matrix[:, draws[0]].T
            if lengths is not None:
                weights = torch.where((lengths <= t + 1).unsqueeze(-1), filtered[t], weights)
            draws.insert(0, torch.multinomial(weights, 1).squeeze(-1))
        path = torch.stack(draws)
    if lengths is not None:
        path = torch.where(steps_within(lengths, len(path)), path, 0)
    return path
