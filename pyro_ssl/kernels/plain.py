"""What a pointer may be taken of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["all_plain"]


def all_plain(*values: Tensor | None) -> bool:
    """Whether all are dense tensors of the CPU, float32 where they are no int64 indices."""
    return all(value is None or _is_plain(value) for value in values)


def _is_plain(value: Tensor) -> bool:
    return (
        type(value) in (Tensor, Parameter)
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and value.dtype in (torch.float32, torch.int64)
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    )
