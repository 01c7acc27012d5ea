r"""The Gaussian SSL, ready-made (Zheng et al. 2017, arXiv 1711.11179, Example 1, eqs. 9 and 10).

.. math::
    z_t \mid z_{1:t-1} \sim \mathrm{N}(μ(s_t), \mathrm{diag}\, σ^2(s_t)), \qquad
    x_t \mid z_t \sim \mathrm{N}(C z_t + b, R)

Fitted by stochastic EM: paths by conditional SMC, whose proposal is exact here; the LSTM by
gradient; R, and C and b if asked, in closed form. C and b are fixed by default: the LSTM's head
could take up any change of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.optim import AdamW
from torch import Tensor

from ..exact import LinearEmission
from ..infer import ParticleFilter, ParticleGibbs, StochasticEM
from ..primitive import ssl_transition
from ..reading.context import private_store
from ..transitions import GaussianLSTMTransition, GaussianMultiplicativeLSTMTransition
from . import gaussian_closed_form as closed_form
from .base import EpochRecord, Model
from .epochs import fit_epochs
from .gaussian_results import GaussianForecast, Tracked

__all__ = ["GaussianSSL"]

INFERENCE = ("particle_gibbs", "smc")
_TRANSITIONS = {"lstm": GaussianLSTMTransition, "mlstm": GaussianMultiplicativeLSTMTransition}


class GaussianSSL(Model):
    r"""A path in R^D with long memory behind observations in R^E.

    :param int dim: D, dimension of the latents.
    :param int hidden_size: H, units of the LSTM.
    :param str cell: ``"lstm"`` or ``"mlstm"``.
    :param str reads: ``"increments"``: the LSTM reads the last step of the path, to find the next;
        or ``"positions"``, as in the paper: what it learns is then bound to where the path was.
    :param bool residual: the transition's mean is a step from z_{t-1}; increments ask for it.
    :param float dropout: dropout of the LSTM's output while it learns. Where the data are one short
        sequence, an LSTM without it soon takes the noise for the path.

    Data are time first, ``x`` ``(T, B, E)``, with ``lengths`` ``(B,)`` and ``mask`` bool
    ``(T, B)``, true where x_t was observed; steps that hold NaN count as not observed.
    :attr:`model` is the Pyro model, for use with any other inference.

    Example::

        >>> from pyro_ssl.datasets import noisy_curve
        >>> x = noisy_curve("circle", num_steps=30).x
        >>> ssl = GaussianSSL(dim=2, hidden_size=8)
        >>> history = ssl.fit(x, num_epochs=2, num_paths=2, disable_progbar=True)
        >>> ssl.filter(x).mean.shape, ssl.forecast(x, horizon=5).mean.shape
        (torch.Size([30, 1, 2]), torch.Size([5, 1, 2]))
    """

    #: C ``(E, D)``, b ``(E,)`` and R ``(E, E)``, once fitted
    loading: Tensor | None
    offset: Tensor | None
    covariance: Tensor | None

    _how_to_fit = "ssl.fit(x)"

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
        for name in ("loading", "offset", "covariance"):
            self.register_buffer(name, None)

    def model(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        num_paths: int = 1,
    ) -> None:
        """Run the generative process of the class's docstring, as a Pyro model.

        :param int num_paths: copies of each sequence side by side, which share its data.
        """
        loading, offset, covariance = self.emission
        pyro.module("transition", self.transition)
        x, there = closed_form.observed(x, mask)
        x, there = x.repeat(1, num_paths, 1), there.repeat(1, num_paths)
        lengths = None if lengths is None else lengths.repeat(num_paths)
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", self.transition, len(x), lengths=lengths):
                seen = dist.MultivariateNormal(z @ loading.T + offset, covariance).mask(there[t])
                pyro.sample("x", seen, obs=x[t])

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
        ancestor_sampling: int = 10,
        averaging: float = 0.8,
        num_valid_particles: int = 100,
        patience: int | None = None,
        callback: Callable[[EpochRecord], None] | None = None,
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
        :param float averaging: weight of the past in the moments that C, b and R come from.
        :param int num_valid_particles: P of the validation score.
        :param patience: this, ``callback``, ``disable_progbar``, and how a fit ends, Ctrl-C
            included: see :func:`~pyro_ssl.models.fit_epochs`.
        :returns: :attr:`history`, one record per epoch.
        :raises ValueError: if nothing was observed, C or b does not fit, or on another inference.
        """
        if inference not in INFERENCE:
            raise ValueError(f'inference is "{inference}", expected one of {INFERENCE}.')
        self.start(x, lengths, mask=mask, loading=loading, offset=offset)
        seen = closed_form.seen_steps(x, lengths, mask)
        regression = closed_form.EmissionRegression(x, seen, num_paths, learn_loading, averaging)
        em = StochasticEM(
            self.model,
            AdamW({"lr": learning_rate, "weight_decay": weight_decay}),
            num_particles,
            conditional=inference == "particle_gibbs",
            num_gradient_steps=num_gradient_steps,
            ancestor_sampling=ancestor_sampling,
        )

        def step() -> tuple[float, float]:
            loss = em.step(x, lengths, mask, num_paths) / regression.num_observed
            self._set_emission(regression.update(em.paths, self.emission))
            return loss, em.change_rate

        def score(x: Tensor, lengths: Tensor | None = None) -> dict[str, float]:
            log_p = self.log_likelihood(x, lengths, num_particles=num_valid_particles)
            return {"nll": -float(log_p.sum() / closed_form.seen_steps(x, lengths, None).sum())}

        with private_store():
            return fit_epochs(
                self,
                num_epochs,
                step,
                valid=valid,
                score=score,
                monitor="nll",
                patience=patience,
                callback=callback,
                disable_progbar=disable_progbar,
            )

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
        seen = closed_form.seen_steps(x, lengths, mask)
        found = closed_form.start_values(x, seen, self.dim, loading, offset)
        self._set_emission(found.emission)
        closed_form.start_transition(self.transition, found)

    def log_likelihood(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_particles: int = 1000,
    ) -> Tensor:
        """Return log p̂(x_t | x_{1:t-1}), float64 ``(T, B)``, by a particle filter.

        It is in nats, over all E coordinates together, and 0 where nothing was observed.
        """
        with private_store():
            return ParticleFilter(self.model, num_particles).log_likelihood(x, lengths, mask)

    @torch.no_grad()
    def filter(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_particles: int = 1000,
    ) -> Tracked:
        """Return where C z_t + b is, given x_{1:t}."""
        with private_store():
            sweep = ParticleFilter(self.model, num_particles).sweep(x, lengths, mask)
        place = self._place(sweep.z)  # (T, B, P, E)
        return Tracked(place.mean(2), place.std(2))

    @torch.no_grad()
    def smooth(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_samples: int = 100,
        warmup_steps: int = 20,
        num_chains: int = 4,
        num_particles: int = 20,
    ) -> Tracked:
        """Return where C z_t + b is, given all of x, by particle Gibbs."""
        with private_store():
            sampler = ParticleGibbs(self.model, num_particles)
            how_long = {"num_samples": num_samples, "warmup_steps": warmup_steps}
            sampler.run(x, lengths, mask, num_chains=num_chains, disable_progbar=True, **how_long)
        place = self._place(sampler.get_samples()["z"].transpose(1, 2))  # (S, T, B, E)
        return Tracked(place.mean(0), place.std(0))

    @torch.no_grad()
    def forecast(
        self,
        x: Tensor,
        horizon: int,
        *,
        mask: Tensor | None = None,
        num_particles: int = 1000,
    ) -> GaussianForecast:
        """Return x_{T+1:T+S} given x_{1:T}, a mixture over particles that are rolled out.

        :param int horizon: S.
        """
        longer = F.pad(x, (0, 0, 0, 0, 0, horizon), value=torch.nan)
        mask = None if mask is None else F.pad(mask, (0, 0, 0, horizon))
        with private_store():
            particles = ParticleFilter(self.model, num_particles)
            paths = particles.forecast(longer, None, mask, start=len(x)).paths  # (P, B, S, D)
        place = self._place(paths).transpose(1, 2)  # (P, S, B, E)
        return GaussianForecast.of_paths(place, self.emission.covariance)

    @property
    def emission(self) -> LinearEmission:
        """C, b and R, of x_t given z_t.

        :raises RuntimeError: if the model was neither fitted nor started.
        """
        return LinearEmission(*self._fitted())

    def _set_emission(self, emission: LinearEmission) -> None:
        # Clones: C and b may be the caller's, and load_state_dict writes into buffers.
        self.loading, self.offset, self.covariance = (value.clone() for value in emission)

    def _place(self, z: Tensor) -> Tensor:
        """C z + b."""
        loading, offset, _ = self.emission
        return z @ loading.T + offset
