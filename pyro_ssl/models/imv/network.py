r"""The network of the IMV-LSTM: from a window of N variables to a mixture over them.

Guo, Lin and Antulov-Fantulin 2019 (arXiv 1905.12034), section 3.2, with h^n_t of
:class:`~pyro_ssl.cells.IMVTensorLSTM` or :class:`~pyro_ssl.cells.IMVFullLSTM`:

.. math::
    α^n_t = \mathrm{softmax}_t \tanh(F_n h^n_t + b_n), \quad g^n = \sum_t α^n_t h^n_t, \quad
    [μ_n, σ_n] = φ_n(h^n_T, g^n), \quad π_n = \mathrm{softmax}_n\, k \tanh(f(h^n_T, g^n)).

Attention runs over all T steps, as in the paper; its authors' program leaves the last one out. As
the paper has it, attention goes by what h^n_t holds, not by where t stands in the window: of a lag
that matters, it finds the steps at which h^n_t still remembers it, with little contrast. With
``num_steps`` there is a b_n of each step, and attention learns lags.

Everything here lies with the batch last, as the layer leaves it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...arguments import check_share, whole
from ...cells import IMVFullLSTM, IMVTensorLSTM

__all__ = ["IMVNetwork", "Mixture"]

_LAYERS = {"tensor": IMVTensorLSTM, "full": IMVFullLSTM}


class Mixture(NamedTuple):
    """What the network finds of B windows.

    ``log_weights`` (log π) ``(B, N)``, or ``(B, N, Y)`` where each target has its own; ``means``
    and ``scales`` ``(B, N, Y)``, and ``attention`` (α) ``(B, N, T)``.
    """

    log_weights: Tensor
    means: Tensor
    scales: Tensor
    attention: Tensor


class IMVNetwork(nn.Module):
    """Attention over steps for each variable, and a mixture over variables.

    :param int num_variables: N.
    :param int units: d, units of each variable.
    :param str cell: ``"tensor"`` or ``"full"``.
    :param int num_targets: Y, numbers to be forecast.
    :param float dropout: probability of dropping a number of [h^n_T; g^n], in ``train()`` mode.
    :param float bound: k, the paper's being 1; ``None`` leaves k tanh out.
    :param int num_steps: T, for a b_n of each step, b_{n,t}; by default they are one, as in the
        paper, and T is free.
    :param float min_scale: what the standard deviations never fall below.
    :param bool by_target: π of each target, in place of one for all.
    :param int num_layers: layers of units; from the second on each is an LSTM of each variable over
        its own units in the layer below, so that variables stay apart as far as the first one's do.
    :raises ValueError: if one of them is out of range.

    Example::

        >>> network = IMVNetwork(num_variables=3, units=4)
        >>> mixture = network(torch.randn(2, 7, 3))            # (B, T, N)
        >>> mixture.means.shape, mixture.attention.shape
        (torch.Size([2, 3, 1]), torch.Size([2, 3, 7]))
    """

    def __init__(
        self,
        num_variables: int,
        units: int,
        *,
        cell: str = "tensor",
        num_targets: int = 1,
        dropout: float = 0.0,
        bound: float | None = None,
        num_steps: int | None = None,
        min_scale: float = 1e-3,
        by_target: bool = False,
        num_layers: int = 1,
    ) -> None:
        super().__init__()
        if cell not in _LAYERS:
            raise ValueError(f'cell is "{cell}", expected one of {sorted(_LAYERS)}.')
        if not min_scale > 0 or not (bound is None or bound > 0):
            raise ValueError(
                f"found min_scale={min_scale} and bound={bound}, expected a positive min_scale, "
                "and a positive bound or None."
            )
        self.num_targets = whole("IMVNetwork", "num_targets", num_targets, 1)
        self.num_steps = (
            None if num_steps is None else whole("IMVNetwork", "num_steps", num_steps, 1)
        )
        self.cell, self.bound, self.min_scale = cell, bound, float(min_scale)
        self.dropout = nn.Dropout(check_share("IMVNetwork", "dropout", dropout))
        self.layer = _LAYERS[cell](num_variables, units)  # the first to draw weights
        N, d, Y = self.layer.num_variables, self.layer.units, self.num_targets
        more = whole("IMVNetwork", "num_layers", num_layers, 1) - 1
        self.upper = nn.ModuleList(nn.LSTM(d, d, more) for _ in range(N if more else 0))
        zeros = next(self.layer.parameters()).new_zeros
        self.attention_weight = nn.Parameter(zeros(N, 1, d))  # F
        self.attention_bias = nn.Parameter(zeros(self.num_steps or 1, N, 1))
        self.head_weight = nn.Parameter(zeros(N, 2 * Y, 2 * d))  # phi: means, then scales
        self.head_bias = nn.Parameter(zeros(N, 2 * Y, 1))
        self.by_target = by_target
        self.gate = nn.Linear(2 * d, Y if by_target else 1)  # f
        nn.init.uniform_(self.attention_weight, -(d**-0.5), d**-0.5)
        nn.init.uniform_(self.head_weight, -((2 * d) ** -0.5), (2 * d) ** -0.5)

    def forward(self, x: Tensor) -> Mixture:
        """Return the mixture that forecasts y.

        :param Tensor x: windows without gaps, oldest step first, ``(B, T, N)``.
        """
        h = self.layer(x)[0].permute(1, 2, 3, 0)  # (T, N, d, B)
        if self.upper:
            each = zip(self.upper, h.transpose(2, 3).unbind(1), strict=True)  # (T, B, d)
            h = torch.stack([lstm(units.contiguous())[0].mT for lstm, units in each], 1)
        energy = torch.tanh((self.attention_weight @ h).squeeze(2) + self.attention_bias)
        alpha = torch.softmax(energy, 0)  # (T, N, B)
        g = (alpha.unsqueeze(2) * h).sum(0)  # (N, d, B)
        features = self.dropout(torch.cat([h[-1], g], 1))  # (N, 2d, B)
        means, raw = torch.baddbmm(self.head_bias, self.head_weight, features).chunk(2, 1)
        logits = self.gate.weight @ features + self.gate.bias.unsqueeze(-1)  # (N, Y or 1, B)
        if self.bound is not None:
            logits = self.bound * torch.tanh(logits)
        log_weights = torch.log_softmax(logits, 0).permute(2, 0, 1)
        return Mixture(
            log_weights if self.by_target else log_weights.squeeze(-1),
            means.permute(2, 0, 1),
            (F.softplus(raw) + self.min_scale).permute(2, 0, 1),
            alpha.permute(2, 1, 0),
        )
