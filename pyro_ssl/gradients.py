"""Gradients, whatever autograd mode stands around; and modules without dropout for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

__all__ = ["evaluating", "gradients"]


def gradients() -> AbstractContextManager[object]:
    """Return a context in which gradients are taken, within ``torch.no_grad`` too.

    :raises RuntimeError: within ``torch.inference_mode``, whose tensors never have any.

    Example::

        >>> with torch.no_grad(), gradients():
        ...     torch.is_grad_enabled()
        True
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "This needs gradients, and torch.inference_mode() is on, in which there are none: "
            "learning, Dirichlet sites and emissions that are not linear-Gaussian take them. Write "
            "torch.no_grad() in its place, within which this works, or nothing."
        )
    return torch.enable_grad()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Let a module be in ``eval()`` mode within the block; then each part is in its own again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
