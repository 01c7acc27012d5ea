"""Numbers that ranks send ahead of every exchange: where they are, and whether one failed.

So a rank that fails says so at the place where the others next wait for it, and a sum is made only
where all ranks make the same one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

from ..errors import RankError

__all__ = ["Headers", "gone"]

#: numbers that a rank sends ahead: whether it failed, where it is, how much follows, and others'
HEADER = 10
#: bytes of an error's message
MESSAGE = 1024


class Headers:
    """The exchanges of a few numbers among the ranks of ``torch.distributed``, or of one alone."""

    def __init__(self) -> None:
        on = td.is_available() and td.is_initialized()
        self.rank, self.size = (td.get_rank(), td.get_world_size()) if on else (0, 1)
        nccl = on and td.get_backend() == "nccl"  # which exchanges what is on GPUs alone
        self._device = torch.device("cuda" if nccl else "cpu")

    @contextmanager
    def telling(self, where: str) -> Iterator[None]:
        """Tell all ranks of an error in the block."""
        try:
            yield
        except RankError:  # all have it
            raise
        except Exception as error:
            if not getattr(error, "_ranks_told", False):
                error._ranks_told = True  # type: ignore[attr-defined]
                self._tell(error, where)
            raise

    def _tell(self, error: Exception, where: str) -> None:
        with _quiet():
            found = self._gathered(1.0, 0.0, 0.0)
            text = f"{where}: {type(error).__name__}: {error}".encode()[:MESSAGE]
            self._message(int(found[:, 0].argmax()), text)

    def _headers(self, where: str, size: int, *numbers: Any) -> Tensor:
        code = float(zlib.crc32(where.encode()))
        found = self._gathered(0.0, code, float(size), *(float(n) for n in numbers))
        failed = found[:, 0] > 0
        if bool(failed.any()):
            rank = int(failed.nonzero()[0])
            raise RankError(f"Rank {rank} failed in {self._message(rank, b'')}")
        if bool((found[:, 1] != code).any()):
            other = int((found[:, 1] != found[0, 1]).nonzero()[0])
            texts = [self._message(rank, where.encode()) for rank in (0, other)]
            raise RankError(
                f"Rank 0 is at {texts[0]}, and rank {other} at {texts[1]}; expected the same steps "
                "on all ranks: as many minibatches on each, as ranks.minibatches(N, size) gives."
            )
        if bool((found[:, 2] != float(size)).any()):
            raise RankError(
                f"{where}: ranks hold {found[:, 2].long().tolist()} numbers to be added up, "
                "expected as many on each: the same model, and the same parameters that learn."
            )
        return found[:, 3 : 3 + len(numbers)]

    def _gathered(self, *numbers: float) -> Tensor:
        """Every rank's numbers, float64 ``(size, HEADER)``, on the CPU."""
        own = torch.zeros(HEADER, dtype=torch.float64)
        own[: len(numbers)] = torch.tensor(numbers, dtype=torch.float64)
        if self.size == 1:
            return own.unsqueeze(0)
        own = own.to(self._device)
        found = [torch.empty_like(own) for _ in range(self.size)]
        with gone():
            td.all_gather(found, own)
        return torch.stack(found).cpu()

    def _message(self, rank: int, text: bytes) -> str:
        """A rank's text, on all ranks."""
        if self.size == 1:
            return text.decode(errors="ignore")
        padded = torch.tensor(list(text[:MESSAGE].ljust(MESSAGE)), dtype=torch.uint8)
        padded = padded.to(self._device)
        with gone():
            td.broadcast(padded, src=rank)
        return bytes(padded.tolist()).decode(errors="ignore").rstrip()


@contextmanager
def gone() -> Iterator[None]:
    """Name the error of torch where another rank has died, or hangs."""
    try:
        yield
    except RuntimeError as error:
        raise RankError(
            f"Another rank is gone, or has not answered in time ({error}); expected all of them "
            "until the end. Its own error, if it had one, is in its output."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Pass over ranks that are gone: the error at hand is the one to show."""
    try:
        yield
    except RankError:
        pass
