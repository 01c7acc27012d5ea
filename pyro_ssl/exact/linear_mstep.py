"""What a step of EM computes for a linear-Gaussian model: start values, sums, and their maximum.

All is in standardised data; :func:`moved` takes what was found back to the data's own units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..transitions import LinearGaussianTransition
from .measurements import LinearEmission

__all__ = ["Latents", "Model", "Sums", "Units", "canonical", "maximised", "moved", "start"]

#: least variance of a sensor's noise and of a step, of variances 1
FLOOR = 1e-6
#: ridge of the regressions, as a share of the moments
RIDGE = 1e-10

Model = tuple[LinearGaussianTransition, LinearEmission]


class Units(NamedTuple):
    """Origin and unit of each sensor, ``(E,)``, and of each input, ``(U,)`` where there are any."""

    origin: Tensor
    unit: Tensor
    inputs_origin: Tensor | None
    inputs_unit: Tensor | None

    def standard_inputs(self, inputs: Tensor | None, num_sequences: int) -> Tensor | None:
        """Inputs in units of their own, ``(T, B, U)``."""
        if inputs is None or self.inputs_origin is None or self.inputs_unit is None:
            return None
        u = (inputs.double() - self.inputs_origin) / self.inputs_unit
        return u.unsqueeze(1).expand(-1, num_sequences, -1) if u.dim() == 2 else u


class Latents(NamedTuple):
    """Moments of all latents given the data: those of ``KalmanSmoother``, and which there are."""

    mean: Tensor  # (T, B, D)
    covariance: Tensor  # (T, B, D, D)
    lagged: Tensor  # (T - 1, B, D, D), Cov[z_{t+1}, z_t]
    within: Tensor  # bool (T, B)

    def spread(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each latent over the data, ``(D,)``."""
        z, variance = self.mean[self.within], self.covariance[self.within]
        total = z.var(0, correction=0) + variance.diagonal(dim1=-2, dim2=-1).mean(0)
        return z.mean(0), total.clamp(min=FLOOR).sqrt()


class Sums(NamedTuple):
    """Expected sufficient statistics.

    Of steps, with w_t = [z_{t-1}; 1; u_t]: ``ww``, ``zw`` and ``zz`` (its diagonal), over ``steps``
    of them. Of each sensor, with v_t = [z_t; 1], over the steps where it was observed: ``vv``
    ``(E, D + 1, D + 1)``, ``xv``, ``xx``, and how many these are, ``seen``. Of the first latents:
    sums of z_1 and of its squares, of so many ``sequences``.
    """

    ww: Tensor
    zw: Tensor
    zz: Tensor
    steps: Tensor
    vv: Tensor
    xv: Tensor
    xx: Tensor
    seen: Tensor
    first: Tensor
    first_square: Tensor
    sequences: Tensor

    @classmethod
    def of(cls, latents: Latents, x: Tensor, seen: Tensor, inputs: Tensor | None) -> Sums:
        """Sum over the data ``(T, B, E)``, of which ``seen`` was observed."""
        z, P, lagged, within = latents
        D, E = z.shape[-1], x.shape[-1]
        later = within[1:]
        past, now = z[:-1][later], z[1:][later]  # (N, D)
        known = [torch.ones_like(past[:, :1])]
        known += [] if inputs is None else [inputs[1:][later]]
        w = torch.cat([past, *known], -1)
        ww, zw = w.mT @ w, now.mT @ w
        ww[:D, :D] += P[:-1][later].sum(0)
        zw[:, :D] += lagged[later].sum(0)
        zz = now.square().sum(0) + P[1:][later].sum(0).diagonal()
        flat, there = z.flatten(0, 1), seen.flatten(0, 1).to(z)  # (N, D), (N, E)
        v = torch.cat([flat, torch.ones_like(flat[:, :1])], -1)
        vv = (there.mT @ (v.unsqueeze(-1) * v.unsqueeze(-2)).flatten(1)).view(E, D + 1, D + 1)
        vv[:, :D, :D] += (there.mT @ P.flatten(0, 1).flatten(1)).view(E, D, D)
        y = x.flatten(0, 1)
        begins = within[0]
        first, square = z[0][begins], P[0][begins].diagonal(dim1=-2, dim2=-1)
        return cls(
            ww,
            zw,
            zz,
            later.sum().to(z),
            vv,
            y.mT @ v,
            y.square().sum(0),
            there.sum(0),
            first.sum(0),
            (first.square() + square).sum(0),
            begins.sum().to(z),
        )


def maximised(sums: Sums, smoothing: float) -> Model:
    """Return the parameters of the highest expected log-likelihood."""
    D, total = len(sums.first), sums.sequences + smoothing
    if sums.steps > 0:
        weight = _regress(sums.zw, sums.ww)
        left = sums.zz - 2 * (weight * sums.zw).sum(-1) + ((weight @ sums.ww) * weight).sum(-1)
        scale = (left / sums.steps).clamp(min=FLOOR).sqrt()
    else:  # sequences of one step tell nothing of the next
        weight = torch.zeros_like(sums.zw)
        scale = torch.ones_like(sums.first)
    mean = sums.first / total
    spread = sums.first_square + smoothing - total * mean.square()
    C = _regress(sums.xv.unsqueeze(-2), sums.vv).squeeze(-2)  # (E, D + 1)
    curved = (sums.vv @ C.unsqueeze(-1)).squeeze(-1)
    rest = sums.xx - 2 * (C * sums.xv).sum(-1) + (C * curved).sum(-1)
    noise = (rest / sums.seen).clamp(min=FLOOR)
    given = {"matrix": weight[:, :D].contiguous(), "offset": weight[:, D].contiguous()}
    given |= {"scale": scale, "initial_mean": mean}
    given |= {"initial_scale": (spread / total).clamp(min=FLOOR).sqrt()}
    chain = _chain(weight[:, D + 1 :], given)
    return chain, LinearEmission(C[:, :D].contiguous(), C[:, D].contiguous(), noise.diag())


def start(y: Tensor, seen: Tensor, dim: int, num_inputs: int) -> Model:
    """Return start values: principal components, and how they follow each other.

    Of more latents than sensors, the others are what the first were one step before.

    :param Tensor y: standardised data ``(T, B, E)``, 0 where nothing was observed.
    """
    E, there = y.shape[-1], seen.flatten(0, 1).to(y)
    flat, count = y.flatten(0, 1), there.mT @ there
    covariance = (flat.mT @ flat) / count.clamp(min=1.0)
    values, vectors = torch.linalg.eigh(covariance)
    k = min(dim, E)
    top = values.flip(0)[:k].clamp(min=0.01).sqrt()
    C = y.new_zeros(E, dim)
    C[:, :k] = vectors.flip(1)[:, :k] * top
    z = y @ torch.linalg.pinv(C[:, :k]).mT  # (T, B, k)
    A = 0.5 * torch.eye(dim, dtype=y.dtype, device=y.device)
    if len(y) > 1:
        past, now = z[:-1].flatten(0, 1), z[1:].flatten(0, 1)
        gram = past.mT @ past + (0.01 * len(past) + 1.0) * torch.eye(
            k, dtype=y.dtype, device=y.device
        )
        A[:k, :k] = torch.linalg.solve(gram, past.mT @ now).mT
        A[:k, :k] *= min(1.0, 0.99 / float(torch.linalg.eigvals(A[:k, :k]).abs().max()))
    for i in range(k, dim):
        A[i, i], A[i, i - k] = 0.0, 0.9
    noise = (covariance.diagonal() - C.square().sum(-1)).clamp(min=0.1)
    zeros = y.new_zeros(dim)
    given = {"matrix": A, "offset": zeros, "scale": zeros + 0.5}
    given |= {"initial_mean": zeros.clone(), "initial_scale": zeros + 1.0}
    chain = _chain(y.new_zeros(dim, num_inputs), given)
    return chain, LinearEmission(C, y.new_zeros(E), noise.diag())


def canonical(
    chain: LinearGaussianTransition, emission: LinearEmission, mean: Tensor, spread: Tensor
) -> Model:
    """Return the same distribution of x, with latents of mean 0 and variance 1, smoothest first.

    :param Tensor mean: of the latents over the data, and their ``spread``, each ``(D,)``.
    """
    C = emission.matrix * spread
    order = (chain.scale / spread).argsort()
    largest = C.gather(0, C.abs().argmax(0, keepdim=True)).squeeze(0)
    k = (spread * torch.where(largest < 0, -1.0, 1.0))[order]
    A, mean_k = chain.matrix, mean[order]
    drift = chain.offset + A @ mean - mean
    given = {"matrix": A[order][:, order] * k / k.unsqueeze(-1), "offset": drift[order] / k}
    given |= {"scale": chain.scale[order] / k.abs()}
    given |= {"initial_mean": (chain.initial_mean[order] - mean_k) / k}
    given |= {"initial_scale": chain.initial_scale[order] / k.abs()}
    G = chain.input_matrix
    G = A.new_zeros(len(A), 0) if G is None else G[order] / k.unsqueeze(-1)
    C = emission.matrix[:, order] * k
    offset = emission.offset + emission.matrix @ mean
    return _chain(G, given), LinearEmission(C, offset, emission.covariance)


def moved(
    chain: LinearGaussianTransition,
    emission: LinearEmission,
    units: Units,
    like: Tensor,
) -> Model:
    """Return the model of data and inputs as they come, in the dtype of ``like``."""
    origin, unit, inputs_origin, inputs_unit = units
    values = {"matrix": chain.matrix, "offset": chain.offset, "scale": chain.scale}
    values |= {"initial_mean": chain.initial_mean, "initial_scale": chain.initial_scale}
    G = chain.matrix.new_zeros(chain.dim, 0)
    if chain.input_matrix is not None and inputs_origin is not None and inputs_unit is not None:
        G = chain.input_matrix / inputs_unit
        values["offset"] = chain.offset - G @ inputs_origin
    R = unit.unsqueeze(-1) * emission.covariance * unit
    parts = (emission.matrix * unit.unsqueeze(-1), origin + unit * emission.offset, R)
    of_x = LinearEmission(*(value.to(like) for value in parts))
    return _chain(G.to(like), {name: value.to(like) for name, value in values.items()}), of_x


def _chain(input_matrix: Tensor, given: dict[str, Tensor]) -> LinearGaussianTransition:
    D, size = input_matrix.shape
    G = input_matrix.contiguous() if size else None
    return LinearGaussianTransition(D, **given, input_size=size, input_matrix=G)


def _regress(cross: Tensor, gram: Tensor) -> Tensor:
    """cross gram⁻¹, of moments ``(..., n, m)`` and ``(..., m, m)``."""
    size = gram.diagonal(dim1=-2, dim2=-1)
    ridge = torch.diag_embed(RIDGE * size + torch.finfo(gram.dtype).tiny)
    return torch.linalg.solve(gram + ridge, cross.mT).mT
