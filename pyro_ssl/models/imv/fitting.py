"""The loop that fits an IMV-LSTM: Pyro's ``SVI`` over minibatches, and the best epoch kept."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.optim import ExponentialLR, PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from tqdm.auto import trange

from ...errors import NonFiniteError
from .data import Data, filled

if TYPE_CHECKING:
    from .model import IMVLSTM

__all__ = ["IMVRecord", "Settings", "fit_network", "no_guide"]


class IMVRecord(NamedTuple):
    """What one epoch of :meth:`IMVLSTM.fit` came to.

    ``loss`` is -ELBO = -log p(y | X) in nats per window, and the squared error if it was asked for,
    with dropout and while the weights move;
    ``valid_nll`` (per window) and ``valid_mse`` (per target) are NaN where no validation data were
    given; ``seconds`` leaves validation out.
    """

    epoch: int
    loss: float
    valid_nll: float
    valid_mse: float
    seconds: float


class Settings(NamedTuple):
    """The arguments of :meth:`IMVLSTM.fit` of the same names."""

    num_epochs: int
    batch_size: int
    learning_rate: float
    decay: float
    weight_decay: float
    squared_error: float
    patience: int | None
    monitor: str
    optim: PyroOptim | None
    callback: Callable[[IMVRecord], None] | None
    disable_progbar: bool | None


def no_guide(*args: Any) -> None:
    """Propose nothing: the only latent is enumerated."""


def fit_network(
    imv: IMVLSTM, train: Data, valid: Data | None, settings: Settings, history: list[IMVRecord]
) -> None:
    """Run the epochs into ``history``, and leave the network at the best of them.

    :raises NonFiniteError: if the loss is no longer a number.
    """
    _check(train, settings)
    x, y, mask = train
    train = (filled(x, mask), y, None)
    optim = settings.optim or _optim(settings)
    lowest, best_epoch, kept = math.inf, 0, dict[str, Tensor]()
    disable = settings.disable_progbar
    disable = bool(os.environ.get("CI")) if disable is None else disable
    with (
        pyro.get_param_store().scope(),
        trange(1, settings.num_epochs + 1, desc="IMVLSTM", unit="epoch", disable=disable) as bar,
    ):
        svi = _svi(imv, len(x), optim)
        for epoch in bar:
            started = time.perf_counter()
            loss = _epoch(imv, svi, train, settings)
            seconds = time.perf_counter() - started
            nll, mse = (math.nan, math.nan) if valid is None else _scores(imv, valid)
            score = nll if settings.monitor == "nll" else mse
            _schedule(optim, score)
            history.append(IMVRecord(epoch, loss, nll, mse, seconds))
            bar.set_postfix(loss=f"{loss:.3f}", valid=f"{score:.4f}", refresh=False)
            if settings.callback is not None:
                settings.callback(history[-1])
            if score < lowest:
                lowest, best_epoch = score, epoch
                kept = {n: t.clone() for n, t in imv.network.state_dict().items()}
            if settings.patience is not None and kept and epoch - best_epoch >= settings.patience:
                break
    if kept:
        imv.network.load_state_dict(kept)
    imv.network.eval()


def _check(train: Data, settings: Settings) -> None:
    if settings.monitor not in ("nll", "mse"):
        raise ValueError(f'IMVLSTM.fit: monitor is "{settings.monitor}", expected "nll" or "mse".')
    if settings.squared_error < 0:
        raise ValueError(
            f"IMVLSTM.fit: squared_error is {settings.squared_error}, expected a weight of 0 or "
            "more; write squared_error=0.0 for EM alone."
        )
    if len(train[0]) == 0 or settings.batch_size < 1:
        raise ValueError(
            f"IMVLSTM.fit: found {len(train[0])} windows and batch_size={settings.batch_size}, "
            "expected one window at least and a positive batch_size."
        )


def _optim(settings: Settings) -> PyroOptim:
    adam = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    return ExponentialLR(
        {"optimizer": torch.optim.AdamW, "optim_args": adam, "gamma": settings.decay}
    )


def _schedule(optim: PyroOptim, score: float) -> None:
    """Let a scheduler know that an epoch is over."""
    if not isinstance(optim, PyroLRScheduler):
        return
    plateau = optim.pt_scheduler_constructor is torch.optim.lr_scheduler.ReduceLROnPlateau
    optim.step(score) if plateau else optim.step()


def _svi(imv: IMVLSTM, num_windows: int, optim: PyroOptim) -> SVI:
    """The loss in nats per window, so that what optimisers see is the same for any M."""
    model = poutine.scale(imv.model, scale=1.0 / num_windows)
    return SVI(model, no_guide, optim, loss=TraceEnum_ELBO(max_plate_nesting=1))


def _epoch(imv: IMVLSTM, svi: SVI, train: Data, settings: Settings) -> float:
    """One gradient step per minibatch; return the mean loss of a window."""
    imv.network.train()
    total, num_windows = 0.0, len(train[0])
    order = torch.randperm(num_windows, device=train[0].device)
    for index in order.split(settings.batch_size):
        try:
            loss = svi.step(*train, index, settings.squared_error)
        except ValueError as error:  # Pyro's checks see NaN before the loss does
            if all(bool(p.isfinite().all()) for p in imv.network.parameters()):
                raise
            raise _spoilt(math.nan) from error
        if not math.isfinite(loss):
            raise _spoilt(loss)
        total += loss * len(index)
    return total / num_windows


def _spoilt(loss: float) -> NonFiniteError:
    return NonFiniteError(
        f"IMVLSTM.fit: the loss is {loss}, expected a finite number. The weights are spoilt: begin "
        "with a new model and a lower learning_rate, and check that x and y are scaled."
    )


def _scores(imv: IMVLSTM, valid: Data) -> tuple[float, float]:
    """Mean -log p(y | X) of a window, and mean squared error of a target."""
    x, y, mask = valid
    assert y is not None
    forecast = imv.predict(x, mask)
    return float(-forecast.log_prob(y).mean()), float((forecast.mean - y).square().mean())
