"""A product with an addend, by the fastest kernel: most of the time of a sweep's step.

Which of two kernels that is depends on the machine. oneDNN's call costs several times what MKL's
does, and on some CPUs its product takes half the time (MKL's float32 product then falls back to
AVX2). So it is measured, once a process and size. The two differ by float32 rounding: float32
draws of one seed may differ between two processes on one machine, as they do between machines,
where a uniform lies within rounding of an edge. In float64 there is one kernel, and no choice.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

__all__ = ["linear_add"]

#: by size, whether oneDNN's kernel was the faster one
ONEDNN_WINS: dict[int, bool] = {}
#: A measurement makes this many multiplications at most, about 0.1 ms; from there on both scale.
MOST_MEASURED = 2**22
#: The least time of so many calls is that of a call which nothing disturbed.
REPEATS = 7


def linear_add(x: Tensor, weight: Tensor, addend: Tensor | None = None) -> Tensor:
    """x weightᵀ + addend, without gradient.

    oneDNN's is a private operator, so it is used only where it exists and gives the same figures.

    :param Tensor x: ``(N, I)``.
    :param Tensor weight: ``(O, I)``.
    :param Tensor addend: a bias ``(O,)``, or ``(N, O)``, whose rows may lie apart in memory; these
        may be overwritten.
    """
    if x.dtype == torch.float32 and x.device.type == "cpu" and _onednn_wins(x, weight, addend):
        return _by_onednn(x, weight, addend)
    if addend is None or addend.dim() == 1:
        return _by_addmm(x, weight, addend)
    return addend.addmm_(x, weight.T)


def _onednn_wins(x: Tensor, weight: Tensor, addend: Tensor | None) -> bool:
    """Whether to take oneDNN's kernel: measured once for each factor of 4 in N I O."""
    num_rows = x.shape[0]
    if _ONEDNN_LINEAR is None or not num_rows:
        return False
    size = min(num_rows * weight.numel(), MOST_MEASURED).bit_length() // 2
    wins = ONEDNN_WINS.get(size)
    if wins is None:
        rows = max(MOST_MEASURED // weight.numel(), 1)
        x, addend = x[:rows], addend if addend is None or addend.dim() == 1 else addend[:rows]
        seconds = [
            [_seconds(kernel, x, weight, addend) for kernel in (_by_onednn, _by_addmm)]
            for _ in range(REPEATS)
        ]
        onednn, addmm = (min(times) for times in zip(*seconds, strict=True))
        wins = ONEDNN_WINS[size] = onednn < addmm
    return wins


def _seconds(kernel: Any, *operands: Tensor | None) -> float:
    """Time of one call, whose result is thrown away."""
    start = time.perf_counter()
    kernel(*operands)
    return time.perf_counter() - start


def _by_onednn(x: Tensor, weight: Tensor, addend: Tensor | None) -> Tensor:
    if addend is None or addend.dim() == 1:
        return _ONEDNN_LINEAR(x, weight, addend, "none", [], "")
    return _ONEDNN_LINEAR.binary(x, addend, weight, None, "add")


def _by_addmm(x: Tensor, weight: Tensor, addend: Tensor | None) -> Tensor:
    return x @ weight.T if addend is None else torch.addmm(addend, x, weight.T)


def _find_onednn_linear() -> Any:
    try:
        op = torch.ops.mkldnn._linear_pointwise
        like: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
        x, weight, bias = torch.eye(2, 3, **like), torch.ones(2, 3, **like), torch.ones(2, **like)
        product = x @ weight.T
        pairs = [
            (op(x, weight, None, "none", [], ""), product),
            (op(x, weight, bias, "none", [], ""), product + bias),
            (op.binary(x, x[:, 1:], weight, None, "add"), product + x[:, 1:]),
        ]
        return op if all(torch.allclose(*pair) for pair in pairs) else None
    except (AttributeError, RuntimeError, NotImplementedError):
        return None


_ONEDNN_LINEAR = _find_onednn_linear()
