"""Visited states of a network, put into K groups by k-means.

Clustering the states that a recurrent network visits is an old way to find an automaton in it; Hou
& Zhou 2018 (arXiv 1810.10708) compare several. :func:`visited_states` returns what is clustered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_finite, check_tensor, whole
from ..cells import RecurrentCell
from ..models import LanguageModel
from ..transitions import RecurrentTransition
from ..transitions.base import like_of
from .parameters import check_symbols

__all__ = ["kmeans", "nearest", "visited_states"]

_ROWS = 2**16  # points whose distances exist at once


@torch.no_grad()
def kmeans(points: Tensor, num_clusters: int, *, num_iterations: int = 30, seed: int = 0) -> Tensor:
    """Return K centres ``(K, D)`` of points ``(N, D)``: Lloyd's algorithm from a k-means++ start.

    A centre that has lost all of its points stays where it is.

    :param int num_clusters: K, at most N.
    :param int seed: of the start; the global generator is left as it is.
    :raises ValueError: if there are fewer points than clusters.

    Example::

        >>> kmeans(torch.tensor([[0.0], [0.2], [5.0], [5.2]]), 2).sort(0).values
        tensor([[0.1000],
                [5.1000]])
    """
    check_tensor("kmeans", "points", points, ("N", "D"), write="points[:, None] if D is 1")
    check_finite("kmeans", "points", points)
    N, K = len(points), whole("kmeans", "num_clusters", num_clusters, 1)
    whole("kmeans", "num_iterations", num_iterations, 0)
    seed = whole("kmeans", "seed", seed, 0)
    if K > N:
        raise ValueError(
            f"kmeans: found {N} points for num_clusters={K}; expected from 1 cluster to one for "
            "each point."
        )
    generator = torch.Generator(device=points.device).manual_seed(seed)
    first = torch.randint(N, (1,), generator=generator, device=points.device)
    centers = [points[first]]
    apart = (points - centers[0]).square().sum(-1)
    for _ in range(K - 1):  # k-means++: far points are likelier (Arthur & Vassilvitskii 2007)
        chosen = apart.clamp(min=torch.finfo(apart.dtype).tiny).multinomial(1, generator=generator)
        centers.append(points[chosen])
        apart = torch.minimum(apart, (points - centers[-1]).square().sum(-1))
    center = torch.cat(centers)
    for _ in range(num_iterations):
        label = nearest(points, center)
        size = label.new_zeros(K).index_add_(0, label, torch.ones_like(label)).unsqueeze(-1)
        total = torch.zeros_like(center).index_add_(0, label, points)
        center = torch.where(size > 0, total / size.clamp(min=1), center)
    return center


@torch.no_grad()
def nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Return the index of each point's nearest centre: ``(..., D)`` and ``(K, D)`` to ``(...)``."""
    rows = points.reshape(-1, points.shape[-1]).split(_ROWS)
    label = torch.cat([torch.cdist(part, centers).argmin(-1) for part in rows])
    return label.reshape(points.shape[:-1])


@torch.no_grad()
def visited_states(source: nn.Module | Tensor, words: Tensor) -> Tensor:
    """Return h_t of a network once it has read x_t, ``(T, B, H)``.

    :param source: a :class:`LanguageModel`; a :class:`RecurrentTransition`, which reads z_{t-1}:
        then ``words`` are latents, and h_t is the state after z_t was read; a cell
        (:class:`RecurrentCell`) or ``nn.LSTM`` (last layer) over one-hot symbols; or the states
        of any network, ``(T, B, H)``.
    :param Tensor words: int64 ``(T, B)``.
    :raises TypeError: if the source is none of these.
    :raises ValueError: if the transition reads exogenous inputs, or the words do not fit.
    """
    if isinstance(source, Tensor):
        return source
    sizes = {LanguageModel: "vocab_size", RecurrentTransition: "num_states"}
    size = next((name for kind, name in sizes.items() if isinstance(source, kind)), "input_size")
    if isinstance(source, LanguageModel | RecurrentTransition | RecurrentCell | nn.LSTM):
        check_symbols(words, None, int(getattr(source, size)), "visited_states")
    if isinstance(source, LanguageModel):
        start = torch.full_like(words[:1], source.vocab_size)
        return source.hidden(torch.cat([start, words]))[0][1:]
    if isinstance(source, RecurrentTransition):
        if source.input_size:
            raise ValueError(
                f"visited_states: the transition reads {source.input_size} exogenous inputs; "
                "compute its states h (T, B, H) with them, and give h in its place."
            )
        start = torch.full_like(words[:1], source.num_states)
        x = F.one_hot(torch.cat([start, words]), source.num_states + 1)
        return source.cell.sequence(x.to(source.like.dtype))[0][1:]
    if isinstance(source, RecurrentCell):
        dtype = like_of(source).dtype
        return source.sequence(F.one_hot(words, source.input_size).to(dtype))[0]
    if isinstance(source, nn.LSTM) and not source.batch_first:
        dtype = like_of(source).dtype
        return source(F.one_hot(words, source.input_size).to(dtype))[0]
    raise TypeError(
        f"visited_states: found {type(source).__name__}, expected a LanguageModel, a "
        "RecurrentTransition, a RecurrentCell, nn.LSTM(batch_first=False), or states (T, B, H)."
    )
