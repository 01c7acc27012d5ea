"""Where the latents of a fit were: what a forecast beyond it is not learned from.

A transition that is learned says how the path goes on where it has been. Elsewhere it extrapolates:
its intervals there are those of the form it happens to have, with no data behind them. To be
elsewhere is to be farther from every place of the fit than draws of its own paths are.

Next file to read: ``gaussian_results.py``, the forecast that says so.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Region", "region_of"]

#: places that are kept, at most; and draws that a forecast compares with them
PLACES, DRAWS = 500, 100
#: share of the draws of the fit that are within reach of a place
WITHIN = 0.99
#: least spread of a direction, as a share of the largest
FLAT = 1e-3


class Region(NamedTuple):
    """All that is within ``reach`` of one of the ``places``, as ``root`` makes lengths.

    ``places`` ``(K, D)``, ``root`` ``(D, D)``, ``reach`` ``()``.
    """

    places: Tensor
    root: Tensor
    reach: Tensor

    def outside(self, z: Tensor) -> Tensor:
        """Share of draws that are outside of it: ``(P, S, B, D)`` to ``(S, B)``."""
        steps = z[:DRAWS].transpose(0, 1)  # one after the other: all distances take memory
        return torch.stack([(self._distance(now) > self.reach).to(z).mean(0) for now in steps])

    def _distance(self, z: Tensor) -> Tensor:
        """Distance to the nearest place, ``(..., D)`` to ``(...)``."""
        near = torch.cdist(z.flatten(0, -2) @ self.root.T, self.places @ self.root.T)
        return near.amin(-1).view(z.shape[:-1])


def region_of(z: Tensor) -> Region:
    """Return the region of draws of the paths of a fit, ``(M, N, D)``, of N places each.

    Places are the means over the draws, some of them where they are many; lengths are in standard
    deviations over all of them, in each of their principal directions. Of a single draw every other
    place is kept, and the others tell how far is far.
    """
    wide = z.double()
    if len(wide) == 1 and wide.shape[1] > 1:  # else each draw would be a place itself
        wide, others = wide[:, ::2], wide[:, 1::2]
    else:
        others = wide
    mean = wide.mean(0)
    count = min(len(mean), PLACES)
    which = torch.arange(count, device=mean.device) * len(mean) // count
    places = mean[which]
    away = mean - mean.mean(0)
    values, vectors = torch.linalg.eigh(away.T @ away / len(mean))
    scale = values.clamp(min=0.0).sqrt()
    scale = scale.clamp(min=float(scale.max()) * FLAT + torch.finfo(wide.dtype).tiny)
    region = Region(places, vectors.T / scale.unsqueeze(-1), wide.new_zeros(()))
    some = others.flatten(0, 1)
    some = some[:: max(len(some) // 4000, 1)]
    reach = region._distance(some).quantile(WITHIN)
    return Region(*(value.to(z) for value in region._replace(reach=reach)))
