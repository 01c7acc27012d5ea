"""An epoch of a language model: minibatches of whole sequences, or windows of long ones in turn."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import NonFiniteError
from .door import active_cells

__all__ = ["after_start", "detached", "learn_epoch"]


class _Learns(Protocol):
    """What is asked of the model; ``recurrent`` and ``dropout`` act as while it learns."""

    vocab_size: int
    embedding: nn.Embedding
    recurrent: Any
    dropout: nn.Dropout
    head: nn.Linear

    def parameters(self) -> Any: ...


def after_start(words: Tensor, active: Tensor, start: int) -> Tensor:
    """Return the symbol before each step, ``(T, B)``: the start symbol at the first, and x_{t-1}.

    Past the lengths it is the start symbol.

    Example::

        >>> words = torch.tensor([[3], [1], [4]])
        >>> after_start(words, torch.ones(3, 1, dtype=torch.bool), 5).T
        tensor([[5, 3, 1]])
    """
    return F.pad(words.masked_fill(~active, start), (0, 0, 1, -1), value=start)


def detached(state: Any) -> tuple[Tensor, ...]:
    """The state of a recurrent layer, with no way back for gradients."""
    return tuple(part.detach() for part in state)


def learn_epoch(
    model: _Learns,
    words: Tensor,
    lengths: Tensor | None,
    optim: torch.optim.Optimizer,
    *,
    batch_size: int,
    window: int | None,
    clip: float,
) -> float:
    """One gradient step per minibatch, or per window of each; return the mean loss of a token.

    The state is carried from a window to the next, and gradients end where the window begins.

    :param int window: steps in a window; ``None`` for all.
    :raises NonFiniteError: if the mean is no number.
    """
    active = active_cells(words, lengths)
    total = words.new_zeros((), dtype=torch.float64)
    for chosen in torch.randperm(words.shape[1], device=words.device).split(batch_size):
        seen = active[:, chosen]
        num_steps = int(seen.any(1).sum())
        if num_steps == 0:
            continue
        x, seen = words[:num_steps, chosen], seen[:num_steps]
        state, size = None, window or num_steps
        parts = (part.split(size) for part in (x, seen, after_start(x, seen, model.vocab_size)))
        for x, seen, previous in zip(*parts, strict=True):
            h, state = model.recurrent(model.embedding(previous), state)
            state = detached(state)
            # The output layer is most of the work at V = 5,000, so it sees no padding.
            logits = model.head(model.dropout(h[seen]))  # (N, V)
            loss = F.cross_entropy(logits, x[seen])
            optim.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optim.step()
            total += loss.detach() * len(logits)
    mean = float(total / active.sum())
    if not math.isfinite(mean):
        raise NonFiniteError(
            f"LanguageModel.fit: the loss of an epoch is {mean}, expected a finite number; "
            "begin with a new model and a lower learning_rate. After the first epoch the "
            "weights are spoilt, unless an epoch before was kept by its score on valid=."
        )
    return mean
