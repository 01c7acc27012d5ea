"""Gradients, whatever autograd mode stands around."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

__all__ = ["gradients"]


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
