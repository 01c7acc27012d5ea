r"""All steps of an IMV-LSTM in one call, with its gradient by hand.

The cells are small, so the number of operations per step and the layout decide the time. The batch
comes last: a step's gates are one batched product of the weights ``(N, G, d + 2)`` with
[h^n; x^n; 1], ``(N, d + 2, B)``, into which the step before has written its h^n, and each gate is
contiguous.
On CPUs tanh costs ten times as much as sigmoid, hence tanh(x) = 2σ(2x) - 1, and one sigmoid for all
four gates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["unroll"]


def unroll(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    """All steps from given inputs, with gradient (but no second derivatives).

    :param Tensor x: ``(T, N, B)``.
    :param Tensor h: h before the first step, ``(N, d, B)``, and ``c`` likewise.
    :param weights: of the tensor cell ``(N, 4d, d + 2)``, rows [j; i; f; o] of each variable; of
        the full cell ``(1, 3 N d, N (d + 2))``, rows [i; f; o], and ``(N, d, d + 2)``, rows j. The
        rows j are doubled.
    :returns: h of every step, ``(T, N, d, B)``, and c after the last, ``(N, d, B)``.
    """
    return _Unroll.apply(x, h, c, *weights)


def _gates(parts: list[Tensor], d: int) -> tuple[Tensor, ...]:
    """Views (j, i, f, o) of one step's gates, each ``(N, d, B)``."""
    if len(parts) == 1:
        return parts[0].unflatten(1, (4, d)).unbind(1)
    gates, candidate = parts
    return candidate, *gates.view(3, *candidate.shape).unbind(0)


def _read(weight: Tensor, B: int) -> tuple[int, int, int]:
    """Shape of the right factor of a product with this weight."""
    return len(weight), weight.shape[2], B


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> Any:
        (T, N, B), d = x.shape, h.shape[1]
        reads = h.new_ones(T + 1, N, d + 2, B)  # [h_{t-1}; x_t; 1]
        reads[:T, :, d], reads[0, :, :d] = x, h
        cells, squashed = h.new_empty(T + 1, N, d, B), h.new_empty(T, N, d, B)
        cells[0] = c
        parts = [h.new_empty(T, len(w), w.shape[1], B) for w in weights]
        for t in range(T):
            now = [part[t] for part in parts]
            for weight, out in zip(weights, now, strict=True):
                torch.bmm(weight, reads[t].view(_read(weight, B)), out=out).sigmoid_()
            half_j, i, f, o = _gates(now, d)  # j = 2 half_j - 1
            after = torch.mul(f, cells[t], out=cells[t + 1])
            after.addcmul_(i, half_j.sub(0.5), value=2.0)
            tanh_c = torch.mul(after, 2.0, out=squashed[t]).sigmoid_().mul_(2.0).sub_(1.0)
            torch.mul(o, tanh_c, out=reads[t + 1, :, :d])
        ctx.save_for_backward(reads, cells, squashed, *parts, *weights)
        return reads[1:, :, :d], cells[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> Any:
        reads, cells, squashed, *rest = ctx.saved_tensors
        parts, weights = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        T, N, d, B = squashed.shape
        grads = [torch.empty_like(part[0]) for part in parts]
        grad_weights = [torch.zeros_like(weight) for weight in weights]
        grad_reads, dc = torch.zeros_like(reads), grad_c.clone()
        dj, di, df, do = _gates(grads, d)
        for t in reversed(range(T)):
            now = [part[t] for part in parts]
            half_j, i, f, o = _gates(now, d)
            dh = grad_h[t] + grad_reads[t + 1, :, :d]
            torch.mul(dh, squashed[t], out=do)
            dh.mul_(o)
            dc.add_(dh).addcmul_(dh.mul_(squashed[t]), squashed[t], value=-1.0)
            torch.mul(dc, cells[t], out=df)
            twice = 2.0 * dc
            torch.mul(twice, i, out=dj)
            torch.mul(twice, half_j.sub(0.5), out=di)
            dc.mul_(f)
            read, into = reads[t], grad_reads[t]
            for grad, s, weight, total in zip(grads, now, weights, grad_weights, strict=True):
                grad.mul_(torch.addcmul(s, s, s, value=-1.0))  # σ' = σ - σ²
                rows = _read(weight, B)
                into.view(rows).baddbmm_(weight.mT, grad)
                total.baddbmm_(grad, read.view(rows).mT)
        return grad_reads[:T, :, d], grad_reads[0, :, :d], dc, *grad_weights
