"""What launches share."""

from collections.abc import Mapping
from typing import Any

import torch
import triton
from torch import Tensor

__all__ = ["LEAST", "launch", "places"]

#: The least size of a block that enters a product.
LEAST = 16


def launch(
    kernel: Any, programs: int, on: Tensor, arguments: Mapping[str, Any], **options: int
) -> None:
    """Run so many programs of a kernel, on the device of a tensor."""
    with torch.cuda.device_of(on):
        kernel[(programs,)](**arguments, **options)


def places(size: int) -> int:
    """How many places an axis of a size has."""
    return max(LEAST, triton.next_power_of_2(size))
