"""What inference classes ask of the ranks of a run, as one process answers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["Alone"]


class Alone:
    """One process, without ranks: nothing is exchanged, and nothing is drawn otherwise."""

    rank, size, active = 0, 1, False

    def part(self, index: Tensor) -> Tensor:
        """Return this rank's share of the places of sequences."""
        return index

    def owns(self, index: Tensor) -> Tensor:
        """Return which places of sequences are this rank's, bool."""
        return torch.ones_like(index, dtype=torch.bool)

    def minibatches(
        self, num_sequences: int, size: int, device: torch.device | None = None
    ) -> list[Tensor]:
        """Return minibatches of an epoch, in an order drawn anew: places of sequences of each."""
        return list(torch.randperm(num_sequences, device=device).split(size))

    def each(self, where: str, *numbers: Any) -> Tensor:
        """Return every rank's numbers, float64 ``(size, len(numbers))``."""
        return torch.tensor([[float(n) for n in numbers]], dtype=torch.float64, device="cpu")

    def first(self, where: str, value: Any) -> Any:
        """Return rank 0's value."""
        return value

    def every(self, where: str, value: Any) -> list[Any]:
        """Return every rank's value."""
        return [value]

    def totals(self, where: str, *numbers: Any) -> Sequence[Any]:
        """Return the sums of numbers over ranks, as 0-dim float64."""
        return numbers

    def sum_(self, where: str, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over ranks, in place."""

    @property
    def streams(self) -> tuple[list[Tensor], list[Tensor] | None]:
        """The generators of torch: what all ranks share, and a rank's own, if it has been met."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return [torch.get_rng_state(), *cuda], None

    @streams.setter
    def streams(self, streams: tuple[list[Tensor], list[Tensor] | None]) -> None:
        torch.set_rng_state(streams[0][0])
        if streams[0][1:] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(streams[0][1:])

    def stop_if_asked(self, where: str) -> None:
        """Raise ``KeyboardInterrupt`` on all ranks where one of them was interrupted."""

    def seed(self) -> int | None:
        """Draw a seed that all ranks share; ``None``: each use draws its own."""
        return None

    @contextmanager
    def shared(self, holds: bool = True) -> Iterator[None]:
        """Draw alike on all ranks, within :meth:`together`."""
        yield

    @contextmanager
    def together(self, where: str) -> Iterator[None]:
        """Do what all ranks do; an error on one of them is raised on all."""
        yield
