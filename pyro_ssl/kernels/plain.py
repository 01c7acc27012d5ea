"""What a pointer may be taken of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["all_plain"]


def all_plain(*values: Tensor | None, kind: str = "cpu") -> bool:
    """Whether all are dense tensors of a kind of device, in float32 or int64."""
    return all(value is None or _is_plain(value, kind) for value in values)


def _is_plain(value: Tensor, kind: str) -> bool:
    return (
        type(value) in (Tensor, Parameter)
        and value.device.type == kind
        and value.layout == torch.strided
        and value.dtype in (torch.float32, torch.int64)
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    )
