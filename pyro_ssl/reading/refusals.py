"""What a run of the model refuses, before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import SeveralBlocksError
from ..loop import MAX_TUPLES, SSLLoop

__all__ = ["check_subsamples", "several_blocks"]


def several_blocks(blocks: list[SSLLoop]) -> SeveralBlocksError:
    """Return the error of a model whose paths are not all drawn together."""
    first, second = blocks[:2]
    name = second.chains[0].name
    found = f'a second ssl_transition in one model (the first is "{first.name}"), expected one'
    if first.several_with(second):
        found = (
            f'it stands beside "{first.name}" in one loop, whose chains have more than '
            f"{MAX_TUPLES} tuples of states, expected at most so many to draw them together"
        )
    return SeveralBlocksError(
        f'Site "{name}": {found}. ParticleGibbs.run and StochasticEM.step draw such paths in turn, '
        "each given the others; all else takes one with the others given: write "
        f'pyro.condition(model, {{"{name}": path}}).',
        blocks,
    )


def check_subsamples(loop: SSLLoop, subsamples: Mapping[str, Tensor]) -> None:
    """Check that the plates' indices are there, before anything is drawn or stored by them."""
    for frame in loop.plates:
        index, N = subsamples.get(frame.name), frame.full_size or frame.size
        if index is not None and (index.is_floating_point() or index.dtype == torch.bool):
            raise ValueError(
                f'Plate "{frame.name}": its subsample is {index.dtype}, expected integers, the '
                f'places of sequences; write pyro.plate("{frame.name}", N, subsample=index) with '
                "index.long(), or mask.nonzero().squeeze(-1) of a mask."
            )
        if index is not None and len(index) and not (0 <= index.min() and index.max() < N):
            raise ValueError(
                f'Plate "{frame.name}": its subsample holds indices from {int(index.min())} to '
                f"{int(index.max())}, expected 0 to N - 1 = {N - 1}; write "
                f'pyro.plate("{frame.name}", N, subsample=index) with N sequences in all.'
            )
