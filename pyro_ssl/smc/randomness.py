r"""Random numbers of a sweep, each sequence's its own.

They come from a counter, not from a stream: Philox 4x32-10 (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3") encrypts (purpose, step, sequence) under the seed of the sweep. So a
sequence's draws depend on the seed and on which sequence it is, and on nothing else: not on what
stands beside it in a batch, in what order, on padding, nor on threads.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from ..kernels.uniforms import compiled_uniforms

__all__ = [
    "ANCESTORS",
    "DEFENCE",
    "FINAL",
    "LATENTS",
    "REDRAWS",
    "ByStep",
    "Randomness",
    "fresh_seed",
    "philox",
]

#: what a number is for: no two uses share one
LATENTS, ANCESTORS, REDRAWS, FINAL, DEFENCE = range(5)

#: steps whose numbers are in memory at a time
BLOCK = 64

_WORD = 0xFFFFFFFF


class Randomness:
    """Uniform and normal numbers of B sequences.

    :param seed: of the sweep, from 0 to 2⁶³ - 1; ``None`` to draw it from torch's generator.
    :param Tensor sequences: which sequence each is, int64 ``(B,)``.
    :param int first: number of the first step; those of one sweep may come in several parts.
    """

    def __init__(self, seed: int | None, sequences: Tensor, first: int = 0) -> None:
        self.seed = fresh_seed() if seed is None else seed
        self.sequences, self.first = sequences, first

    def later(self, num_steps: int) -> Randomness:
        """Return the numbers of what follows on so many steps."""
        return Randomness(self.seed, self.sequences, self.first + num_steps)

    def phase(self, every: int) -> int:
        """Return a number from 0 to ``every`` - 1, one for all sequences."""
        return random.Random(self.seed).randrange(every)

    def uniform(self, purpose: int, num_steps: int, size: int, dtype: torch.dtype) -> Tensor:
        """Return numbers in [0, 1), of all bits that the dtype has: ``(T, B, size)``."""
        words = 1 if dtype == torch.float32 else 2
        shape = (num_steps, len(self.sequences), size)
        found = compiled_uniforms(self.seed, purpose, self.first, shape, self.sequences, dtype)
        if found is not None:
            return found
        drawn = self._words(purpose, num_steps, size * words)
        if words == 1:
            return (drawn >> 8).to(dtype) * 2.0**-24
        high, low = drawn.unflatten(-1, (size, 2)).unbind(-1)
        return ((high >> 5).double() * 2.0**26 + (low >> 6)).mul_(2.0**-53).to(dtype)

    def normal(self, purpose: int, num_steps: int, size: int, dtype: torch.dtype) -> Tensor:
        """Return standard normal numbers, ``(T, B, size)``, by Box and Muller's transform."""
        u = self.uniform(purpose, num_steps, 2 * ((size + 1) // 2), torch.float64)
        radius, angle = u.chunk(2, -1)
        radius, angle = torch.log1p(-radius).mul_(-2.0).sqrt_(), angle * (2.0 * math.pi)
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], -1)
        return both[..., :size].to(dtype)

    def _words(self, purpose: int, num_steps: int, size: int) -> Tensor:
        """32-bit words, int64 ``(T, B, size)``."""
        blocks, device = -(-size // 4), self.sequences.device
        steps = torch.arange(self.first, self.first + num_steps, device=device).view(-1, 1, 1)
        block = torch.arange(blocks, device=device) + (purpose << 28)
        low, high = (self.sequences >> shift & _WORD for shift in (0, 32))
        counter = (block, steps, low.unsqueeze(-1), high.unsqueeze(-1))
        shape = (num_steps, len(self.sequences), blocks)
        drawn = philox([c.expand(shape) for c in counter], (self.seed & _WORD, self.seed >> 32))
        return torch.stack(drawn, -1).flatten(-2)[..., :size]


def fresh_seed() -> int:
    """Draw a seed from torch's generator on the host, which waits for no GPU."""
    return int(torch.randint(2**63 - 1, (), device="cpu"))


class ByStep:
    """The numbers of T steps, made as they are asked for, a block of steps in memory at a time.

    :param draw: makes those of as many steps, ``(steps, ...)``, of what :class:`Randomness` gives.
    :param Randomness numbers: from the first step on.
    """

    def __init__(
        self, draw: Callable[[Randomness, int], Tensor], numbers: Randomness, num_steps: int
    ) -> None:
        self._draw, self._numbers, self._num_steps = draw, numbers, num_steps
        self._first, self._block = 0, self._of(0)

    def __getitem__(self, t: int) -> Tensor:
        """Return those of a step."""
        first = t - t % BLOCK
        if first != self._first:
            self._first, self._block = first, self._of(first)
        return self._block[t - first]

    def _of(self, first: int) -> Tensor:
        return self._draw(self._numbers.later(first), min(BLOCK, self._num_steps - first))


def philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Return four words of 32 bits for each counter of four, all int64, by ten rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # Products wrap at 2⁶⁴, as they should: only their halves are used.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD
        c2, c3 = (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return [c0, c1, c2, c3]
