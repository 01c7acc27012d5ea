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

from ..arguments import broadcast_shapes

__all__ = ["Evidence", "Forecast", "conditioned", "mean_exp", "mixed_forecast", "mixed_steps"]


class Evidence(NamedTuple):
    """log Ẑ of each sequence, averaged over runs, and its standard error, both ``batch_shape``.

    Both float64. Ẑ is unbiased for p(x); the error is that of its logarithm, to first order.
    """

    log_evidence: Tensor
    standard_error: Tensor


class Forecast(NamedTuple):
    """p(x_{s+1:T} | x_{1:s}) as a mixture over particles, S steps ahead.

    ``log_prob`` ``(T - s,) + batch_shape``: log p̂(x_t | x_{1:s}) of the x_t that the model observes
    there. ``state_probs`` ``(S,) + batch_shape + (K,)``: p̂(z_t = k | x_{1:s}), averaged over
    particles before a state is drawn; ``None`` where latents are vectors. ``paths``
    ``(P,) + batch_shape + (S,)``, D following for vectors: the particles' futures, each a draw of
    z_{s+1:T} given x_{1:s}. Of several chains both are dicts by site. Where there are posterior
    samples, ``samples`` ``(P,) + batch_shape`` holds the number of the one that each path is drawn
    under, whose values its observations have; else it is ``None``.
    """

    log_prob: Tensor
    state_probs: Any
    paths: Any
    samples: Tensor | None = None


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
        if msg["infer"].get("_ssl_path"):
            return
        if msg["name"] in self.data and hasattr(msg["fn"], "shape"):  # a subsample has none
            _check_draw(msg["name"], self.data[msg["name"]].shape, msg["fn"].shape())
        super()._pyro_sample(msg)


def _check_draw(name: str, found: torch.Size, expected: torch.Size) -> None:
    """Check that what is taken for one draw is no more: others would be each sequence's own."""
    try:
        fits = broadcast_shapes(found, expected).numel() == expected.numel()
    except RuntimeError:
        fits = False
    if not fits:
        have, want = (", ".join(["S", *map(str, shape)]) for shape in (found, expected))
        raise ValueError(
            f'Site "{name}": posterior_samples of shape ({have}), expected ({want}), the draws of '
            "all chains first; write posterior_samples=pg.get_samples(), not grouped by chain, of "
            "a run on as many sequences."
        )


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
    w = log_w.exp().unsqueeze(1).unsqueeze(-1)
    some = each[0].paths
    P = len(next(iter(some.values())) if isinstance(some, Mapping) else some)
    drawn = torch.distributions.Categorical(logits=log_w.movedim(0, -1)).sample((P,))

    def mean(probs: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(probs))
        return (stacked * w).sum(0).to(stacked.dtype)

    def choose(paths: Sequence[Tensor]) -> Tensor:  # the same draw for all chains of a particle
        stacked = torch.stack(list(paths))  # (S, P) + batch_shape + ...
        index = drawn.reshape((1, *drawn.shape) + (1,) * (stacked.dim() - 1 - drawn.dim()))
        return stacked.gather(0, index.expand(1, *stacked.shape[1:]))[0]

    probs = [forecast.state_probs for forecast in each]
    mixed = None if probs[0] is None else _by_site(mean, probs)
    chosen = _by_site(choose, [forecast.paths for forecast in each])
    return Forecast(log_prob, mixed, chosen, drawn)


def _by_site(mix: Callable[[Sequence[Tensor]], Tensor], each: Sequence[Any]) -> Any:
    """Mix tensors, or dicts of them by site."""
    if not isinstance(each[0], Mapping):
        return mix(each)
    return {name: mix([one[name] for one in each]) for name in each[0]}
