"""What a model asks of the words that it is given: shapes, lengths, device, vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from ..steps import steps_within

__all__ = ["active_cells", "check_words"]


def active_cells(data: Tensor, lengths: Tensor | None) -> Tensor:
    """Return where data ``(T, B, ...)`` stand, not padding: bool ``(T, B)``."""
    if lengths is None:
        return data.new_ones(data.shape[:2], dtype=torch.bool)
    return steps_within(lengths, len(data))


def check_words(
    words: Tensor, lengths: Tensor | None, vocab_size: int, device: torch.device
) -> Tensor:
    """Check data for a language model; return :func:`active_cells`.

    It reads values back from the device, so it is called once per use, never in a loop over steps.

    :param Tensor words: int64 ``(T, B)``.
    :param Tensor lengths: ``(B,)``.
    :param int vocab_size: V.
    :param device: where the model is.
    :raises ValueError: if they do not fit one another, or a word is outside the vocabulary.
    """
    if words.dim() != 2 or words.dtype != torch.long:
        raise ValueError(
            f"LanguageModel: words have shape {tuple(words.shape)} and dtype {words.dtype}, "
            "expected int64 (T, B), time first; write words = words[:, None] for one text, or "
            "words.long()."
        )
    for name, tensor in (("words", words), ("lengths", lengths)):
        if tensor is not None and tensor.device != device:
            raise ValueError(
                f"LanguageModel: {name} are on {tensor.device}, the model is on {device}; "
                f'expected one device: write model.to("{tensor.device}"), or move the data.'
            )
    if lengths is not None:
        _check_lengths(words, lengths)
    active = active_cells(words, lengths)
    seen = words[active]
    if seen.numel():
        low, high = (int(value) for value in torch.aminmax(seen))
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f"LanguageModel: found words from {low} to {high}, expected 0 to V - 1 = "
                f"{vocab_size - 1}. Write LanguageModel(vocab_size={max(high + 1, vocab_size)}), "
                "or give lengths=lengths, where the padding begins."
            )
    return active


def _check_lengths(words: Tensor, lengths: Tensor) -> None:
    integers = not lengths.is_floating_point() and lengths.dtype != torch.bool
    if lengths.shape != words.shape[1:] or not integers:
        raise ValueError(
            f"LanguageModel: lengths have shape {tuple(lengths.shape)} and dtype {lengths.dtype}, "
            f"expected integers ({words.shape[1]},), one for each column of words, which are time "
            "first; write words.T if they are (B, T)."
        )
    if bool((lengths < 0).any()) or bool((lengths > len(words)).any()):
        raise ValueError(
            f"LanguageModel: lengths run from {int(lengths.min())} to {int(lengths.max())}, "
            f"expected 0 to T={len(words)}; write lengths.clamp(max=len(words)) if the words were "
            "cut."
        )
