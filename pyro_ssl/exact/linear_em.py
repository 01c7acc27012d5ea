r"""Exact EM for a linear-Gaussian state space model: the baseline over vectors, and a start.

.. math::
    z_t = A z_{t-1} + b + G u_t + \mathrm{N}(0, \mathrm{diag}\, q^2), \qquad
    x_t = C z_t + d + \mathrm{N}(0, \mathrm{diag}\, r^2)

It is to ``GaussianSSL`` what :class:`~pyro_ssl.MarkovEM` is to a model over states: the E-step is
exact, by the Kalman smoother, so the likelihood rises at every step.

The likelihood is the same in any coordinates of z. Those that are returned have the noise of the
steps and that of the start uncorrelated, each latent of mean 0 and variance 1 over the data, the
smoothest first, and the largest entry of each column of C, in units of the sensors, positive.

*Reference*: Shumway & Stoffer, "An approach to time series smoothing and forecasting using the EM
algorithm", 1982; Ghahramani & Hinton, "Parameter estimation for linear dynamical systems", 1996.

Next file to read: ``linear_mstep.py``, what a step of EM computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import trange

from ..arguments import hides_progbar, whole
from ..steps import steps_within
from ..transitions import LinearGaussianTransition
from .arguments import check_kalman
from .kalman import kalman_filter, smoothed_with_scores
from .linear_mstep import Latents, Sums, Units, canonical, maximised, moved, start
from .measurements import LinearEmission
from .standard import never_observed, unit_of

__all__ = ["LinearGaussianEM"]


class LinearGaussianEM:
    """Fit a linear-Gaussian state space model of D latents by exact EM.

    :param int dim: D; it may exceed the number of sensors, for dynamics of higher order.
    :param float smoothing: so many sequences in addition start at 0 ± 1, in units of the latents'
        spread over the data: with a single sequence, its start would be learned as certain.
    :raises ValueError: if a setting is out of range.

    Data are those of :func:`kalman_filter`: ``x`` ``(T, B, E)``, NaN where a sensor was not
    observed, many sequences of any ``lengths`` or one long one, ``inputs`` ``(T, B, U)``. Origins
    and units do not matter: inside, all is float64 and standardised. Sequences side by side are
    swept together, so a long one is fitted sooner as a hundred windows of it.

    Example::

        >>> x = torch.randn(50, 3, 4).cumsum(0)          # (T, B, E)
        >>> x[10:20, :, 1] = torch.nan
        >>> em = LinearGaussianEM(dim=2)
        >>> losses = em.fit(x, num_steps=5, disable_progbar=True)
        >>> losses[-1] < losses[0], em.emission.matrix.shape
        (True, torch.Size([4, 2]))
        >>> longer = torch.cat([x, torch.full((10, 3, 4), torch.nan)])
        >>> found = kalman_filter(em.transition, em.emission, longer)
        >>> ahead = found.mean[50:] @ em.emission.matrix.T + em.emission.offset
        >>> ahead.shape
        torch.Size([10, 3, 4])
    """

    def __init__(self, dim: int, *, smoothing: float = 1.0) -> None:
        self.dim = whole("LinearGaussianEM", "dim", dim, 1)
        if not 0.0 <= smoothing < math.inf:
            raise ValueError(
                f"LinearGaussianEM: smoothing is {smoothing}, expected pseudo-sequences, at least "
                "0; write smoothing=1.0."
            )
        self.smoothing = float(smoothing)
        self._law: tuple[LinearGaussianTransition, LinearEmission] | None = None
        self._spread: tuple[Tensor, Tensor] | None = None  # of the latents over the data
        self._units: Units | None = None
        self._like = torch.empty(0)

    # ----------------------------------------------------------------------------- what was found

    @property
    def transition(self) -> LinearGaussianTransition:
        """The fitted chain, of x's dtype, without parameters that would be learned further."""
        return self._found[0]

    @property
    def emission(self) -> LinearEmission:
        """C, d and R, in the units of x."""
        return self._found[1]

    @property
    def _found(self) -> tuple[LinearGaussianTransition, LinearEmission]:
        if self._law is None or self._units is None or self._spread is None:
            raise RuntimeError("Nothing is fitted yet; write em.fit(x) first.")
        return moved(*canonical(*self._law, *self._spread), self._units, self._like)

    @torch.no_grad()
    def log_likelihood(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Return log p(x_t | x_{1:t-1}), exact, ``(T, B)``."""
        chain, emission = self._found
        given: dict[str, Any] = {"lengths": lengths, "mask": mask, "inputs": inputs}
        return kalman_filter(chain, emission, x, **given).log_likelihood

    # ----------------------------------------------------------------------------- learning

    def fit(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
        num_steps: int = 100,
        tolerance: float = 1e-5,
        revise: Callable[[Tensor], Tensor] | None = None,
        disable_progbar: bool | None = None,
    ) -> list[float]:
        """Run EM until a step gains less than ``tolerance`` nats per observed number.

        A further call goes on from where this one ended.

        :param int num_steps: at most so many.
        :param revise: where x are residuals of something that is estimated too: given E[C z_t + d]
            of all data, ``(T, B, E)``, it estimates that anew, and returns x for the M-step and
            from then on, with the same holes. What it lowers the expected loss by, EM does too.
        :param bool disable_progbar: hide the progress bar; by default where ``CI`` is set.
        :returns: -log p(x) before each step, in nats.
        :raises ValueError: if the data do not fit, or a sensor was never observed.
        """
        count = int(self._seen("fit", x, lengths, mask, inputs).sum())
        losses: list[float] = []
        disable = hides_progbar(disable_progbar)
        with trange(num_steps, desc="LinearGaussianEM", disable=disable) as bar:
            for _ in bar:
                loss, x = self._step(x, lengths, mask, inputs, revise)
                losses.append(loss)
                if len(losses) > 1 and losses[-2] - losses[-1] < tolerance * count:
                    break
        return losses

    @torch.no_grad()
    def step(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> float:
        """One EM iteration on all data; returns -log p(x) before it, in nats."""
        return self._step(x, lengths, mask, inputs, None)[0]

    @torch.no_grad()
    def _step(
        self,
        x: Tensor,
        lengths: Tensor | None,
        mask: Tensor | None,
        inputs: Tensor | None,
        revise: Callable[[Tensor], Tensor] | None,
    ) -> tuple[float, Tensor]:
        """The same, and x as it was revised."""
        seen = self._seen("step", x, lengths, mask, inputs)
        if self._units is None or self._law is None:
            self._begin(x, seen, lengths, inputs)
        assert self._units is not None and self._law is not None
        origin, unit = self._units[:2]
        y = torch.where(seen, (x.double() - origin) / unit, 0.0)
        u = self._units.standard_inputs(inputs, x.shape[1])
        scores, smoother = smoothed_with_scores(*self._law, y, seen, u)
        within = torch.ones_like(seen[..., 0])
        if lengths is not None:
            within = steps_within(lengths, len(x))
        latents = Latents(*smoother, within)
        if revise is not None:
            C, d, _ = self._law[1]
            x = revise(origin + unit * (latents.mean @ C.T + d))
            y = torch.where(seen, (x.double() - origin) / unit, 0.0)
        self._law = maximised(Sums.of(latents, y, seen, u), self.smoothing)
        self._spread = latents.spread()
        log_unit = (seen * unit.log()).sum()
        return float(log_unit - torch.where(within, scores, 0.0).sum()), x

    def _begin(
        self, x: Tensor, seen: Tensor, lengths: Tensor | None, inputs: Tensor | None
    ) -> None:
        origin, unit = unit_of(x, seen)
        of_inputs: tuple[Tensor | None, Tensor | None] = (None, None)
        if inputs is not None:
            u = inputs.unsqueeze(1) if inputs.dim() == 2 else inputs
            there = torch.ones_like(u, dtype=torch.bool)
            if lengths is not None and inputs.dim() == 3:
                there &= steps_within(lengths, len(x)).unsqueeze(-1)
            of_inputs = unit_of(u, there)
        y = torch.where(seen, (x.double() - origin) / unit, 0.0)
        num_inputs = 0 if inputs is None else inputs.shape[-1]
        self._law = start(y, seen, self.dim, num_inputs)
        self._units, self._like = Units(origin, unit, *of_inputs), x.new_empty(0)
        zeros = torch.zeros(self.dim, dtype=torch.float64, device=x.device)
        self._spread = zeros, zeros + 1.0

    def _seen(self, name: str, x: Any, lengths: Any, mask: Any, inputs: Any) -> Tensor:
        """Check the data; return what was observed, bool ``(T, B, E)``."""
        where = f"LinearGaussianEM.{name}"
        E = x.shape[-1] if isinstance(x, Tensor) and x.dim() == 3 else 1
        size = inputs.shape[-1] if isinstance(inputs, Tensor) and inputs.dim() > 1 else 0
        if self._units is not None:
            E = len(self._units[0])
            size = 0 if self._units[2] is None else len(self._units[2])
        like = x if isinstance(x, Tensor) and x.is_floating_point() else torch.empty(0)
        one = like.new_ones(self.dim)
        chain = LinearGaussianTransition(self.dim, scale=one, input_size=size)
        unit = like.new_ones(E)
        emission = LinearEmission(like.new_zeros(E, self.dim), like.new_zeros(E), unit.diag())
        seen = check_kalman(where, chain, emission, x, mask, lengths, inputs)
        if self._units is None and (missing := never_observed(seen)):
            raise ValueError(f"{where}: {missing}")
        return seen
