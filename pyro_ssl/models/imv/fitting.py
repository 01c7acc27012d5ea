"""What an epoch of an IMV-LSTM's fit is: Pyro's ``SVI`` over minibatches.

Next file to read: ``model.py``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import nn

from ...errors import NonFiniteError
from .data import Data

__all__ = ["check_settings", "end_epoch", "make_svi", "no_guide", "pyro_optim", "run_epoch"]


def no_guide(*args: Any) -> None:
    """Propose nothing: the only latent is enumerated."""


def check_settings(num_windows: int, monitor: str) -> None:
    """Check arguments of :meth:`IMVLSTM.fit`.

    :raises ValueError: if one is out of range.
    """
    if monitor not in ("nll", "mse"):
        raise ValueError(f'IMVLSTM.fit: monitor is "{monitor}", expected "nll" or "mse".')
    if num_windows == 0:
        raise ValueError("IMVLSTM.fit: found 0 windows, expected one at least.")


def end_epoch(optim: PyroOptim, score: float) -> None:
    """Let a scheduler know that an epoch is over."""
    if not isinstance(optim, PyroLRScheduler):
        return
    plateau = optim.pt_scheduler_constructor is torch.optim.lr_scheduler.ReduceLROnPlateau
    optim.step(score) if plateau else optim.step()


def pyro_optim(optim: Any, args: dict[str, float]) -> PyroOptim:
    """Return an optimiser as Pyro's, which makes one for each parameter.

    :param optim: Pyro's or torch's; of torch a class, or an instance whose settings are taken.
    :param dict args: what a class is given, as far as it takes it, and ``None`` as AdamW.
    :raises ValueError: if it is something else, or asks for more than gradients.
    """
    if isinstance(optim, PyroOptim):
        return optim
    kind, given = torch.optim.AdamW if optim is None else optim, dict(args)
    if isinstance(optim, torch.optim.Optimizer) and len(optim.param_groups) == 1:
        kind, given = type(optim), {k: v for k, v in optim.param_groups[0].items() if k != "params"}
    usable = isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    if not usable or issubclass(kind, torch.optim.LBFGS | torch.optim.SparseAdam):
        name = kind.__name__ if isinstance(kind, type) else type(kind).__name__
        raise ValueError(
            f"IMVLSTM.fit: optim is a {name}, expected an optimiser that takes a gradient, with "
            'one setting for all parameters; write optim=pyro.optim.Adam({"lr": 0.01}).'
        )
    known = inspect.signature(kind).parameters
    return PyroOptim(kind, {k: v for k, v in given.items() if k in known})


def make_svi(model: Callable[..., Any], num_windows: int, optim: PyroOptim) -> SVI:
    """Return an ``SVI`` whose loss is in nats per window: optimisers see the same for any M."""
    scaled = poutine.scale(model, scale=1.0 / num_windows)
    return SVI(scaled, no_guide, optim, loss=TraceEnum_ELBO(max_plate_nesting=2))


def run_epoch(
    svi: SVI, network: nn.Module, train: Data, batch_size: int, squared_error: float
) -> float:
    """Take one gradient step per minibatch; return the mean loss of a window.

    :raises NonFiniteError: if the loss is no longer a number.
    """
    total, num_windows = 0.0, len(train[0])
    order = torch.randperm(num_windows, device=train[0].device)
    for index in order.split(batch_size):
        try:
            loss = svi.step(*train, index, squared_error)
        except ValueError as error:  # Pyro's checks see NaN before the loss does
            if all(bool(p.isfinite().all()) for p in network.parameters()):
                raise
            raise _spoilt(math.nan) from error
        if not math.isfinite(loss):
            raise _spoilt(loss)
        total += loss * len(index)
    return total / num_windows


def _spoilt(loss: float) -> NonFiniteError:
    return NonFiniteError(
        f"IMVLSTM.fit: the loss is {loss}, expected a finite number; begin with a new model and a "
        "lower learning_rate, and look for outliers in x and y. After the first epoch the weights "
        "are spoilt, unless one before was kept by its score on valid=."
    )
