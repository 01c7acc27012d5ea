r"""The belief that a network's state holds, read out by a linear map, and set to another one.

If an LSTM is a filter, its state is a belief in some coordinates, and what it predicts hangs on
that belief alone. A read-out, :math:`q(s \mid h) = \operatorname{softmax}(W^\top h + b)`, finds the
coordinates, and :meth:`BeliefReadout.move` changes them and nothing else: of all h' whose read-out
is a wanted belief it is the one nearest to h, measured by the covariance Σ of visited states,

.. math:: h' = h + Σ W (W^\top Σ W)^{+} (\log b' - \log q(\cdot \mid h)).

That a decoder finds something does not show that the network uses it; moving it and seeing the
prediction follow does (for language models: Li et al. 2023, arXiv 2210.13382).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_finite, check_probabilities, check_tensor, whole

__all__ = ["BeliefReadout", "belief_readout", "softmax_regression"]

_RANK = 1e-10  # of the greatest: smaller singular values are those of rounding


@dataclass(frozen=True, eq=False)
class BeliefReadout:
    """q(s | h) = softmax(h W + b) of states of a network, made by :func:`belief_readout`.

    :param Tensor weight: W, ``(H, K)``.
    :param Tensor bias: b, ``(K,)``.
    :param Tensor covariance: Σ, of the states that it was fitted to, ``(H, H)``.
    """

    weight: Tensor
    bias: Tensor
    covariance: Tensor

    def log_belief(self, h: Tensor) -> Tensor:
        """Return log q(s | h), ``(..., H)`` to ``(..., K)``, in the dtype of the read-out."""
        return (h.to(self.weight) @ self.weight + self.bias).log_softmax(-1)

    def belief(self, h: Tensor) -> Tensor:
        """Return q(s | h), ``(..., H)`` to ``(..., K)``."""
        return self.log_belief(h).exp()

    def move(self, h: Tensor, belief: Tensor) -> Tensor:
        """Return the nearest states whose read-out is another belief.

        :param Tensor h: ``(..., H)``.
        :param Tensor belief: ``(..., K)``, positive.
        :returns: ``(..., H)``, in the dtype of the read-out.
        :raises ValueError: if a belief is no distribution, or has a 0, whose log-odds are infinite.
        """
        K, where = self.weight.shape[1], "BeliefReadout.move"
        check_tensor(where, "belief", belief, (..., K), write="one probability for each state")
        check_probabilities(where, "belief", belief)
        if not bool((belief > 0).all()):
            raise ValueError(
                f"{where}: belief has probabilities of 0, expected positive ones: their log-odds "
                "are infinite; write (0.99 * belief + 0.01 / belief.shape[-1])."
            )
        change = belief.to(self.weight).log() - self.log_belief(h)
        change = change - change.mean(-1, keepdim=True)  # what is the same for all s says nothing
        return h.to(self.weight) + change @ self._directions()

    def _directions(self) -> Tensor:
        """How h moves for each unit of the centred logits, ``(K, H)``."""
        weight = self.weight - self.weight.mean(-1, keepdim=True)
        spread = weight.T @ self.covariance  # (K, H)
        return torch.linalg.pinv(spread @ weight, rtol=_RANK, hermitian=True) @ spread

    def beside(self, change: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return two controls of a move: changes as long, of any direction.

        Lengths are measured by Σ, as in :meth:`move`, and directions are drawn by Σ.

        :param Tensor change: ``move(h, belief) - h``, ``(..., H)``.
        :param int seed: of the draws; the global generator is left as it is.
        :returns: random changes, and random changes that leave the read-out as it is.
        """
        value, vector = torch.linalg.eigh(self.covariance)
        there = value > value[-1] * _RANK  # directions in which visited states differ
        root = vector[:, there] * value[there].sqrt()  # (H, R)
        flat = vector[:, there] / value[there].sqrt()
        generator = torch.Generator(device=root.device).manual_seed(
            whole("beside", "seed", seed, 0)
        )
        shape = (*change.shape[:-1], root.shape[1])
        noise = torch.randn(shape, generator=generator, device=root.device, dtype=root.dtype)
        weight = root.T @ (self.weight - self.weight.mean(-1, keepdim=True))  # (R, K)
        kept = noise - noise @ weight @ torch.linalg.pinv(weight, rtol=_RANK)
        length = torch.linalg.vector_norm(change.to(root) @ flat, dim=-1, keepdim=True)
        both = [
            z * (length / torch.linalg.vector_norm(z, dim=-1, keepdim=True)) @ root.T
            for z in (noise, kept)
        ]
        return both[0], both[1]


def belief_readout(
    h: Tensor, belief: Tensor, *, ridge: float = 1e-6, num_iterations: int = 100
) -> BeliefReadout:
    """Fit a linear read-out of beliefs by least cross-entropy.

    :param Tensor h: states of a network, ``(..., H)``.
    :param Tensor belief: p(s | past) by the true filter, ``(..., K)``.
    :param float ridge: penalty of the weights, over the standardised h.
    :param int num_iterations: of L-BFGS.
    :raises ValueError: if the shapes do not fit.
    :raises NonFiniteError: if a state is no number.

    Example::

        >>> belief = torch.distributions.Dirichlet(torch.ones(3)).sample((500,))
        >>> readout = belief_readout(belief.log(), belief)
        >>> moved = readout.move(belief.log(), belief.flip(0))
        >>> (readout.belief(moved) - belief.flip(0)).abs().max() < 1e-6
        tensor(True)
    """
    check_tensor("belief_readout", "h", h, (..., "H"), some="H", write="h[..., None] for one unit")
    shape = (*h.shape[:-1], "K")
    check_tensor("belief_readout", "belief", belief, shape, some="K", write="a belief for each h")
    check_finite("belief_readout", "h", h)
    check_probabilities("belief_readout", "belief", belief)
    x, b = h.detach().double().flatten(0, -2), belief.detach().double().flatten(0, -2)
    spread, center = torch.std_mean(x, 0)
    spread = spread.clamp(min=1e-12)
    z = torch.cat([(x - center) / spread, torch.ones_like(x[:, :1])], -1)
    found = softmax_regression(z, b, ridge, num_iterations)
    weight, bias = found[:-1] / spread.unsqueeze(-1), found[-1]
    return BeliefReadout(weight, bias - center @ weight, torch.cov(x.T).reshape(x.shape[1], -1))


def softmax_regression(x: Tensor, target: Tensor, ridge: float, num_iterations: int) -> Tensor:
    """Weights ``(H, K)`` of log q = log_softmax(x W), of least cross-entropy to soft targets."""
    weight = x.new_zeros(x.shape[1], target.shape[1]).requires_grad_()
    optim = torch.optim.LBFGS(
        [weight],
        max_iter=num_iterations,
        history_size=10,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optim.zero_grad()
        loss = -(target * (x @ weight).log_softmax(-1)).sum(-1).mean()
        loss = loss + ridge * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optim.step(closure)
    return weight.detach()
