"""The plain LSTM that an IMV-LSTM is compared with, and importances read off it afterwards."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_ssl.datasets import Windows

__all__ = ["PlainLSTM", "fit_lstm", "permutation_importance"]


class PlainLSTM(nn.Module):
    """Forecast y linearly from the last hidden state."""

    def __init__(self, num_variables: int, units: int, num_targets: int = 1) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(num_variables, units, batch_first=True)
        self.head = nn.Linear(units, num_targets)

    def forward(self, x: Tensor) -> Tensor:
        """``(M, T, N)`` to ``(M, Y)``."""
        return self.head(self.recurrent(x)[0][:, -1])


def fit_lstm(
    model: PlainLSTM,
    train: Windows,
    valid: Windows,
    *,
    num_epochs: int,
    batch_size: int,
    learning_rate: float,
    decay: float,
    weight_decay: float,
    patience: int,
) -> list[dict[str, Any]]:
    """Minimise the squared error, and keep the epoch of the lowest one in validation."""
    optim = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optim, decay)
    lowest, kept, history = math.inf, copy.deepcopy(model.state_dict()), []
    for epoch in range(1, num_epochs + 1):
        started = time.perf_counter()
        for index in torch.randperm(train.num_windows, device=train.x.device).split(batch_size):
            optim.zero_grad()
            F.mse_loss(model(train.x[index]), train.y[index]).backward()
            optim.step()
        schedule.step()
        seconds = time.perf_counter() - started
        with torch.no_grad():
            error = float(F.mse_loss(model(valid.x), valid.y))
        history.append({"epoch": epoch, "valid_mse": error, "seconds": seconds})
        if error < lowest:
            lowest, best, kept = error, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best >= patience:
            break
    model.load_state_dict(kept)
    return history


@torch.no_grad()
def permutation_importance(
    forecast: Callable[[Tensor], Tensor],
    windows: Windows,
    *,
    by_step: bool = False,
    num_draws: int = 3,
    seed: int = 0,
) -> Tensor:
    """Return the growth of the mean squared error if a variable is taken from another window.

    All steps of the variable are exchanged together, so that its course stays possible; or, by
    step, one of them alone.

    :param forecast: takes x to forecasts of y.
    :returns: ``(N,)``, or ``(N, T)`` by step: means over the draws.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    x, y = windows.x, windows.y
    M, T, N = x.shape
    steps = [slice(t, t + 1) for t in range(T)] if by_step else [slice(T)]
    base = F.mse_loss(forecast(x), y)
    growth = x.new_zeros(N, len(steps))
    for n in range(N):
        for i, step in enumerate(steps):
            for _ in range(num_draws):
                order = torch.randperm(M, generator=generator, device="cpu").to(x.device)
                shuffled = x.clone()
                shuffled[:, step, n] = x[order, step, n]
                growth[n, i] += (F.mse_loss(forecast(shuffled), y) - base) / num_draws
    return growth if by_step else growth.squeeze(1)
