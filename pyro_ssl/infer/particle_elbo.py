r"""The bound of a particle filter, for Pyro's own ``SVI``: a comparison.

.. math::
    \mathrm{E}[\log \hat Z] \le \log p(x), \qquad
    \hat Z = \prod_t \frac{1}{P} \sum_p α_t^p, \qquad
    α_t^p = \sum_k p(z_t = k \mid z^p_{1:t-1}) \, p(x_t \mid z_t = k)

(FIVO, Maddison et al. 2017; VSMC, Naesseth et al. 2018; AESMC, Le et al. 2018), here with the
locally optimal proposal, so that nothing but the model is learned. One particle is LLA's bound.

Ẑ depends on the parameters through the α, and through what was drawn: ancestors by α, latents by
the proposal. As in those papers the gradient takes the first way alone,

.. math:: \nabla \log \hat Z \approx \sum_t \nabla \log \textstyle\sum_p α_t^p
    \quad \text{given all } z, \text{ancestors},

which is biased, for any P: as P grows it tends to Σ_t E[∇ log p(z_t, x_t | z_{1:t-1}) | x_{1:t}],
an expectation under the filter, where that of ∇ log p(x), by Fisher's identity, is given all of
x_{1:T}. Stochastic EM estimates the latter, from whole paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..errors import LatentSiteError, NonFiniteError
from ..reading.checks import check_transition_learns, require_discrete
from ..reading.context import all_or_nothing
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import Sweep
from ..steps import steps_within
from ..transitions import map_state
from .estep import SMCSettings, draw_paths

__all__ = ["ParticleELBO"]


class ParticleELBO(Trace_ELBO):
    """-E[log Ẑ] of a particle filter over the paths, as the ``loss`` of Pyro's ``SVI``.

    For models whose latents are states. The guide is over all other latent sites, by any of Pyro's
    autoguides; the path is hidden from it: ``AutoDelta(poutine.block(model, hide=["z"]))``.

    :param int num_particles: P.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.

    The gradient leaves out that ancestors and latents are drawn by the parameters, as in the
    papers above: it is biased. :class:`~pyro_ssl.StochasticEM` is what this library recommends.

    Example::

        >>> import pyro, pyro.distributions as dist, torch
        >>> from pyro import poutine
        >>> from pyro.infer import SVI
        >>> from pyro.infer.autoguide import AutoDelta
        >>> from pyro.optim import Adam
        >>> from pyro_ssl import LSTMTransition, ssl_transition
        >>> from pyro_ssl.infer import ParticleELBO
        >>> transition = LSTMTransition(3, 8)
        >>> def model(words):
        ...     pyro.module("transition", transition)
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3, 6)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> guide = AutoDelta(poutine.block(model, hide=["z"]))
        >>> svi = SVI(model, guide, Adam({"lr": 0.05}), loss=ParticleELBO(num_particles=4))
        >>> losses = [svi.step(torch.randint(6, (7, 4))) for _ in range(3)]
    """

    def __init__(
        self, num_particles: int = 10, *, resampling: str = "systematic", **kwargs: Any
    ) -> None:
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling=0)
        self._checked = self._told = False
        super().__init__(num_particles=num_particles, **kwargs)

    @all_or_nothing
    def loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Return an estimate of -ELBO.

        :raises NonFiniteError: if it is not finite, as in the other methods.
        """
        with torch.no_grad():
            return float(self._evaluate(model, guide, args, kwargs))

    @all_or_nothing
    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return an estimate of -ELBO, with the gradient of the class's docstring."""
        return self._evaluate(model, guide, args, kwargs)

    @all_or_nothing
    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Return an estimate of -ELBO, and leave the gradients in the parameters."""
        loss = self._evaluate(model, guide, args, kwargs)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())

    def _evaluate(
        self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
        values = {name: trace.nodes[name]["value"] for name in trace.stochastic_nodes}
        run = Program(model, args, kwargs).run(values)
        self._check(run, values)
        for name in run.params:  # ``Program.run`` hides them from SVI, which has to know them
            pyro.param(name)
        with torch.no_grad():
            emission = read_emission(run, verify=is_validation_enabled() and not self._checked)
            sweep = draw_paths(run, emission, None, self.settings)[0]
        self._checked = True
        elbo = log_evidence(run, sweep).sum() * run.subsample_factor
        elbo = elbo + run.log_elsewhere(observed=True) + run.log_elsewhere(observed=False)
        loss = trace.log_prob_sum() - elbo
        if not bool(loss.isfinite()):
            raise NonFiniteError(
                f'Site "{run.loop.name}": the ELBO is {-loss.item()}, expected a finite number; a '
                "parameter is NaN, or the guide gives weight where the model has none."
            )
        return loss

    def _check(self, run: ModelRun, values: dict[str, Tensor]) -> None:
        """Check the kind of the latents, and that the guide is over all others."""
        require_discrete(run, "ParticleELBO")
        missing = sorted(run.latents.keys() - values.keys() - run.subsamples.keys())
        if missing:
            raise LatentSiteError(
                f'Site "{missing[0]}": latent, and the guide is not over it, expected all but '
                f'"{run.loop.name}"; write '
                f'AutoDelta(poutine.block(model, hide=["{run.loop.name}"])).'
            )
        # A value of a model whose parameters are known has nothing to learn.
        if is_validation_enabled() and torch.is_grad_enabled() and not self._told:
            check_transition_learns(run)
            self._told = True


def log_evidence(run: ModelRun, sweep: Sweep) -> Tensor:
    """Return log Ẑ ``(B,)`` of a sweep that was drawn, differentiable in transition and emission.

    Its particles are stepped once more, along the ancestors and latents that they had.
    """
    transition, table = run.transition, run.grid.table()  # (T, B, K)
    T, B, P = sweep.z.shape
    scale, inputs = run.grid.transition_scale, run.inputs
    active = None if run.grid.lengths is None else steps_within(run.grid.lengths, T)
    state, z = transition.initial_state((B * P,)), None
    first = torch.arange(B, device=table.device).unsqueeze(-1) * P  # of each sequence's rows
    total = table.new_zeros(B, dtype=torch.float64)
    for t in range(T):
        u = None if inputs is None else inputs[t].repeat_interleave(P, 0)
        logits, state = transition.step_logits(z, state, u)
        log_p = logits.log_softmax(-1).expand(B * P, -1).reshape(B, P, -1)
        if scale is not None:
            log_p = log_p * scale.reshape(-1, 1, 1)
        log_alpha = (log_p + table[t].unsqueeze(1)).logsumexp(-1)  # (B, P)
        log_mean = log_alpha.logsumexp(-1) - math.log(P)
        total = total + (log_mean if active is None else torch.where(active[t], log_mean, 0.0))
        rows = (first + sweep.ancestors[t]).flatten()
        state, z = map_state(itemgetter(rows), state), sweep.z[t].flatten()
    return total
