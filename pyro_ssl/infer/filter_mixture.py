r"""What particle filters under several draws of a posterior say together.

With θ_1, ..., θ_S ~ p(θ | data),

.. math:: p(x \mid \text{data}) = \frac{1}{S} \sum_s p(x \mid θ_s), \qquad
          p(x_{t+1:T} \mid x_{1:t}) = \sum_s w_s \, p(x_{t+1:T} \mid x_{1:t}, θ_s), \quad
          w_s \propto p(x_{1:t} \mid θ_s):

each sequence weighs the draws by how well they explain its own past.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pyro.poutine.condition_messenger import ConditionMessenger
from torch import Tensor

__all__ = ["Forecast", "conditioned", "mean_exp", "mixed_forecast", "mixed_steps"]


class Forecast(NamedTuple):
    """p(x_{s+1:T} | x_{1:s}) as a mixture over particles, S steps ahead.

    ``log_prob`` ``(T - s,) + batch_shape``: log p̂(x_t | x_{1:s}) of the x_t that the model observes
    there. ``state_probs`` ``(S,) + batch_shape + (K,)``: p̂(z_t = k | x_{1:s}), averaged over
    particles before a state is drawn; ``None`` where latents are vectors. ``paths``
    ``(P,) + batch_shape + (S,)``, D following for vectors: the particles' futures, each a draw of
    z_{s+1:T} given x_{1:s}.
    """

    log_prob: Tensor
    state_probs: Tensor | None
    paths: Tensor


def conditioned(
    model: Callable[..., Any], samples: Mapping[str, Tensor] | None
) -> list[Callable[..., Any]]:
    """Return the model given each draw of its sites, a leading S.

    :raises ValueError: if the sites have different numbers of draws, or none.
    """
    if samples is None:
        return []
    sizes = {name: len(value) for name, value in samples.items()}
    if len(set(sizes.values())) != 1 or not all(sizes.values()):
        raise ValueError(
            f"posterior_samples hold {sizes} draws by site, expected one number of them, at least "
            "1; write posterior_samples=pg.get_samples()."
        )
    draws = ({n: value[s] for n, value in samples.items()} for s in range(max(sizes.values())))
    return [_GivenDraw(draw)(model) for draw in draws]


class _GivenDraw(ConditionMessenger):
    """Conditions a model on all but paths: under other data these are drawn anew."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_ssl_path"):
            super()._pyro_sample(msg)


def mean_exp(log_p: Tensor) -> Tensor:
    """Return log of the mean of exp(log_p) over the leading dimension."""
    return log_p.logsumexp(0) - math.log(len(log_p))


def mixed_steps(log_p: Sequence[Tensor]) -> Tensor:
    """Return log p(x_t | x_{1:t-1}) of the mixture, of each draw's, ``(T,) + batch_shape``."""
    so_far = mean_exp(torch.stack(list(log_p)).cumsum(1))
    return torch.cat([so_far[:1], so_far.diff(dim=0)])


def mixed_forecast(found: Sequence[tuple[Forecast, Tensor]]) -> Forecast:
    """Mix forecasts by what each draw makes of the past, log p(x_{1:s} | θ) ``batch_shape``."""
    each = [forecast for forecast, _ in found]
    log_w = torch.stack([log_p for _, log_p in found]).log_softmax(0)
    steps = torch.stack([forecast.log_prob for forecast in each])
    log_prob = (steps + log_w.unsqueeze(1)).logsumexp(0)
    probs = None
    if each[0].state_probs is not None:
        w = log_w.exp().unsqueeze(1).unsqueeze(-1)
        stacked = torch.stack([f.state_probs for f in each if f.state_probs is not None])
        probs = (stacked * w).sum(0).to(stacked.dtype)
    paths = torch.stack([forecast.paths for forecast in each])  # (S, P) + batch_shape + ...
    P = paths.shape[1]
    drawn = torch.distributions.Categorical(logits=log_w.movedim(0, -1)).sample((P,))
    index = drawn.reshape((1, *drawn.shape) + (1,) * (paths.dim() - 1 - drawn.dim()))
    return Forecast(log_prob, probs, paths.gather(0, index.expand(1, *paths.shape[1:]))[0])
