"""What a fitted topical SSL says of documents, a block of them in memory at a time.

Documents are independent given the parameters, and have random numbers of their own: scores do not
depend on how many are in a block, but for which twist a block's trial chooses; shares do through
their random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..distributed import current
from ..infer import ParticleFilter, ParticleGibbs
from ..infer.blocks import block_size, blocks
from ..reading.context import private_store
from .corpus_words import CorpusWords
from .door import active_cells

__all__ = ["by_block", "filtered_log_likelihood", "filtered_perplexity", "sampled_shares"]


def by_block(
    words: Tensor | CorpusWords, lengths: Tensor | None, size: int, start: int = 0
) -> Iterator[tuple[Tensor, Tensor, Tensor | None, int]]:
    """Split documents into blocks.

    :param int size: documents in a block at most.
    :param int start: leave blocks out that have no word from this step on.
    :returns: for each block the places of its documents, their words and lengths, and how many
        words they have from ``start`` on.

    Example::

        >>> words = torch.arange(10).view(2, 5)
        >>> [(block.tolist(), n) for _, block, _, n in by_block(words, None, 3)]
        [([[0, 1, 2], [5, 6, 7]], 6), ([[3, 4], [8, 9]], 4)]
    """
    for index in blocks(words.shape[1], size, words.device):
        block, n = words[:, index], None if lengths is None else lengths[index]
        if num_words := int(active_cells(block, n)[start:].sum()):
            yield index, block, n, num_words


def filtered_log_likelihood(
    model: Callable[..., Any],
    words: Tensor,
    lengths: Tensor | None,
    num_particles: int,
    sizes: tuple[int, int],
) -> Tensor:
    """Return log p̂(x_t | x_{1:t-1}), float64 ``(T, B)``; see :class:`~pyro_ssl.ParticleFilter`.

    :param model: of words, lengths and the places of some documents, with all latent sites but the
        path given.
    :param sizes: K and H.
    """
    pf, size = _filter(model, num_particles), _size(words, num_particles, sizes)
    log_p = torch.zeros(words.shape, dtype=torch.float64, device=words.device)
    with private_store():
        for index, *_ in by_block(words, lengths, size):
            log_p[:, index] = pf.log_likelihood(words, lengths, index)
    return log_p


def filtered_perplexity(
    model: Callable[..., Any],
    words: Tensor | CorpusWords,
    lengths: Tensor | None,
    num_particles: int,
    sizes: tuple[int, int],
    start: int,
) -> float:
    """Return the perplexity of words from step ``start`` on; see :func:`filtered_log_likelihood`.

    There has to be one.
    """
    pf, size = _filter(model, num_particles), _size(words, num_particles, sizes)
    if isinstance(words, CorpusWords):
        words = words.scored_from(start)
    total, num_words = 0.0, 0
    with private_store():
        for index, _, _, here in by_block(words, lengths, size, start):
            ranks = current()
            # Too few for all ranks: each scores them all, and the mean is the same.
            own = ranks.part(index) if len(index) >= ranks.size else index
            score = pf.perplexity(words, lengths, start=start, batches=[(own,)])
            total += here * math.log(score)
            num_words += here
    return math.exp(total / num_words)


def sampled_shares(
    model: Callable[..., Any],
    words: Tensor,
    lengths: Tensor | None,
    num_particles: int,
    sizes: tuple[int, int],
    like: Tensor,
    **how_long: int,
) -> Tensor:
    """Return p(z_t = k | x), ``(T, B, K)``, 0 past the lengths, from draws of particle Gibbs.

    :param Tensor like: has the dtype.
    :param how_long: ``num_samples`` and ``warmup_steps`` of :meth:`ParticleGibbs.run`.
    """
    shares = like.new_zeros(*words.shape, sizes[0])
    size = _size(words, num_particles, sizes, how_long["num_samples"])
    with private_store():
        for index, block, n, _ in by_block(words, lengths, size):
            pg = ParticleGibbs(model, num_particles)
            pg.run(block, n, disable_progbar=True, **how_long)
            shares[:, index] = pg.occupancy().to(like.dtype)
    return shares.mul_(active_cells(words, lengths).unsqueeze(-1))


def _filter(model: Callable[..., Any], num_particles: int) -> ParticleFilter:
    """A filter with one seed for all blocks, which differ in the places of their documents."""
    return ParticleFilter(model, num_particles, seed=int(torch.randint(2**62, (), device="cpu")))


def _size(words: Tensor | CorpusWords, P: int, sizes: tuple[int, int], num_draws: int = 1) -> int:
    """How many documents a block has: by the tables over states, and the particles' cells."""
    T, (K, H) = len(words), sizes
    return block_size(T * K, P * K, 4 * P * H, 8 * T * P, 4 * T * num_draws)
