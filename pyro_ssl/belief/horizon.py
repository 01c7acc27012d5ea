r"""How far back a change of one latent still moves the prediction.

On a path z_{1:T}, change z_s to z', and nothing else; at lag l = t - s

.. math::
    \mathrm{TV}_l = \mathrm{E}\, \tfrac12 \sum_k \left| p(z_t = k \mid z_{1:t-1}) -
    p(z_t = k \mid z_{1:s-1}, z', z_{s+1:t-1}) \right|.

Values between s and t stay as they are, so that memory is measured: for a Markov chain of order r
it is 0 beyond lag r. It is a mean over paths, places s and values z', and depends on how these are
drawn; see :func:`memory_horizon`. A horizon of 1 does not mean that data are forgotten at once,
since a state in which the chain stays remembers them. It means that the prediction needs no latent
but the last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import check_kind, check_lengths, check_positive, check_range, check_tensor, whole
from ..errors import NonFiniteError
from ..gradients import evaluating
from ..steps import steps_within
from ..transitions import DiscreteTransition, GaussianTransition, Moments, Transition
from ..transitions.path import PathDistribution

__all__ = ["MemoryHorizon", "gaussian_total_variation", "memory_horizon"]


class MemoryHorizon(NamedTuple):
    """Mean total variation by lag: ``lags`` ``(L,)`` from 1, ``tv`` and its ``standard_error``
    over paths ``(L,)`` (NaN for a single path), and the ``threshold`` of :attr:`horizon`.
    """

    lags: Tensor
    tv: Tensor
    standard_error: Tensor
    threshold: float

    @property
    def horizon(self) -> int:
        """The largest lag at which the total variation is above the threshold, 0 if none is.

        If it is the greatest of :attr:`lags`, the horizon is at least that.
        """
        return int((self.lags * (self.tv > self.threshold)).max())


@torch.no_grad()
def memory_horizon(
    transition: Transition,
    *,
    max_lag: int = 20,
    z: Tensor | None = None,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
    num_paths: int = 200,
    length: int | None = None,
    num_positions: int = 8,
    num_changes: int = 1,
    change: float = 1.0,
    threshold: float = 0.01,
) -> MemoryHorizon:
    r"""Measure how far back a changed latent moves the prediction, by lag.

    A discrete z_s becomes one of the other states, each with the same probability. A vector is
    moved by ``change`` standard deviations of p(z_s | z_{1:s-1}) in each coordinate, up or down
    with the same probability; the total variation is exact where D = 1 or where both distributions
    have the same scale, and otherwise estimated by 64 draws, without bias
    (:func:`gaussian_total_variation`).

    :param Transition transition: of either kind; dropout is switched off.
    :param int max_lag: L.
    :param Tensor z: paths to change, ``(N, T)`` or ``(N, T, D)``, more than ``max_lag`` long:
        give posterior draws to see what a fitted model remembers of its data. By default they are
        drawn from the transition.
    :param Tensor lengths: of the paths, ``(N,)``.
    :param Tensor inputs: exogenous inputs, ``(N, T, input_size)``, if the transition reads any.
    :param int num_paths: N, where they are drawn.
    :param int length: T, where they are drawn; by default three times ``max_lag``.
    :param int num_positions: places s on each path, at most; they are evenly spaced, each with
        ``max_lag`` steps after it.
    :param int num_changes: other values z' at each place; K - 1 for all of them.
    :param float change: of vectors, in standard deviations.
    :param float threshold: of the total variation, for :attr:`MemoryHorizon.horizon`.
    :raises ValueError: if the paths are too short.
    :raises NonFiniteError: if a changed path has no prediction.

    Example::

        >>> from pyro_ssl import MarkovTransition
        >>> chain = MarkovTransition(2, matrix=torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
        >>> found = memory_horizon(chain, max_lag=3)
        >>> found.tv, found.horizon
        (tensor([0.7000, 0.0000, 0.0000]), 1)
    """
    where = "memory_horizon"
    check_kind(where, "transition", transition, Transition, "model.transition")
    max_lag, num_paths = (
        whole(where, "max_lag", max_lag, 1),
        whole(where, "num_paths", num_paths, 1),
    )
    num_positions = whole(where, "num_positions", num_positions, 1)
    if z is None:
        T = 3 * max_lag if length is None else length
        batch = (num_paths,) if inputs is None else (inputs.shape[0],)
        T = T if inputs is None else inputs.shape[1]
        z = PathDistribution(transition, T, inputs=inputs, batch_shape=batch).sample()
    event, like = tuple(transition.event_shape), transition.like
    check_tensor(
        where, "z", z, ("N", "T", *event), like=like, integer=not event, some="N", write="z[None]"
    )
    N, T = z.shape[:2]
    check_lengths(where, lengths, T, N, z.device)
    _check(z, lengths, max_lag, num_changes, transition)
    n, last = min(num_positions, T - max_lag), T - 1 - max_lag
    places = [round(last * i / max(n - 1, 1)) for i in range(n)]
    total, count = (z.new_zeros(N, max_lag, dtype=transition.like.dtype) for _ in range(2))
    with evaluating(transition):
        for s in places:
            end = s + max_lag + 1
            u = None if inputs is None else inputs[:, :end]
            tv = _after_change(transition, z[:, :end], u, s, num_changes, change)
            within = torch.ones_like(tv, dtype=torch.bool)
            if lengths is not None:
                within = steps_within(lengths, end, time_first=False)[:, s + 1 :]
            total += torch.where(within, tv, 0.0)
            count += within
    if not bool(total.isfinite().all()):
        raise NonFiniteError(
            "memory_horizon: the prediction after a change is NaN: the changed path is one that "
            "the transition holds impossible; expected positive probabilities, write "
            "MarkovTransition(K, matrix=0.999 * A + 0.001 / K), or the like."
        )
    seen = (count > 0).to(total.dtype)  # (N, L)
    per_path = total / count.clamp(min=1.0)
    paths = seen.sum(0)
    mean = per_path.sum(0) / paths
    spread = (seen * (per_path - mean).square()).sum(0)
    lags = torch.arange(1, max_lag + 1, device=z.device)
    return MemoryHorizon(lags, mean, (spread / (paths * (paths - 1))).sqrt(), float(threshold))


def _after_change(
    transition: Transition, z: Tensor, inputs: Tensor | None, s: int, num_changes: int, size: float
) -> Tensor:
    """Total variation at each step after s, from paths with z_s changed, ``(N, L)``."""
    out = []
    if isinstance(transition, DiscreteTransition):
        K, p = transition.num_states, transition.path_logits(z, inputs).softmax(-1)
        chances = torch.ones(len(z), K - 1, device=z.device, dtype=p.dtype)
        for offset in chances.multinomial(num_changes).T + 1:  # no value twice
            q = transition.path_logits(_replaced(z, s, (z[:, s] + offset) % K), inputs).softmax(-1)
            out.append((p - q)[:, s + 1 :].abs().sum(-1) / 2)
        return torch.stack(out).mean(0)
    assert isinstance(transition, GaussianTransition)
    before = transition.path_moments(z, inputs)
    for _ in range(num_changes):
        sign = torch.randint_like(z[:, s], 2) * 2 - 1
        moved = z[:, s] + size * sign * before.scale[:, s]
        after = transition.path_moments(_replaced(z, s, moved), inputs)
        old, new = (Moments(*(m[:, s + 1 :] for m in moments)) for moments in (before, after))
        out.append(_total_variation(old, new))
    return torch.stack(out).mean(0)


def _replaced(z: Tensor, s: int, value: Tensor) -> Tensor:
    """Paths ``(N, T, ...)`` with another z_s."""
    out = z.clone()
    out[:, s] = value
    return out


def gaussian_total_variation(p: Moments, q: Moments, *, num_draws: int = 64) -> Tensor:
    r"""Total variation between normals of diagonal covariance, ``(..., D)`` to ``(...)``.

    Where both have the same scale it is 2Φ(‖δ‖/2) - 1, with δ the standardised difference of the
    means. At D = 1 it is exact for any scales, from the points where the two densities cross.
    Otherwise E_p max(0, 1 - q/p) is estimated by a mean over draws, without bias.

    :raises ValueError: if shapes differ, or a scale is not positive.

    Example::

        >>> p = Moments(torch.tensor([0.0]), torch.tensor([1.0]))
        >>> gaussian_total_variation(p, Moments(torch.tensor([2.0]), torch.tensor([1.0])))
        tensor(0.6827)
    """
    for name, moments in {"p": p, "q": q}.items():
        for part, value in zip(Moments._fields, moments, strict=True):
            shape = tuple(p.mean.shape)
            check_tensor(
                "gaussian_total_variation",
                f"{name}.{part}",
                value,
                shape,
                like=p.mean,
                write="both",
            )
        check_positive("gaussian_total_variation", f"{name}.scale", moments.scale)
    whole("gaussian_total_variation", "num_draws", num_draws, 1)
    return _total_variation(p, q, num_draws)


def _total_variation(p: Moments, q: Moments, num_draws: int = 64) -> Tensor:
    distance, ratio = (q.mean - p.mean) / p.scale, q.scale / p.scale
    apart = torch.linalg.vector_norm(distance, dim=-1)
    exact = torch.erf(apart / math.sqrt(8.0))
    if distance.shape[-1] == 1:
        other = _crossing_total_variation(distance[..., 0], ratio[..., 0])
    else:
        x = torch.randn(num_draws, *distance.shape, device=apart.device, dtype=apart.dtype)
        log_ratio = (x.square() - ((x - distance) / ratio).square()).sum(-1) / 2
        log_ratio = log_ratio - ratio.log().sum(-1)
        other = -torch.expm1(log_ratio.clamp(max=0.0)).mean(0)
    return torch.where((ratio == 1.0).all(-1), exact, other)


def _crossing_total_variation(distance: Tensor, ratio: Tensor) -> Tensor:
    """Total variation of N(0, 1) and N(δ, r²), r ≠ 1: the densities cross at the two roots of
    (1 - r²) x² - 2 δ x + δ² + 2 r² log r = 0.
    """
    a, c = 1.0 - ratio.square(), distance.square() + 2.0 * ratio.square() * ratio.log()
    root = (distance.square() - a * c).clamp(min=0.0).sqrt()
    far = distance + torch.where(distance < 0, -root, root)  # of equal signs: nothing cancels
    ends = torch.stack([c / far, far / a])
    mass = torch.special.ndtr(ends) - torch.special.ndtr((ends - distance) / ratio)
    return (mass[0] - mass[1]).abs()


def _check(
    z: Tensor, lengths: Tensor | None, max_lag: int, num_changes: int, transition: Transition
) -> None:
    """Refuse paths that are too short, and more changes than there are other states."""
    longest = z.shape[1] if lengths is None else int(lengths.max())
    if not max_lag < longest or not len(z):
        raise ValueError(
            f"memory_horizon: found {len(z)} paths of up to {longest} steps for max_lag={max_lag}; "
            f"expected at least one of {max_lag + 1} steps; write max_lag={max(longest - 1, 1)}."
        )
    if isinstance(transition, DiscreteTransition):
        check_range("memory_horizon", "z", z, transition.num_states, "0 to K - 1")
        others = transition.num_states - 1
        if not 1 <= num_changes <= others:
            raise ValueError(
                f"memory_horizon: num_changes is {num_changes}, expected from 1 to K - 1 = "
                f"{others}, the number of other states."
            )
