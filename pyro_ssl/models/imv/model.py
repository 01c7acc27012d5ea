r"""The IMV-LSTM as a Pyro model (Guo, Lin and Antulov-Fantulin 2019, arXiv 1905.12034).

.. math::
    z \mid X \sim \mathrm{Cat}(π(X)), \qquad y \mid z = n, X \sim \mathrm{N}(μ_n(X), σ_n^2(X)),

with z the input variable that explains the target. The paper's EM loss (section 3.3) is

.. math::
    L = -\sum_m \sum_n q^n_m [\log N(y_m; μ_n, σ_n) + \log π_n + \log I_n].

Pyro enumerates z, so that the loss of ``SVI`` with ``TraceEnum_ELBO`` is the negative
log-likelihood: L without I, less the entropy of q, at q = the posterior. Its gradient is that of L
with q held fixed. I enters L in a term of its own, which I = mean q minimises for any weights.

Next files to read: ``network.py``, π, μ and σ; ``units.py``; ``fitting.py``; ``forecast.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.optim import ExponentialLR, PyroOptim
from torch import Tensor

from ...gradients import evaluating
from ..base import EpochRecord
from ..epochs import fit_epochs, whole_or_not
from ..saved_fit import saved
from ..settings import checked
from .data import Data, check_windows, chunks, parts_of, take
from .fitting import check_settings, end_epoch, make_svi, pyro_optim, run_epoch
from .forecast import IMVForecast, evidence, joint, mean_of
from .network import Mixture
from .sites import sample_targets
from .units import InUnits

if TYPE_CHECKING:
    from ...datasets.windows import Windows

__all__ = ["IMVLSTM"]

_WINDOWS = 4096  # whose hidden states exist at once while nothing is learned


class IMVLSTM(InUnits):
    """Forecasts from N input variables, and which of them, and which of their steps, matter.

    :param int num_variables: N.
    :param int units: d, LSTM units of each variable.
    :param str cell: ``"tensor"``, where every variable keeps to itself, or ``"full"``, whose gates
        read all of them.
    :param int num_targets: Y, numbers to be forecast: targets, or steps ahead, or both.
    :param float dropout: dropout before the output layers, while the model learns.
    :param float bound: π = softmax(bound tanh(.)), or softmax(.) with ``None``. With the paper's 1,
        no π_n is above e² / (e² + N - 1): where one variable of many explains nearly all, forecasts
        suffer, though q and I still find it.
    :param int num_steps: T, where attention is to learn lags: its bias is then of each step. By
        default it is one, as in the paper, and T is free; T^n then has little contrast.
    :param float min_scale: what the standard deviations never fall below, in units of y's own.
    :param bool by_target: each target, such as a step ahead, has a variable z of its own: π, q and
        I are then of each target, ``(..., N, Y)``. By default all targets share one.
    :param int num_layers: layers of units; each but the first is an LSTM of each variable alone.
    :raises ValueError: if one of them is out of range.

    Data are ``x`` ``(M, T, N)``, windows with the oldest step first; ``y`` ``(M, Y)``, or ``(M,)``
    for one target; and ``mask`` bool ``(M, T, N)``, true where x was observed, NaN counting as not
    observed; any arrays or lists of numbers will do. Origin and unit of x and y do not matter: a
    fit takes the mean and the deviation of each variable and target of its data for them, and what
    is missing is read as that mean. In place of x and y, every method takes
    :class:`~pyro_ssl.datasets.Windows`, whose gaps are filled already: their x is read as it is,
    and their mask only where it is given as ``mask``.

    Example::

        >>> x = torch.randn(50, 6, 3)                          # (M, T, N)
        >>> y = x[:, -2, 1]
        >>> imv = IMVLSTM(num_variables=3, units=4)
        >>> history = imv.fit(x, y, num_epochs=2, disable_progbar=True)
        >>> imv.predict(x).mean.shape, imv.importance(x, y).shape, imv.temporal_importance(x).shape
        (torch.Size([50, 1]), torch.Size([3]), torch.Size([3, 6]))
    """

    @checked
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
        config: dict[str, Any] = {
            **{"num_variables": num_variables, "units": units, "cell": cell, "bound": bound},
            **{"num_targets": num_targets, "dropout": dropout, "min_scale": min_scale},
            **{"num_steps": num_steps, "by_target": by_target, "num_layers": num_layers},
        }
        super().__init__(**config)

    @property
    def num_variables(self) -> int:
        """N."""
        return self.network.layer.num_variables

    def model(
        self,
        x: Tensor,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        index: Tensor | None = None,
        squared_error: float = 0.0,
    ) -> None:
        """Run the generative process of the module's docstring, as a Pyro model.

        :param Tensor index: the windows of a minibatch, int64; the model then is scaled to all.
        :param float squared_error: see :meth:`fit`.
        """
        pyro.module("imv_lstm", self.network)
        with pyro.plate("windows", len(x), subsample=index, device=x.device):
            chosen = (x, y, mask) if index is None else take((x, y, mask), index)
            log_weights, means, scales, _ = self._read(chosen[0], chosen[2])
            sample_targets(log_weights, means, scales, chosen[1])
            if squared_error and chosen[1] is not None:
                miss = mean_of(log_weights.exp(), means) - chosen[1]
                miss = miss / self.y_unit
                pyro.factor("squared_error", -squared_error * miss.square().sum(-1))

    @checked
    @whole_or_not
    @saved
    def fit(
        self,
        x: Tensor | Windows,
        y: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        valid: tuple[Any, ...] | Windows | None = None,
        num_epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        decay: float = 0.95,
        weight_decay: float = 1e-4,
        squared_error: float = 0.0,
        patience: int | None = 15,
        monitor: str = "nll",
        optim: Any = None,
        callback: Callable[[EpochRecord], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        resume: bool = False,
        disable_progbar: bool | None = None,
    ) -> list[EpochRecord]:
        """Fit by Pyro's ``SVI`` with ``TraceEnum_ELBO``, from the weights as they are.

        ``pyro.set_rng_seed`` before the model is made and fitted makes a fit repeatable.

        :param x: ``(M, T, N)``, or :class:`~pyro_ssl.datasets.Windows`, which hold y.
        :param Tensor y: ``(M, Y)`` or ``(M,)``.
        :param Tensor mask: bool ``(M, T, N)``.
        :param valid: ``(x, y)``, ``(x, y, mask)``, or windows; the best epoch on them is the one
            that is kept.
        :param int num_epochs: at most so many.
        :param int batch_size: windows per gradient step.
        :param float learning_rate: AdamW's, times ``decay`` after each epoch.
        :param float squared_error: weight of the mean forecast's squared error, in units of y's
            variance, which is added to the loss; 0 is EM. The authors' program learns PM2.5 and
            SML2010 by that error alone, but without the likelihood there are neither scales nor q.
        :param str monitor: the score, ``"nll"`` or ``"mse"``.
        :param optim: another optimiser: of Pyro, of which a scheduler steps after each epoch,
            ``pyro.optim.ReduceLROnPlateau`` by the score; or of torch, a class, which is given
            ``learning_rate`` and ``weight_decay``, or an instance, whose settings are taken.
        :param checkpoint: a folder to save the fit in, after every so many epochs (``every``);
            with ``resume`` it goes on from there: see :class:`~pyro_ssl.models.Model`.
        :param patience: this, ``callback``, ``disable_progbar``, and how a fit ends, Ctrl-C
            included: see :func:`~pyro_ssl.models.fit_epochs`.
        :returns: :attr:`history`, one record per epoch.
        :raises ValueError: if the data do not fit the model or one another.
        :raises NonFiniteError: if the loss is no longer a number.
        """
        x, y, mask = self._check("fit", x, y, mask)
        check_settings(len(x), monitor)
        if valid is not None:
            valid = self._check("fit(valid=)", *parts_of(valid))
            if not len(valid[0]):
                raise ValueError("IMVLSTM.fit: valid has 0 windows; write valid=None, or give one.")
        assert y is not None
        self._take_units(x, y, mask)
        train: Data = (x, y, mask)
        adam = {"lr": learning_rate, "weight_decay": weight_decay}
        schedule: PyroOptim = pyro_optim(optim, adam)
        if optim is None:
            how = {"optimizer": torch.optim.AdamW, "optim_args": adam, "gamma": decay}
            schedule = ExponentialLR(how)
        svi = make_svi(self.model, len(x), schedule)

        def step() -> tuple[float, float]:
            if self.history:
                end_epoch(schedule, self.history[-1].score)
            return run_epoch(svi, self.network, train, batch_size, squared_error), math.nan

        def score(x: Tensor, y: Tensor, mask: Tensor | None) -> dict[str, float]:
            nll = -self.log_likelihood(x, y, mask=mask).mean()
            return {
                "nll": float(nll),
                "mse": float((self.predict(x, mask=mask).mean - y).square().mean()),
            }

        how_it_ends: dict[str, Any] = {"patience": patience, "callback": callback}
        how_it_ends |= {"valid": valid, "score": score, "monitor": monitor}
        how_it_ends |= {"parts": {"optim": schedule}}
        return fit_epochs(self, num_epochs, step, disable_progbar=disable_progbar, **how_it_ends)

    def predict(self, x: Tensor | Windows, *, mask: Tensor | None = None) -> IMVForecast:
        """Return p(y | X) of each window; its ``mean`` is the paper's forecast, Σ π_n μ_n."""
        log_weights, means, scales, _ = self._mixture(x, mask)
        weights = log_weights.exp()
        return IMVForecast(mean_of(weights, means), weights, means, scales)

    def log_likelihood(
        self, x: Tensor | Windows, y: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return log p(y | X) of each window, ``(M,)``."""
        return evidence(self._log_joint("log_likelihood", x, y, mask))

    def posterior(
        self, x: Tensor | Windows, y: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return q, p(z = n | X, y) of each window, ``(M, N)``; ``(M, N, Y)`` with ``by_target``.

        :raises ValueError: if there is no window, or the data do not fit the model or one another.
        """
        return self._some("posterior", self._log_joint("posterior", x, y, mask)).softmax(1)

    def importance(
        self, x: Tensor | Windows, y: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return I, the importance of each variable: the mean of :meth:`posterior`, ``(N,)``.

        With ``by_target`` it is that for each target, for instance each step ahead, ``(N, Y)``.
        """
        return self.posterior(x, y, mask=mask).mean(0)

    def attention(self, x: Tensor | Windows, *, mask: Tensor | None = None) -> Tensor:
        """Return α, each variable's attention over the steps of each window, ``(M, N, T)``."""
        return self._mixture(x, mask).attention

    def temporal_importance(self, x: Tensor | Windows, *, mask: Tensor | None = None) -> Tensor:
        """Return T^n, the mean of :meth:`attention`, ``(N, T)``; each row sums to 1."""
        return self._some("temporal_importance", self.attention(x, mask=mask)).mean(0)

    def _log_joint(self, where: str, x: Any, y: Any, mask: Any) -> Tensor:
        """log p(z = n, y | X) of each window, ``(M, N)``, or ``(M, N, Y)``."""
        x, y, mask = self._check(where, x, y, mask)
        assert y is not None
        log_weights, means, scales, _ = self._mixture(x, mask)
        return joint(log_weights, means, scales, y)

    @staticmethod
    def _some(where: str, values: Tensor) -> Tensor:
        """What there is to average, if it is anything."""
        if not len(values):
            raise ValueError(f"IMVLSTM.{where}: found 0 windows, expected one at least.")
        return values

    def _check(
        self, where: str, x: Tensor | Windows, y: Tensor | None = None, mask: Tensor | None = None
    ) -> Data:
        self._check_dtype(f"IMVLSTM.{where}")
        data = check_windows(where, x, y, mask, self.network)
        if data[1] is None and where != "predict":
            raise ValueError(
                f"IMVLSTM.{where}: found no y, expected targets, or windows that hold them; write "
                "(x, y) or (split.train)."
            )
        return data

    @torch.no_grad()
    def _mixture(self, x: Tensor | Windows, mask: Tensor | None) -> Mixture:
        """The network's output of all windows, a part at a time."""
        data = self._check("predict", x, None, mask)
        with evaluating(self.network):
            out = [self._read(x, mask) for x, _, mask in chunks(data, _WINDOWS)]
        return Mixture(*(torch.cat(values) for values in zip(*out, strict=True)))
