"""Gradient steps that are made all together, or not at all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["pyro_optimiser", "undone_on_error"]


def pyro_optimiser(optim: Any) -> Callable[..., Any]:
    """Return an optimiser as it is.

    :raises TypeError: if it is none that is called with parameters, as Pyro's are.
    """
    if callable(optim) and not isinstance(optim, type):
        return optim
    found = optim.__name__ if isinstance(optim, type) else type(optim).__name__
    raise TypeError(
        f"optim is {found}, expected an optimiser of Pyro, which meets parameters as they come: "
        'write pyro.optim.Adam({"lr": 0.01}).'
    )


@contextmanager
def undone_on_error(parameters: Iterable[Tensor], optim: Any) -> Iterator[None]:
    """Put parameters, their gradients and a Pyro optimiser back if the block raises.

    :param parameters: leaf tensors.
    :param optim: an optimiser; what it holds per parameter is put back where it is a
        ``PyroOptim``.
    """
    kept = [
        (p, p.detach().clone(), p.grad if p.grad is None else p.grad.clone()) for p in parameters
    ]
    tables = [(t, dict(t)) for t in getattr(optim, "__dict__", {}).values() if type(t) is dict]
    # A PyroOptim has an optimiser of torch for each parameter.
    each = [part for one in getattr(optim, "optim_objs", {}).values() for part in _parts(one)]
    states = [copy.deepcopy(part.state_dict()) for part in each]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for parameter, value, grad in kept:
                parameter.copy_(value)
                parameter.grad = grad
        for table, content in tables:
            table.clear()
            table.update(content)
        for part, state in zip(each, states, strict=True):
            part.load_state_dict(state)
        raise


def _parts(one: Any) -> list[Any]:
    """An optimiser of torch, and the scheduler that may stand around it."""
    return [one, one.optimizer] if hasattr(one, "optimizer") else [one]
