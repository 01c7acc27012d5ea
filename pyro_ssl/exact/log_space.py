"""The forward algorithm in logarithms, for sequences whose probabilities underflow.

The scaled algorithm of ``chains.py`` shifts log p(x_t | z_t = k) by its greatest value over k, and
costs one (B, K) x (K, K) product a step. Where only states that cannot be reached explain an
observation (a left-to-right chain and an outlier), all that is left after the shift underflows to
0/0, though the likelihood is an ordinary number. Logarithms cost K times as much, so they are taken
for those sequences alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..steps import steps_within

__all__ = ["apart", "hard_sequences", "log_filter", "log_sample", "log_smoother"]

#: stands for log 0: finite, so that differences and gradients of it are numbers
LOG_ZERO = -1e30


def hard_sequences(totals: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the indices of sequences whose scaled forward pass may have lost something.

    :param Tensor totals: Σ_k p(z_t = k | x_{1:t-1}) p(x_t | z_t = k) / max_k p(x_t | z_t = k),
        ``(T, B)``.
    """
    hard = ~(totals > torch.finfo(totals.dtype).tiny ** 0.5)
    if lengths is not None:
        hard = hard & steps_within(lengths, len(totals))
    return hard.any(0).nonzero().squeeze(-1)


def apart(
    fast: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]],
    slow: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]],
    log_emission: Tensor,
    lengths: Tensor | None,
    hard: Tensor,
) -> tuple[Tensor, ...]:
    """Compute the hard sequences by ``slow`` and the others by ``fast``; put them in order again.

    Both take log-emissions and lengths of some sequences, and return tensors, batch second.
    """
    every = torch.arange(log_emission.shape[1], device=hard.device)
    easy = every[~torch.isin(every, hard)]
    parts = [
        function(log_emission[:, index], None if lengths is None else lengths[index])
        for function, index in ((fast, easy), (slow, hard))
        if len(index)
    ]
    place = torch.cat([easy, hard]).argsort()
    return tuple(torch.cat(values, 1)[:, place] for values in zip(*parts, strict=True))


def log_filter(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return p(z_t | x_{1:t}), its logarithm and itself, ``(T, B, K)``; and log p(x_t | x_{1:t-1}).

    The last is ``(T, B)``. From an observation of probability 0 on, it is -inf and the others NaN:
    there is nothing left to condition on.

    :param Tensor scale: of log p(z) of each sequence, ``(B,)``: a power of the chain's
        probabilities, which as a number would underflow.
    """
    log_matrix, predicted = _log(matrix, scale), _log(initial, scale).expand(log_emission.shape[1:])
    beliefs, scales = [], []
    for emission in log_emission.clamp(min=LOG_ZERO).unbind():
        joint = predicted + emission
        scales.append(joint.logsumexp(-1))
        beliefs.append((joint - scales[-1].unsqueeze(-1)).clamp(min=LOG_ZERO))
        predicted = (beliefs[-1].unsqueeze(-1) + log_matrix).logsumexp(-2).clamp(min=LOG_ZERO)
    log_p = torch.stack(scales)
    dead = (log_p <= 0.5 * LOG_ZERO).cummax(0).values
    log_belief = torch.stack(beliefs).masked_fill(dead.unsqueeze(-1), torch.nan)
    return log_belief, log_belief.exp(), log_p.masked_fill(dead, -torch.inf)


def log_smoother(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, lengths: Tensor | None
) -> Tensor:
    """Return p(z_t | x_{1:T}), ``(T, B, K)``.

    :raises ValueError: if a sequence has probability 0.
    """
    beliefs, log_matrix = _possible(initial, matrix, log_emission), _log(matrix)
    smoothed = [beliefs[-1]]
    for t in range(len(beliefs) - 2, -1, -1):
        pairs = beliefs[t].unsqueeze(-1) + log_matrix  # log p(z_t, z_{t+1} | x_{1:t})
        predicted = pairs.logsumexp(-2).clamp(min=LOG_ZERO)
        ratio = torch.where(smoothed[0] > 0.5 * LOG_ZERO, smoothed[0] - predicted, LOG_ZERO)
        now = (pairs + ratio.unsqueeze(-2)).logsumexp(-1)
        if lengths is not None:  # the last step of a sequence is its filter's
            now = torch.where((lengths == t + 1).unsqueeze(-1), beliefs[t], now)
        smoothed.insert(0, now)
    return torch.stack(smoothed).exp()


def log_sample(
    initial: Tensor,
    matrix: Tensor,
    log_emission: Tensor,
    lengths: Tensor | None,
    scale: Tensor | None = None,
) -> Tensor:
    """Draw z_{1:T} ~ p(z | x), ``(T, B)``.

    :raises ValueError: if a sequence has probability 0.
    """
    beliefs = _possible(initial, matrix, log_emission, scale)
    log_matrix = _log(matrix, scale).expand(beliefs.shape[1], -1, -1)  # (B, K, K)
    every = torch.arange(len(log_matrix), device=beliefs.device)
    path = [torch.multinomial(beliefs[-1].softmax(-1), 1).squeeze(-1)]
    for t in range(len(beliefs) - 2, -1, -1):
        weights = beliefs[t] + log_matrix[every, :, path[0]]
        if lengths is not None:
            weights = torch.where((lengths <= t + 1).unsqueeze(-1), beliefs[t], weights)
        path.insert(0, torch.multinomial(weights.softmax(-1), 1).squeeze(-1))
    return torch.stack(path)


def _possible(
    initial: Tensor, matrix: Tensor, log_emission: Tensor, scale: Tensor | None = None
) -> Tensor:
    """log p(z_t | x_{1:t}) of sequences that can be, ``(T, B, K)``."""
    beliefs, _, log_p = log_filter(initial, matrix, log_emission, scale)
    dead = log_p.isneginf()
    if bool(dead.any()):
        t = int(dead.any(1).nonzero()[0])
        raise ValueError(
            f"{int(dead.any(0).sum())} sequences have probability 0 under the chain, the first at "
            f"step {t}; expected a state there that it reaches and that explains x_t. Write "
            "log_emission.clamp(min=-1e3), or a matrix without zeros."
        )
    return beliefs


def _log(p: Tensor, scale: Tensor | None = None) -> Tensor:
    """log p with :data:`LOG_ZERO` for log 0, whose gradient is then 0 and not NaN.

    :param Tensor scale: a factor for each sequence, ``(B,)``, whose dimension then comes first.
    """
    log_p = p.clamp(min=torch.finfo(p.dtype).tiny).log()
    if scale is not None:
        log_p = log_p * scale.reshape(-1, *(1 for _ in p.shape))
    return torch.where(p > 0, log_p, LOG_ZERO)
