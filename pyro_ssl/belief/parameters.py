"""Checks of an HMM's parameters and symbols, and the stationary distribution of its chain."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_kind, check_lengths, check_probabilities, check_tensor, whole
from ..models.door import active_cells

__all__ = ["check_hmm", "check_symbols", "stationary_distribution"]


def stationary_distribution(matrix: Tensor) -> Tensor:
    """Return the distribution ``(K,)`` that a transition matrix ``(K, K)`` leaves as it is.

    Where there are several, it is the one of least norm.

    Example::

        >>> stationary_distribution(torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
        tensor([0.6667, 0.3333])
    """
    check_tensor("stationary_distribution", "matrix", matrix, ("K", "K"), some="K")
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"stationary_distribution: matrix has shape {tuple(matrix.shape)}, expected (K, K); "
            "write one row for each state, with as many columns."
        )
    check_probabilities("stationary_distribution", "matrix", matrix)
    flow = matrix.T - torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    # T'p - p = 0, and the sum of p is 1: the last column of the pseudo-inverse.
    p = torch.linalg.pinv(torch.cat([flow, torch.ones_like(matrix[:1])]))[:, -1].clamp(min=0.0)
    return p / p.sum()


def check_hmm(matrix: Tensor, emission: Tensor, initial: Tensor | None, caller: str) -> Tensor:
    """Check an HMM's parameters and return p(s_1), by default the stationary distribution.

    :raises TypeError: if one is no tensor.
    :raises ValueError: if shapes or dtypes do not fit, or a row is no distribution.
    """
    given = {"matrix": matrix, "emission": emission}
    given |= {} if initial is None else {"initial": initial}
    for name, value in given.items():
        check_kind(caller, name, value, Tensor, f"torch.as_tensor({name})")
    K = len(matrix) if matrix.dim() else 0
    fits = matrix.shape == (K, K) and emission.dim() == 2 and len(emission) == K
    if not fits or (initial is not None and initial.shape != (K,)):
        found = f"matrix {tuple(matrix.shape)}, emission {tuple(emission.shape)}"
        found += "" if initial is None else f", initial {tuple(initial.shape)}"
        raise ValueError(
            f"{caller}: found {found}; expected (K, K), (K, V) and (K,), with one row for each "
            "state; write emission.T if the symbols are its rows."
        )
    check_tensor(caller, "matrix", matrix, (K, K))
    check_tensor(caller, "emission", emission, (K, "V"), like=matrix)
    if initial is not None:  # the type of a few numbers says nothing
        given["initial"] = initial = initial.to(matrix.dtype)
        check_tensor(caller, "initial", initial, (K,), like=matrix)
    slack = 1e-4 if matrix.dtype.itemsize < 8 else 1e-6
    for name, probs in given.items():
        sums = probs.sum(-1)
        if not bool((probs >= 0).all() & ((sums - 1).abs() < slack).all()):
            raise ValueError(
                f"{caller}: a row of {name} is no distribution: the least entry is "
                f"{float(probs.min()):.3g} and rows sum to {float(sums.min()):.6g} to "
                f"{float(sums.max()):.6g}; expected 0 or more, and 1; write "
                f"{name} = {name} / {name}.sum(-1, keepdim=True)."
            )
    return stationary_distribution(matrix) if initial is None else initial


def check_symbols(
    words: Tensor | None,
    lengths: Tensor | None,
    num_symbols: int | None,
    caller: str,
    *,
    some: bool = False,
) -> tuple[Tensor, Tensor]:
    """Check symbols; return them with 0 past the lengths, and which cells hold one, ``(T, B)``.

    :param int num_symbols: V; None for any.
    :param bool some: there has to be one within the lengths.
    :raises TypeError: if they are no tensor.
    :raises ValueError: if they are not int64 ``(T, B)`` from 0 to V - 1, of one step at least, or
        the lengths do not fit.
    """
    if words is not None:
        check_kind(caller, "words", words, Tensor, "torch.as_tensor(words)")
    if words is None or words.dim() != 2 or words.dtype != torch.long or not words.numel():
        found = "no symbols" if words is None else f"{words.dtype} {tuple(words.shape)}"
        raise ValueError(
            f"{caller}: found {found}, expected int64 symbols (T, B), time first, with a step at "
            "least; write words[:, None] for one sequence, words.long() for other integers."
        )
    T, B = words.shape
    check_lengths(caller, lengths, T, B, words.device)
    V = 2**62 if num_symbols is None else whole(caller, "num_symbols", num_symbols, 1)
    active = active_cells(words, lengths)
    if some and not bool(active.any()):
        raise ValueError(
            f"{caller}: found no symbol in words of shape {(T, B)}, expected one at least; write "
            "lengths of 1 or more."
        )
    words = words.masked_fill(~active, 0)
    low, high = (int(value) for value in torch.aminmax(words))
    if low < 0 or high >= V:
        raise ValueError(
            f"{caller}: found symbols from {low} to {high}, expected 0 to V - 1 = "
            f"{V - 1}; give lengths=lengths, where the padding begins."
        )
    return words, active
