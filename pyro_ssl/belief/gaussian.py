r"""HMMs over measurements: Gaussian emissions, their exact filter, and that filter as a network.

Up to what is the same for all states,

.. math::
    \log N(x; μ_k, σ_k) = \frac{μ_k}{σ_k^2} x - \frac{1}{2 σ_k^2} x^2
        - \frac{μ_k^2}{2 σ_k^2} - \log σ_k ,

which is linear in the features (x, x²), and in x alone where all states have one scale. So the
evidence of a measurement is what a gate computes, W_y y + b, as exactly as that of a symbol.

Next file to read: ``from_hmm.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import check_finite, check_lengths, check_positive, check_tensor
from ..exact.chains import markov_filter
from ..models.door import active_cells
from .filter import BeliefCell
from .parameters import check_hmm

__all__ = ["GaussianEmission", "GaussianFilter", "GaussianFilterRNN", "gaussian_filter"]


@dataclass(frozen=True, eq=False)
class GaussianEmission:
    """p(x | s = k) = N(loc_k, diag scale_k²) over R^D.

    :param Tensor loc: ``(K, D)``.
    :param Tensor scale: ``(D,)``, of all states, or ``(K, D)``.
    :raises ValueError: if shapes do not fit, or a scale is not positive.

    Example::

        >>> emission = GaussianEmission(torch.tensor([[0.0], [2.0]]), torch.ones(1))
        >>> emission.log_prob(torch.tensor([1.0])).exp()
        tensor([0.2420, 0.2420])
    """

    loc: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        where = "GaussianEmission"
        check_tensor(where, "loc", self.loc, ("K", "D"), some="KD", write="loc[:, None] if D is 1")
        K, D = self.loc.shape
        shape = (D,) if self.scale.dim() == 1 else (K, D)
        check_tensor(where, "scale", self.scale, shape, like=self.loc)
        check_finite(where, "loc", self.loc)
        check_positive(where, "scale", self.scale)

    @property
    def shared(self) -> bool:
        """Whether all states have one scale, so that the evidence is linear in x."""
        return self.scale.dim() == 1

    def features(self, x: Tensor) -> Tensor:
        """What a network reads of x ``(..., D)``: x, or ``(x, x²)`` unless ``shared``."""
        return x if self.shared else torch.cat([x, x.square()], -1)

    def evidence(self) -> tuple[Tensor, Tensor]:
        """Return W ``(K, F)`` and b ``(K,)``: log p(x | s) is W f(x) + b, and a term of x."""
        precision = self.scale.square().reciprocal().expand_as(self.loc)
        weight = self.loc * precision
        bias = -0.5 * (self.loc * weight).sum(-1)
        if self.shared:
            return weight, bias
        return torch.cat([weight, -0.5 * precision], -1), bias - self.scale.log().sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x | s = k), ``(..., D)`` to ``(..., K)``."""
        return dist.Normal(self.loc, self.scale).to_event(1).log_prob(x.unsqueeze(-2))

    def mixture(self, belief: Tensor) -> dist.TorchDistribution:
        """Return p(x) under a belief p(s), ``(..., K)``: batch shape ``(...)``, event ``(D,)``."""
        shape = (*belief.shape, self.loc.shape[1])
        states = dist.Normal(self.loc.expand(shape), self.scale.expand(shape)).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(belief), states)


class GaussianFilter(NamedTuple):
    """Beliefs at every step.

    ``filtered`` ``(T, B, K)`` is p(s_t | x_{1:t}), ``predicted`` ``(T, B, K)`` p(s_t | x_{1:t-1}),
    ``log_likelihood`` ``(T, B)`` log p(x_t | x_{1:t-1}).
    """

    filtered: Tensor
    predicted: Tensor
    log_likelihood: Tensor


def check_measurements(
    where: str, x: Tensor, size: int, like: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return measurements ``(T, B, D)``, 0 past the lengths, and where they stand, ``(T, B)``.

    :raises ValueError: if their shape, dtype or lengths do not fit.
    :raises NonFiniteError: if one that is read is no number.
    """
    write = "x.unsqueeze(-1) for one measurement a step, time first"
    check_tensor(where, "x", x, ("T", "B", size), like=like, some="TB", write=write)
    check_lengths(where, lengths, len(x), x.shape[1], x.device)
    active = active_cells(x, lengths)
    x = x.masked_fill(~active.unsqueeze(-1), 0.0)
    check_finite(where, "x", x)
    return x, active


@torch.no_grad()
def gaussian_filter(
    matrix: Tensor,
    emission: GaussianEmission,
    initial: Tensor | None,
    x: Tensor,
    lengths: Tensor | None = None,
) -> GaussianFilter:
    """Filter measurements under an HMM, by the forward algorithm.

    :param Tensor matrix: p(s_t = j | s_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor initial: p(s_1), ``(K,)``; ``None``: the chain's stationary distribution.
    :param Tensor x: ``(T, B, D)``, at least one step.
    :param Tensor lengths: ``(B,)``; past them ``log_likelihood`` is 0, the rest means nothing.

    Example::

        >>> matrix = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> emission = GaussianEmission(torch.tensor([[0.0], [2.0]]), torch.ones(1))
        >>> gaussian_filter(matrix, emission, None, torch.ones(1, 1, 1)).filtered[0, 0]
        tensor([0.6667, 0.3333])
    """
    initial = _check(matrix, emission, initial, "gaussian_filter")
    x, _ = check_measurements("gaussian_filter", x, emission.loc.shape[1], emission.loc, lengths)
    filtered, log_p = markov_filter(initial, matrix, emission.log_prob(x), lengths)
    first = initial.expand(1, *filtered.shape[1:])
    return GaussianFilter(filtered, torch.cat([first, filtered[:-1] @ matrix]), log_p)


def _check(
    matrix: Tensor, emission: GaussianEmission, initial: Tensor | None, caller: str
) -> Tensor:
    """Check the parameters of an HMM over measurements, and return p(s_1)."""
    one = torch.ones_like(emission.loc[:, :1])  # a symbol that all states show
    return check_hmm(matrix, one, initial, caller)


class GaussianFilterRNN(BeliefCell):
    r"""The exact filter of an HMM over measurements, as a cell over ``emission.features(x)``.

    .. math:: h_t = \operatorname{softmax}(W f(x_t) + b + \log T^\top h_{t-1})

    It has no parameters, only the buffers ``start`` ``(K,)``, ``matrix`` ``(K, K)``, ``loc`` and
    ``scale``.

    :param Tensor matrix: p(s_t = j | s_{t-1} = i) in row i, ``(K, K)``.
    :param GaussianEmission emission: p(x | s).
    :param Tensor initial: p(s_1), ``(K,)``; by default the chain's stationary distribution.

    Example::

        >>> emission = GaussianEmission(torch.tensor([[0.0], [5.0], [9.0]]), torch.ones(1))
        >>> filter = GaussianFilterRNN(torch.full((3, 3), 1 / 3), emission)
        >>> x = torch.tensor([0.1, 5.2, 8.8]).view(3, 1, 1)
        >>> filter.sequence(emission.features(x))[0].argmax(-1).T
        tensor([[0, 1, 2]])
    """

    def __init__(
        self, matrix: Tensor, emission: GaussianEmission, initial: Tensor | None = None
    ) -> None:
        initial = _check(matrix, emission, initial, "GaussianFilterRNN")
        super().__init__(emission.evidence()[0].shape[1], len(matrix))
        self.loc: Tensor
        self.scale: Tensor
        tables = {"matrix": matrix, "start": initial, "loc": emission.loc, "scale": emission.scale}
        for name, value in tables.items():
            self.register_buffer(name, value)

    @property
    def emission(self) -> GaussianEmission:
        """p(x | s)."""
        return GaussianEmission(self.loc, self.scale)

    def input_map(self) -> tuple[Tensor, Tensor]:
        """Return W and b of the evidence; see the base class."""
        return self.emission.evidence()
