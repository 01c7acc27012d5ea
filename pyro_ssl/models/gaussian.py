r"""The Gaussian SSL, ready-made (Zheng et al. 2017, arXiv 1711.11179, Example 1, eqs. 9 and 10).

.. math::
    z_t \mid z_{1:t-1} \sim \mathrm{N}(μ(s_t), \mathrm{diag}\, σ^2(s_t)), \qquad
    x_t \mid z_t \sim \mathrm{N}(C z_t + b, R)

Fitted by stochastic EM: paths by conditional SMC, whose proposal is exact here; the LSTM by
gradient; R, and C and b if asked, in closed form. C and b are fixed by default: the LSTM's head
could take up any change of them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import AdamW
from torch import Tensor
from tqdm.auto import trange

from ..exact.kalman import LinearEmission
from ..infer import ParticleFilter, ParticleGibbs, StochasticEM
from ..primitive import ssl_transition
from ..smc import roll_out
from ..transitions import GaussianLSTMTransition, GaussianMultiplicativeLSTMTransition
from .checkpoint import load_checkpoint, save_checkpoint
from .gaussian_results import GaussianForecast, GaussianRecord, Tracked
from .gaussian_start import observed, seen_steps, start_values

__all__ = ["GaussianSSL"]

_INFERENCES = ("particle_gibbs", "smc")
_EMISSION = ("loading", "offset", "covariance")
_TRANSITIONS: dict[str, Any] = {
    "lstm": GaussianLSTMTransition,
    "mlstm": GaussianMultiplicativeLSTMTransition,
}


class GaussianSSL:
    r"""A path in R^D with long memory behind observations in R^E.

    :param int dim: D, dimension of the latents.
    :param int hidden_size: H, units of the LSTM.
    :param str cell: ``"lstm"`` or ``"mlstm"``.
    :param str reads: ``"increments"``: the LSTM reads the last step of the path, and says the next;
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
        options = {"reads": reads, "residual": residual, "dropout": dropout}
        self.transition = _TRANSITIONS[cell](dim, hidden_size, **options)
        self._config = {"dim": dim, "hidden_size": hidden_size, "cell": cell, **options}
        #: C ``(E, D)``, b ``(E,)`` and R ``(E, E)``, once fitted
        self.loading: Tensor | None = None
        self.offset: Tensor | None = None
        self.covariance: Tensor | None = None
        self.history: list[GaussianRecord] = []

    @property
    def dim(self) -> int:
        """D."""
        return self.transition.dim

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
        x, there = observed(x, mask)
        x, there = x.repeat(1, num_paths, 1), there.repeat(1, num_paths)
        lengths = None if lengths is None else lengths.repeat(num_paths)
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", self.transition, len(x), lengths=lengths):
                law = dist.MultivariateNormal(z @ loading.T + offset, covariance)
                pyro.sample("x", law.mask(there[t]), obs=x[t])

    def fit(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
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
        callback: Callable[[GaussianRecord], None] | None = None,
        disable_progbar: bool | None = None,
    ) -> list[GaussianRecord]:
        """Fit by stochastic EM, from start values that the data give.

        R starts from second differences of x, which of a smooth path are noise alone; the
        transition starts with steps well below the noise, so that the first paths are smooth.

        :param Tensor x: ``(T, B, E)``.
        :param Tensor loading: C, ``(E, D)``, and ``offset`` b, ``(E,)``. By default each latent is
            a coordinate of x, standardised (E = D), or a principal component of x (E > D).
        :param bool learn_loading: estimate C and b too, by regression of x on the paths.
        :param int num_particles: P.
        :param int num_paths: paths drawn of each sequence, of which the M-step is the average.
        :param str inference: ``"particle_gibbs"``; or ``"smc"``, unconditional, which at one
            particle is the factored inference: it ignores what later observations say.
        :param float averaging: weight of the past in the moments that C, b and R come from.
        :returns: :attr:`history`, one record per epoch.
        :raises ValueError: if nothing was observed, or C or b does not fit, or on another
            inference.
        """
        if inference not in _INFERENCES:
            raise ValueError(f'inference is "{inference}", expected one of {_INFERENCES}.')
        self.start(x, lengths, mask=mask, loading=loading, offset=offset)
        seen = seen_steps(x, lengths, mask)
        z_seen = seen.repeat(1, num_paths)  # (T, B M)
        target = x.repeat(1, num_paths, 1)[z_seen]
        disable = bool(os.environ.get("CI")) if disable_progbar is None else disable_progbar
        moments: Tensor | None = None
        self.history = []
        with pyro.get_param_store().scope():
            em = StochasticEM(
                self.model,
                AdamW({"lr": learning_rate, "weight_decay": weight_decay}),
                num_particles,
                conditional=inference == "particle_gibbs",
                num_gradient_steps=num_gradient_steps,
                ancestor_sampling=ancestor_sampling,
            )
            self.transition.train()
            with trange(
                1, num_epochs + 1, desc="GaussianSSL", unit="epoch", disable=disable
            ) as bar:
                for epoch in bar:
                    started = time.perf_counter()
                    loss = em.step(x, lengths, mask, num_paths) / max(len(target), 1)
                    now = self._moments(em.paths.transpose(0, 1)[z_seen], target)
                    moments = (
                        now if moments is None else averaging * moments + (1 - averaging) * now
                    )
                    self._estimate(moments, learn_loading)
                    seconds = time.perf_counter() - started
                    self.history.append(GaussianRecord(epoch, loss, em.change_rate, seconds))
                    bar.set_postfix(
                        moved=f"{em.change_rate:.3f}", loss=f"{loss:.3f}", refresh=False
                    )
                    if callback is not None:
                        callback(self.history[-1])
            self.transition.eval()
        return self.history

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
        found = start_values(x, seen_steps(x, lengths, mask), self.dim, loading, offset)
        self.loading, self.offset, self.covariance = found.emission
        transition = self.transition
        transition.min_scale.fill_(0.3 * found.scale)
        transition.increment_scale.fill_(found.increment_scale)
        # softplus of the bias is the rest of the scale
        transition.head.bias[self.dim :] = math.log(math.expm1(0.7 * found.scale))
        transition.head.weight.mul_(0.1)
        if transition.residual:
            transition.initial_mean.copy_(found.first.mean)
            transition.log_initial_scale.copy_(found.first.scale.log())

    def log_likelihood(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_particles: int = 1000,
    ) -> Tensor:
        """Return log p̂(x_t | x_{1:t-1}) in nats, over all E coordinates together, ``(T, B)``."""
        with pyro.get_param_store().scope():
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
        with pyro.get_param_store().scope():
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
        with pyro.get_param_store().scope():
            sampler = ParticleGibbs(self.model, num_particles)
            sampler.run(
                x,
                lengths,
                mask,
                num_samples=num_samples,
                warmup_steps=warmup_steps,
                num_chains=num_chains,
                disable_progbar=True,
            )
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
        """Return the law of x_{T+1:T+S} given x_{1:T}, a mixture over particles rolled out.

        :param int horizon: S.
        """
        _, _, covariance = self.emission
        with pyro.get_param_store().scope():
            sweep = ParticleFilter(self.model, num_particles).sweep(x, None, mask)
        paths = roll_out(self.transition, sweep, horizon).paths  # (S, B, P, D)
        place = self._place(paths).permute(2, 0, 1, 3)  # (P, S, B, E)
        noise = dist.MultivariateNormal(torch.zeros_like(place), covariance).sample()
        mean = place.mean(0)
        away = place - mean
        covariance = torch.einsum("psbe,psbf->sbef", away, away) / len(away)
        return GaussianForecast(place + noise, mean, covariance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder of safetensors and JSON; see :mod:`pyro_ssl.models.checkpoint`.

        :raises RuntimeError: if the model is not fitted.
        """
        tensors = dict(zip(_EMISSION, self.emission, strict=True)) | {
            f"transition.{name}": value for name, value in self.transition.state_dict().items()
        }
        history = [list(record) for record in self.history]
        config = {**self._config, "history": history}
        save_checkpoint(path, "GaussianSSL", tensors, config)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GaussianSSL:
        """Read what :meth:`save` wrote, onto the CPU.

        :raises CheckpointError: if it is missing, of another kind, cut short, or altered.
        """
        tensors, config = load_checkpoint(path, "GaussianSSL")
        history = config.pop("history")
        ssl = cls(**config).to("cpu", tensors["loading"].dtype)
        for name in _EMISSION:
            setattr(ssl, name, tensors.pop(name))
        ssl.transition.load_state_dict(
            {name.removeprefix("transition."): value for name, value in tensors.items()}
        )
        ssl.transition.eval()
        ssl.history = [GaussianRecord(*record) for record in history]
        return ssl

    def to(self, *args: object, **kwargs: object) -> GaussianSSL:
        """Move to a device or dtype, as :meth:`torch.nn.Module.to`."""
        self.transition.to(*args, **kwargs)
        for name in _EMISSION:
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(*args, **kwargs))
        return self

    @property
    def emission(self) -> LinearEmission:
        """C, b and R, of x_t given z_t.

        :raises RuntimeError: if the model was neither fitted nor started.
        """
        if self.loading is None or self.offset is None or self.covariance is None:
            raise RuntimeError("GaussianSSL is not fitted yet; write ssl.fit(x) first.")
        return LinearEmission(self.loading, self.offset, self.covariance)

    def _place(self, z: Tensor) -> Tensor:
        """C z + b."""
        loading, offset, _ = self.emission
        return z @ loading.T + offset

    def _moments(self, z: Tensor, x: Tensor) -> Tensor:
        """Second moments of [x, z, 1], ``(E + D + 1, E + D + 1)``, over the observed steps."""
        joint = torch.cat([x, z, torch.ones_like(z[:, :1])], -1)
        return joint.T @ joint / len(joint)

    @torch.no_grad()
    def _estimate(self, moments: Tensor, learn_loading: bool) -> None:
        """R, and C and b if asked, that maximise the likelihood of x given the paths."""
        loading, offset, _ = self.emission
        E = len(offset)
        xx, xz, zz = moments[:E, :E], moments[:E, E:], moments[E:, E:]
        weight = torch.cat([loading, offset.unsqueeze(-1)], -1)
        if learn_loading:
            ridge = torch.diag(1e-6 * zz.diagonal())
            weight = torch.linalg.solve(zz + ridge, xz.T).T
            self.loading, self.offset = weight[:, :-1], weight[:, -1]
        R = xx - weight @ xz.T - xz @ weight.T + weight @ zz @ weight.T
        self.covariance = 0.5 * (R + R.T) + torch.diag(1e-6 * xx.diagonal())
