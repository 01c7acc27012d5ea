"""Predictions of measurements, and how near two of them are."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import check_kind, whole
from ..transitions import GaussianTransition
from .averages import Fidelity, averaged
from .gaussian import GaussianFilterRNN, check_measurements, gaussian_filter

__all__ = ["density_fidelity", "predictive_density"]


@torch.no_grad()
def predictive_density(
    source: Any, x: Tensor, lengths: Tensor | None = None
) -> torch.distributions.Distribution:
    """Return p(x_t | x_{1:t-1}) of measurements, batch shape ``(T, B)``, event ``(D,)``.

    :param source: a :class:`GaussianFilterRNN`, whose predictions are mixtures; a
        :class:`GaussianTransition` without inputs that reads the measurements, such as an LSTM
        trained on them; or such a distribution.
    :param Tensor x: ``(T, B, D)``.
    :param Tensor lengths: ``(B,)``; past them predictions mean nothing.
    :raises TypeError: if the source is none of these.

    Example::

        >>> from pyro_ssl import GaussianLSTMTransition
        >>> lstm = GaussianLSTMTransition(dim=2, hidden_size=8)
        >>> predictive_density(lstm, torch.randn(7, 3, 2)).log_prob(torch.zeros(2)).shape
        torch.Size([7, 3])
    """
    where = "predictive_density"
    if isinstance(source, torch.distributions.Distribution):
        return source
    if isinstance(source, GaussianFilterRNN):
        hmm = source.matrix, source.emission, source.start
        return source.emission.mixture(gaussian_filter(*hmm, x, lengths).predicted)
    if isinstance(source, GaussianTransition):
        x, _ = check_measurements(where, x, source.dim, source.like, lengths)
        moments = source.path_moments(x.transpose(0, 1))
        mean, scale = (value.transpose(0, 1) for value in moments)
        return dist.Normal(mean, scale).to_event(1)
    raise TypeError(
        f"{where}: found {type(source).__name__}, expected a GaussianFilterRNN, a "
        "GaussianTransition that reads measurements, or a distribution of batch shape (T, B); "
        "write from_hmm(matrix, GaussianEmission(loc, scale)), or words.long() for symbols."
    )


def density_fidelity(
    reference: Any,
    surrogate: Any,
    x: Tensor,
    lengths: Tensor | None,
    num_draws: int,
    seed: int,
) -> Fidelity:
    """Compare predictions of measurements; see :func:`~pyro_ssl.belief.fidelity`."""
    S, seed = whole("fidelity", "num_draws", num_draws, 1), whole("fidelity", "seed", seed, 0)
    check_kind("fidelity", "x", x, torch.Tensor, "torch.as_tensor(x)")
    x, active = check_measurements("fidelity", x, x.shape[-1], x, lengths)
    p, q = (predictive_density(source, x, lengths) for source in (reference, surrogate))
    for name, found in (("reference", p), ("surrogate", q)):
        if (found.batch_shape, found.event_shape) != (x.shape[:2], x.shape[2:]):
            raise ValueError(
                f"fidelity: the {name} predicts {tuple(found.batch_shape)} of event shape "
                f"{tuple(found.event_shape)}, expected (T, B) and (D,) as in x {tuple(x.shape)}; "
                "write x.unsqueeze(-1) for one measurement a step."
            )
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        draws = p.sample(torch.Size([S]))  # (S, T, B, D)
    kl = (p.log_prob(draws) - q.log_prob(draws)).double().mean(0).masked_fill(~active, 0.0)
    mean, error, by_step = averaged(kl, active)
    return Fidelity(
        num_states=surrogate.hidden_size if isinstance(surrogate, GaussianFilterRNN) else 0,
        kl=mean,
        kl_error=error,
        kl_by_step=by_step,
        agreement=math.nan,
        reference_perplexity=float((-p.log_prob(x)[active].double().mean()).exp()),
        surrogate_perplexity=float((-q.log_prob(x)[active].double().mean()).exp()),
    )
