"""The ready-made recurrent transitions: both heads, over an LSTM and a multiplicative LSTM."""

from __future__ import annotations

from typing import Any

import torch

from ..arguments import check_share, whole
from ..cells import LSTMCell, MultiplicativeLSTMCell
from .recurrent import RecurrentTransition
from .recurrent_gaussian import RecurrentGaussianTransition

__all__ = [
    "GaussianLSTMTransition",
    "GaussianMultiplicativeLSTMTransition",
    "LSTMTransition",
    "MultiplicativeLSTMTransition",
]

_CELL_OPTIONS = ("squash", "weight_norm", "variational_dropout", "forget_bias")


def _sizes(where: str, name: str, size: int, input_size: int) -> tuple[int, int]:
    """K or D, and how many numbers the cell reads: so many, one that marks the start, and inputs.

    They are checked before a cell draws its weights, as options are.
    """
    size = whole(where, name, size, 1)
    return size, size + 1 + whole(where, "input_size", input_size, 0)


class LSTMTransition(RecurrentTransition):
    """p(z_t | z_{1:t-1}) = Cat(softmax(W h_t + b)) with h_t from an LSTM over z_{1:t-1}.

    :param int num_states: K, the number of latent states (topics).
    :param int hidden_size: H, the number of LSTM units.
    :param int input_size: exogenous inputs per step, joined to the one-hot z_{t-1}.
    :param float dropout: see :class:`RecurrentTransition`.
    :param float forget_bias: see :class:`LSTMCell`.

    Example::

        >>> transition = LSTMTransition(num_states=3, hidden_size=8)
        >>> z = torch.tensor([[0, 2, 1, 1], [1, 1, 0, 2]])     # (B, T)
        >>> transition.log_prob(z).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        num_states: int,
        hidden_size: int,
        *,
        input_size: int = 0,
        dropout: float = 0.0,
        forget_bias: float | None = None,
    ) -> None:
        where = type(self).__name__
        check_share(where, "dropout", dropout)
        num_states, size = _sizes(where, "num_states", num_states, input_size)
        cell = LSTMCell(size, hidden_size, forget_bias=forget_bias)
        super().__init__(num_states, cell, dropout=dropout)


class MultiplicativeLSTMTransition(RecurrentTransition):
    """As :class:`LSTMTransition`, with a multiplicative LSTM (Krause et al. 2016).

    Each state z_{t-1} has a recurrent matrix of its own. They start nearly equal, since W_mx starts
    near 1 in the columns of the states, so that the transition starts near an LSTM.

    :param int num_states: K, the number of latent states (topics).
    :param int hidden_size: H, the number of units.
    :param int input_size: exogenous inputs per step, joined to the one-hot z_{t-1}.
    :param float dropout: see :class:`RecurrentTransition`.
    :param cell: ``squash``, ``weight_norm``, ``variational_dropout`` and ``forget_bias`` of
        :class:`MultiplicativeLSTMCell`.

    Example::

        >>> transition = MultiplicativeLSTMTransition(3, hidden_size=8, weight_norm=True)
        >>> z = torch.tensor([[0, 2, 1, 1], [1, 1, 0, 2]])     # (B, T)
        >>> transition.log_prob(z).shape
        torch.Size([2, 4])
    """

    cell: MultiplicativeLSTMCell

    def __init__(
        self,
        num_states: int,
        hidden_size: int,
        *,
        input_size: int = 0,
        dropout: float = 0.0,
        **cell: Any,
    ) -> None:
        where = type(self).__name__
        check_share(where, "dropout", dropout)
        num_states, size = _sizes(where, "num_states", num_states, input_size)
        multiplicative = MultiplicativeLSTMCell(size, hidden_size, **cell)
        super().__init__(num_states, multiplicative, dropout=dropout)
        # A one-hot input picks one column of W_mx. The entries of an orthogonal column are about
        # 1/sqrt(H), which would make m_t, and what it carries on, too small by that factor.
        with torch.no_grad():
            self.cell.weight_ih[:hidden_size, : num_states + 1] += 1.0
        self.cell.reset_magnitudes()


class GaussianLSTMTransition(RecurrentGaussianTransition):
    """p(z_t | z_{1:t-1}) = N(μ_t, diag σ_t²) with h_t from an LSTM over z_{1:t-1}.

    :param int dim: D, the dimension of z_t.
    :param int hidden_size: H, the number of LSTM units.
    :param int input_size: exogenous inputs per step, joined to z_{t-1}.
    :param options: ``dropout``, ``residual``, ``min_scale``, ``reads`` and ``increment_scale`` of
        :class:`RecurrentGaussianTransition`.

    Example::

        >>> transition = GaussianLSTMTransition(dim=2, hidden_size=8)
        >>> transition.log_prob(torch.randn(3, 5, 2)).shape     # (B, T, D)
        torch.Size([3, 5])
    """

    def __init__(self, dim: int, hidden_size: int, *, input_size: int = 0, **options: Any) -> None:
        self.check_options(**options)
        dim, size = _sizes(type(self).__name__, "dim", dim, input_size)
        super().__init__(dim, LSTMCell(size, hidden_size), **options)


class GaussianMultiplicativeLSTMTransition(RecurrentGaussianTransition):
    """As :class:`GaussianLSTMTransition`, with a multiplicative LSTM (Krause et al. 2016).

    m_t is a product of a linear map of z_{t-1} and one of h_{t-1}: where z_{t-1} is 0 and there are
    no inputs, m_t is 0 as well, and the past reaches h_t through the memory c alone.

    :param options: as for :class:`GaussianLSTMTransition`, and those of the cell, as for
        :class:`MultiplicativeLSTMTransition`.

    Example::

        >>> transition = GaussianMultiplicativeLSTMTransition(2, hidden_size=8, squash="output")
        >>> transition.log_prob(torch.randn(3, 5, 2)).shape     # (B, T, D)
        torch.Size([3, 5])
    """

    def __init__(self, dim: int, hidden_size: int, *, input_size: int = 0, **options: Any) -> None:
        of_cell = {name: options.pop(name) for name in _CELL_OPTIONS if name in options}
        self.check_options(**options)
        dim, size = _sizes(type(self).__name__, "dim", dim, input_size)
        cell = MultiplicativeLSTMCell(size, hidden_size, **of_cell)
        super().__init__(dim, cell, **options)
