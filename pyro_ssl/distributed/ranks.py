"""The ranks of a distributed run: sums over them, and draws that they share.

Next file to read: ``headers.py``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

from .alone import Alone
from .headers import Headers, gone

__all__ = ["Ranks"]


class Ranks(Headers, Alone):
    """The ranks of a run, this one among them; see :func:`ranks`.

    ``bytes_sent`` counts what this rank has given to be added up, but for the numbers sent ahead.
    """

    active = True

    def __init__(self) -> None:
        super().__init__()
        self.bytes_sent = 0
        self._inside = False
        #: whether this one was interrupted: all stop where they next begin a step together
        self.is_asked = False
        self._other: list[Tensor] | None = None  # the stream that is not torch's now

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}>"

    def part(self, index: Tensor) -> Tensor:
        """Return those of some places of sequences that are this rank's: every ``size``-th place.

        A sequence stays on its rank, for there is its path.

        :raises ValueError: if there is none.
        """
        own = index[self.owns(index)]
        if not len(own):
            raise ValueError(
                f"{len(index)} sequences, none of them of rank {self.rank} of {self.size}, "
                "expected one at least; write ranks.minibatches(N, size), of a larger size."
            )
        return own

    def owns(self, index: Tensor) -> Tensor:
        """Return which places of sequences are this rank's, bool."""
        return index.remainder(self.size) == self.rank

    def minibatches(
        self, num_sequences: int, size: int, device: torch.device | None = None
    ) -> list[Tensor]:
        """Return this rank's share of each minibatch of an epoch, in an order drawn anew.

        All ranks have as many minibatches, and in each as many sequences, or one less.

        :param int num_sequences: N, over all ranks.
        :param int size: sequences in a step, over all ranks.

        Example::

            >>> from pyro_ssl.distributed import ranks
            >>> with ranks() as here:
            ...     [len(index) for index in here.minibatches(10, 4)]
            [4, 4, 2]
        """
        W, whole = self.size, num_sequences // self.size
        # One of each row of W neighbours is this rank's; the last row may be short.
        rows = torch.randperm(whole, device=device)
        parts = [row * W + self.rank for row in rows.split(max(size // W, 1))]
        rest = num_sequences - whole * W
        if parts and self.rank < rest:
            parts[-1] = torch.cat([parts[-1], parts[-1].new_full((1,), whole * W + self.rank)])
        return parts or [self.part(torch.arange(num_sequences))]

    def each(self, where: str, *numbers: Any) -> Tensor:
        """Return every rank's numbers, float64 ``(size, len(numbers))``.

        :param str where: what this rank is doing, the same on all ranks.
        :raises RankError: on all ranks, if one has failed, or does something else.
        """
        return self._headers(where, 0, *numbers)

    def totals(self, where: str, *numbers: Any) -> Sequence[Tensor]:
        """Return the sums of numbers over ranks, as 0-dim float64."""
        return self.each(where, *numbers).sum(0).unbind()

    def sum_(self, where: str, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over ranks, in place: one exchange of all that have one dtype."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            some = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.detach().flatten() for tensor in some])
            self._headers(where, flat.numel())
            self.bytes_sent += flat.numel() * flat.element_size()
            if self.size > 1:
                with gone():
                    td.all_reduce(flat)
            with torch.no_grad():
                pieces = flat.split([tensor.numel() for tensor in some])
                for tensor, total in zip(some, pieces, strict=True):
                    tensor.copy_(total.view_as(tensor))

    def first(self, where: str, value: Any) -> Any:
        """Return rank 0's value, which can be pickled."""
        self._headers(where, 0)
        values = [value]
        if self.size > 1:
            with gone():
                td.broadcast_object_list(values, src=0)
        return values[0]

    def every(self, where: str, value: Any) -> list[Any]:
        """Return every rank's value, which can be pickled."""
        self._headers(where, 0)
        values = [value] * self.size
        if self.size > 1:
            with gone():
                td.all_gather_object(values, value)
        return values

    @property
    def streams(self) -> tuple[list[Tensor], list[Tensor] | None]:
        """The generators of torch: what all ranks share, and a rank's own, if it has been met."""
        now, other = _generators(), self._other
        return (now, other) if other is None or not self._inside else (other, now)

    @streams.setter
    def streams(self, streams: tuple[list[Tensor], list[Tensor] | None]) -> None:
        shared, own = streams
        if self._inside:
            own = _own_stream(shared, self.rank) if own is None else own
        now, self._other = (own, shared) if self._inside else (shared, own)
        assert now is not None
        _set_generators(now)

    def stop_if_asked(self, where: str) -> None:
        """Raise ``KeyboardInterrupt`` on all ranks where one of them was interrupted."""
        self._stop(self.each(where, self.is_asked)[:, 0])

    def _stop(self, asked: Tensor) -> None:
        if bool(asked.any()):
            self.is_asked = False
            raise KeyboardInterrupt

    def seed(self) -> int | None:
        """Draw a seed that all ranks share."""
        with self.shared():
            return int(torch.randint(2**63 - 1, (), device="cpu"))

    @contextmanager
    def shared(self, holds: bool = True) -> Iterator[None]:
        """Draw alike on all ranks, within :meth:`together`.

        :param bool holds: ``False`` to leave it at the rank's own stream.
        """
        if not (holds and self._inside):
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @contextmanager
    def together(self, where: str) -> Iterator[None]:
        """Do what all ranks do; an error on one of them is raised on all.

        Within, torch's generator is the rank's own. Where another call is in progress, its.
        """
        if self._inside:
            yield
            return
        with self.telling(where):
            self._align(where)
            self._swap()
            self._inside = True
            try:
                yield
            finally:
                self._inside = False
                self._swap()
            self._headers("the end of " + where, 0)

    def _align(self, where: str) -> None:
        """Let all ranks go on from rank 0's random numbers, where they are not alike."""
        if self.size == 1:
            return
        state = torch.cat([part.cpu() for part in _generators()])
        mark, asked = self.each(where, zlib.crc32(state.numpy().tobytes()), self.is_asked).unbind(1)
        self._stop(asked)
        if bool((mark != mark[0]).any()):
            _set_generators(self.first("random numbers", _generators()))

    def _swap(self) -> None:
        """Exchange the shared stream and the rank's own."""
        now = _generators()
        _set_generators(_own_stream(now, self.rank) if self._other is None else self._other)
        self._other = now


def _generators() -> list[Tensor]:
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if cuda else [])]


def _set_generators(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1])


def _own_stream(shared: list[Tensor], rank: int) -> list[Tensor]:
    """The start of a rank's own stream, which follows from the shared one."""
    now, mark = _generators(), zlib.crc32(shared[0].numpy().tobytes())
    torch.manual_seed((mark << 20) + rank + 1)
    own = _generators()
    _set_generators(now)
    return own
