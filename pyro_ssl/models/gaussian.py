r"""The Gaussian SSL, ready-made (Zheng et al. 2017, arXiv 1711.11179, Example 1, eqs. 9 and 10).

.. math::
    z_t \mid z_{1:t-1} \sim \mathrm{N}(μ(s_t), \mathrm{diag}\, σ^2(s_t)), \qquad
    x_t \mid z_t \sim \mathrm{N}(C z_t + b, R)

Fitted by stochastic EM: paths by conditional SMC, whose proposal is exact here; the LSTM by
gradient; R, and C and b if asked, in closed form. C and b are fixed by default: the LSTM's head
could take up any change of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import AdamW
from torch import Tensor

from ..exact import LinearEmission
from ..infer import StochasticEM
from ..primitive import ssl_transition
from ..transitions import GaussianLSTMTransition, GaussianMultiplicativeLSTMTransition
from . import gaussian_closed_form as closed_form
from .base import EpochRecord
from .epochs import fit_epochs, whole_or_not
from .gaussian_data import observed, seen_steps, take_emission, take_valid
from .gaussian_tracking import Tracker
from .saved_fit import saved
from .settings import checked

__all__ = ["GaussianSSL"]

INFERENCE = ("particle_gibbs", "smc")
_TRANSITIONS = {"lstm": GaussianLSTMTransition, "mlstm": GaussianMultiplicativeLSTMTransition}


class GaussianSSL(Tracker):
    r"""A path in R^D with long memory behind observations in R^E.

    :param int dim: D, dimension of the latents.
    :param int hidden_size: H, units of the LSTM.
    :param str cell: ``"lstm"`` or ``"mlstm"``.
    :param str reads: ``"increments"``: the LSTM reads the last step of the path, to find the next;
        or ``"positions"``, as in the paper: what it learns is then bound to where the path was.
    :param bool residual: the transition's mean is a step from z_{t-1}; increments ask for it.
    :param float dropout: dropout of the LSTM's output while it learns. Where the data are one short
        sequence, an LSTM without it soon takes the noise for the path.

    Data are time first, ``x`` ``(T, B, E)``, with ``lengths`` ``(B,)`` and ``mask`` ``(T, B)``,
    true where x_t was observed: tensors, arrays or lists of any number type. Steps that are not
    finite in all E sensors count as not observed. Origin and unit of x do not matter.
    :attr:`model` is the Pyro model, for any other inference.

    Example::

        >>> from pyro_ssl.datasets import noisy_curve
        >>> x = noisy_curve("circle", num_steps=30).x
        >>> ssl = GaussianSSL(dim=2, hidden_size=8)
        >>> history = ssl.fit(x, num_epochs=2, num_paths=2, disable_progbar=True)
        >>> ssl.filter(x).mean.shape, ssl.forecast(x, horizon=5).mean.shape
        (torch.Size([30, 1, 2]), torch.Size([5, 1, 2]))
    """

    _how_to_fit = "ssl.fit(x)"

    @checked
    def __init__(
        self,
        dim: int,
        *,
        hidden_size: int = 32,
        cell: str = "lstm",
        reads: str = "increments",
        residual: bool = True,
        dropout: float = 0.5,
    ) -> None:
        if cell not in _TRANSITIONS:
            raise ValueError(f'cell is "{cell}", expected one of {sorted(_TRANSITIONS)}.')
        options: dict[str, Any] = {"reads": reads, "residual": residual, "dropout": dropout}
        super().__init__(dim=dim, hidden_size=hidden_size, cell=cell, **options)
        self.transition = _TRANSITIONS[cell](dim, hidden_size, **options)
        self.dim = self.transition.dim
        self._origin: Tensor | None = None  # of x, while data must stay the same: in a fit

    def model(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        num_paths: int = 1,
    ) -> None:
        """Run the generative process of the class's docstring, as a Pyro model.

        Its site ``"x"`` holds x - b, and during a fit x less the b of its start: far from 0,
        differences of x would drown in rounding.

        :param int num_paths: copies of each sequence side by side, which share its data.
        """
        loading, b, covariance = self.emission
        pyro.module("transition", self.transition)
        origin = b if self._origin is None else self._origin
        x, there = observed(x - origin, mask)
        x, there = x.repeat(1, num_paths, 1), there.repeat(1, num_paths)
        lengths = None if lengths is None else lengths.repeat(num_paths)
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", self.transition, len(x), lengths=lengths):
                seen = dist.MultivariateNormal(z @ loading.T + (b - origin), covariance)
                pyro.sample("x", seen.mask(there[t]), obs=x[t])

    @checked
    @whole_or_not
    @saved
    def fit(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        valid: tuple[Any, ...] | None = None,
        loading: Tensor | None = None,
        offset: Tensor | None = None,
        learn_loading: bool = False,
        num_epochs: int = 60,
        num_particles: int = 10,
        num_paths: int = 8,
        inference: str = "particle_gibbs",
        num_gradient_steps: int = 3,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        ancestor_sampling: int | None = None,
        twist: Any = "markov",
        averaging: float = 0.8,
        num_valid_particles: int = 100,
        patience: int | None = None,
        callback: Callable[[EpochRecord], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        resume: bool = False,
        disable_progbar: bool | None = None,
    ) -> list[EpochRecord]:
        """Fit by stochastic EM, from start values that the data give.

        R starts from second differences of x, noise alone where the path is smooth; the transition
        starts with steps well below the noise, so that the first paths are smooth.

        :param Tensor x: ``(T, B, E)``.
        :param valid: ``(x, lengths)`` to choose by, with NaN where nothing was observed; the epoch
            of the lowest mean negative log-likelihood of a step is the one that is kept.
        :param Tensor loading: C, ``(E, D)``, and ``offset`` b, ``(E,)``. By default each latent is
            a coordinate of x, standardised (E = D), or a principal component of x (E > D).
        :param bool learn_loading: estimate C and b too, by regression of x on the paths.
        :param int num_particles: P.
        :param int num_paths: paths drawn of each sequence, of which the M-step is the average.
        :param str inference: ``"particle_gibbs"``; or ``"smc"``, unconditional, which at one
            particle is the factored inference: it ignores later observations.
        :param twist: lets particles look ahead; see :class:`~pyro_ssl.ParticleGibbs`.
        :param float averaging: weight of the past in the moments that C, b and R come from.
        :param int num_valid_particles: P of the validation score.
        :param checkpoint: a folder to save the fit in, after every so many epochs (``every``);
            with ``resume`` it goes on from there: see :class:`~pyro_ssl.models.Model`.
        :param patience: this, ``callback``, ``disable_progbar``, and how a fit ends, Ctrl-C
            included: see :func:`~pyro_ssl.models.fit_epochs`.
        :returns: :attr:`history`, one record per epoch.
        :raises ValueError: if nothing was observed, C or b does not fit, or on another inference.
        """
        if inference not in INFERENCE:
            raise ValueError(f'inference is "{inference}", expected one of {INFERENCE}.')
        x, lengths, mask = self._take("fit", x, lengths, mask, anew=True)
        valid = take_valid("GaussianSSL.fit", valid, self.transition.like, x.shape[2])
        self.start(x, lengths, mask=mask, loading=loading, offset=offset)
        seen = seen_steps(x, lengths, mask)
        regression = closed_form.EmissionRegression(x, seen, num_paths, learn_loading, averaging)
        em = StochasticEM(
            self.model,
            AdamW({"lr": learning_rate, "weight_decay": weight_decay}),
            num_particles,
            conditional=inference == "particle_gibbs",
            num_gradient_steps=num_gradient_steps,
            ancestor_sampling=ancestor_sampling,
            twist=twist,
        )

        def step() -> tuple[float, float]:
            loss = em.step(x, lengths, mask, num_paths) / regression.num_observed
            self._set_emission(regression.update(em.paths, self.emission))
            return loss, em.change_rate

        def score(*data: Any) -> dict[str, float]:
            log_p = self.log_likelihood(*data[:2], num_particles=num_valid_particles)
            return {"nll": -float(log_p.sum() / seen_steps(*data).sum())}

        how_it_ends: dict[str, Any] = {"patience": patience, "callback": callback}
        how_it_ends |= {"valid": valid, "score": score, "monitor": "nll"}
        how_it_ends |= {"disable_progbar": disable_progbar}
        how_it_ends |= {"parts": {"em": em, "regression": regression}}
        self._origin = self.emission.offset.clone()
        try:
            return fit_epochs(self, num_epochs, step, **how_it_ends)
        finally:
            self._origin = None

    @torch.no_grad()
    def start(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        loading: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> None:
        """Set the start values of :meth:`fit` alone, as for a fit of :attr:`model` by Pyro's SVI.

        The transition's mean is then z_{t-1}, nearly; see :meth:`fit` for the parameters.
        """
        x, lengths, mask = self._take("fit", x, lengths, mask, anew=True)
        like = self.transition.like
        loading, offset = take_emission(
            "GaussianSSL.fit", loading, offset, x.shape[2], self.dim, like
        )
        seen = seen_steps(x, lengths, mask)
        found = closed_form.start_values(x, seen, self.dim, loading, offset)
        self._set_emission(found.emission)
        closed_form.start_transition(self.transition, found)

    def _set_emission(self, emission: LinearEmission) -> None:
        # Clones: C and b may be the caller's, and load_state_dict writes into buffers.
        self.loading, self.offset, self.covariance = (value.clone() for value in emission)
