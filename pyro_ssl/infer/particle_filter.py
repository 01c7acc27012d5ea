r"""Scores and forecasts by unconditional SMC.

In the fully adapted order p̂(x_t | x_{1:t-1}) = mean_p α_t^p, and the product over t is unbiased for
p(x_{1:T}). Its logarithm lies below log p(x) on average, by an amount that vanishes as P grows:
perplexities are, if anything, too high.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from ..reading.checks import require_no_latents
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import Sweep, roll_out
from .estep import SMCSettings, draw_paths
from .scores import perplexity

__all__ = ["Forecast", "ParticleFilter"]


class Forecast(NamedTuple):
    """p(x_{s+1:T} | x_{1:s}) as a mixture over particles, S = T - s steps ahead.

    ``log_prob`` ``(S,) + batch_shape``: log p̂(x_t | x_{1:s}) of the x_t that the model observes
    there. ``state_probs`` ``(S,) + batch_shape + (K,)``: p̂(z_t = k | x_{1:s}), averaged over
    particles before a state is drawn; ``None`` where latents are vectors. ``paths``
    ``(P,) + batch_shape + (S,)``, D following for vectors: the particles' futures, each a draw of
    z_{s+1:T} given x_{1:s}.
    """

    log_prob: Tensor
    state_probs: Tensor | None
    paths: Tensor


class ParticleFilter:
    r"""Unconditional SMC on a model whose parameters are known.

    :param model: a Pyro model with one ``ssl_transition`` and no other latent site; give those by
        ``pyro.condition(model, values)`` (as ``StochasticEM.fitted_model`` does).
    :param int num_particles: P.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ParticleFilter, ssl_transition
        >>> transition, phi = LSTMTransition(3, 8), torch.ones(3, 6) / 6
        >>> def model(words):
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> words = torch.randint(6, (7, 4))
        >>> round(ParticleFilter(model, 20).perplexity(words), 3)
        6.0
    """

    def __init__(
        self, model: Callable[..., Any], num_particles: int, *, resampling: str = "systematic"
    ) -> None:
        self.model = model
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling=0)

    def log_likelihood(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log p̂(x_t | x_{1:t-1}), float64 ``(T,) + batch_shape``; 0 past the lengths."""
        run, sweep = self._filter(args, kwargs)
        return sweep.log_likelihood.reshape((-1,) + run.loop.batch_shape)

    def sweep(self, *args: Any, **kwargs: Any) -> Sweep:
        """Return the sweep itself: particles, ancestors, and the cell's last state."""
        return self._filter(args, kwargs)[1]

    def log_evidence(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log Ẑ of each sequence, float64 ``batch_shape``; Ẑ is unbiased for p(x)."""
        return self.log_likelihood(*args, **kwargs).sum(0)

    def perplexity(self, *args: Any, start: int = 0, **kwargs: Any) -> float:
        """Return exp(-mean log p̂(x_t | x_{1:t-1})) over the observed cells.

        :param int start: leave out the first so many steps of every sequence, which are then only
            conditioned on.
        :raises ValueError: if nothing is left to score.
        """
        run, sweep = self._filter(args, kwargs)
        return perplexity(run, sweep.log_likelihood, start)

    def forecast(self, *args: Any, start: int, **kwargs: Any) -> Forecast:
        """Return the distribution of all after ``start`` steps, given those steps.

        The particles that filtered x_{1:start} are rolled out under the transition; nothing of
        the later observations is looked at, except to score them.

        :param int start: s, from 0 to T - 1.
        :returns: :class:`Forecast` of the T - s later steps.
        :raises TypeError: if latents are vectors whose emission is not linear-Gaussian.
        """
        run = self._run(args, kwargs)
        loop, P = run.loop, self.settings.num_particles
        if not 0 <= start < loop.num_steps:
            raise ValueError(
                f'Site "{loop.name}": forecast from start={start}, expected 0 to T - 1 = '
                f"{loop.num_steps - 1}."
            )
        with torch.no_grad():
            emission = read_emission(run)
            before, after = emission.split(start)
            sweep = draw_paths(run, before, None, self.settings)[0]
            horizon = loop.num_steps - start
            rolled = roll_out(run.transition, sweep, horizon, inputs=run.inputs)
            log_p = torch.where(run.grid.observed()[start:], after.log_predictive(*rolled), 0.0)
        shape = loop.batch_shape
        probs = rolled.state_probs
        time_last = rolled.paths.movedim(2, 0).transpose(1, 2)  # (P, B, S, ...)
        return Forecast(
            log_p.reshape((-1,) + shape),
            None if probs is None else probs.reshape((-1,) + shape + probs.shape[-1:]),
            time_last.reshape((P,) + shape + time_last.shape[2:]),
        )

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelRun:
        with torch.no_grad(), poutine.block():
            run = Program(self.model, args, kwargs).run()
        require_no_latents(run, "ParticleFilter scores data under known parameters")
        return run

    def _filter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ModelRun, Sweep]:
        run = self._run(args, kwargs)
        with torch.no_grad():
            return run, draw_paths(run, read_emission(run), None, self.settings)[0]
