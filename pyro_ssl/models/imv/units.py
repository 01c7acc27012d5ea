"""Origin and unit of windows and targets: those of the data of the fit, so that neither matters.

Next file to read: ``model.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base import Model
from .data import there
from .network import IMVNetwork, Mixture

__all__ = ["InUnits", "units_of"]


class InUnits(Model):
    """A model whose network reads and forecasts numbers of mean 0 and deviation 1.

    :param config: of the network.
    """

    network: IMVNetwork

    #: mean and deviation of each variable, ``(N,)``, and of each target, ``(Y,)``, of the last fit
    x_origin: Tensor
    x_unit: Tensor
    y_origin: Tensor
    y_unit: Tensor

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.network = IMVNetwork(**config)
        like = self.network.gate.weight
        sizes = {"x": self.network.layer.num_variables, "y": self.network.num_targets}
        for name, size in sizes.items():
            self.register_buffer(f"{name}_origin", like.new_zeros(size))
            self.register_buffer(f"{name}_unit", like.new_ones(size))

    def _take_units(self, x: Tensor, y: Tensor, mask: Tensor | None) -> None:
        """Take origin and unit of the data of a fit."""
        self.x_origin, self.x_unit = units_of(x, there(x, mask))
        self.y_origin, self.y_unit = units_of(y, there(y, None))

    def _read(self, x: Tensor, mask: Tensor | None) -> Mixture:
        """The network's output in the units of the data; what is missing is the mean."""
        found = self.network(torch.where(there(x, mask), (x - self.x_origin) / self.x_unit, 0.0))
        means, scales = found.means * self.y_unit + self.y_origin, found.scales * self.y_unit
        return found._replace(means=means, scales=scales)

    def _check_values(self) -> None:
        super()._check_values()
        if not bool((self.x_unit > 0).all()) or not bool((self.y_unit > 0).all()):
            raise ValueError("a unit of the data that is not positive")


def units_of(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return origin and unit of each column, mean and standard deviation of what was seen.

    A column that is constant, as far as its dtype can tell, has its level for a unit, or 1.

    Example::

        >>> units_of(torch.tensor([[1.0, 7.0], [3.0, 7.0]]), torch.ones(2, 2, dtype=torch.bool))
        (tensor([2., 7.]), tensor([1., 7.]))
    """
    wide = values.flatten(0, -2).double()
    seen = seen.flatten(0, -2)
    count = seen.sum(0).clamp(min=1)
    level = torch.where(seen, wide.abs(), 0.0).amax(0)
    largest = torch.where(level > 0, level, 1.0)
    wide = torch.where(seen, wide / largest, 0.0)  # whose squares neither overflow nor vanish
    mean = wide.sum(0) / count
    spread = (torch.where(seen, wide - mean, 0.0).square().sum(0) / count).sqrt()
    flat = ~(spread > 4 * torch.finfo(values.dtype).eps)
    unit = torch.where(flat, 1.0, spread) * largest
    return (mean * largest).to(values), unit.to(values)
