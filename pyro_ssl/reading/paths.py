"""The latent paths of a loop: one for each chain, and one of all together for the samplers.

Samplers know one path ``(T, B)``. Where the loop has several chains whose paths are still to be
drawn, it is over the tuples of their states (``transitions/product.py``); what comes from users and
what is returned to them is a path by site.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..loop import Chain, SSLLoop
from ..loop_arguments import by_chain
from ..transitions.product import join_states, split_states
from .site import user_scale

__all__ = ["PathSites", "future_inputs", "lengths_of", "scale_of", "sites_of"]


class PathSites(NamedTuple):
    """The sites of the paths that are to be drawn, in order; ``sizes`` is K of each chain.

    ``several``: whether the body meets a tuple, so that results are dicts by site.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    several: bool

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """Return the path of each site, of that of all together; any shape."""
        parts = (z,) if len(self.names) == 1 else split_states(z, self.sizes)
        return dict(zip(self.names, parts, strict=True))

    def join(self, paths: Mapping[str, Tensor]) -> Tensor:
        """Return the path of all together, of those of the sites."""
        return join_states([paths[name] for name in self.names], self.sizes)

    def result(self, z: Tensor) -> Any:
        """Return what a user is given: a path, or where the loop has several a dict by site."""
        return self.split(z) if self.several else z

    def marginals(self, probs: Tensor) -> Any:
        """Return probabilities of states ``(..., K)`` as :meth:`result` returns paths."""
        if not self.several:
            return probs
        joint, last = probs.unflatten(-1, self.sizes), range(-len(self.sizes), 0)
        rest = {self.names[i]: [d for d in last if d != i] for i in last}
        return {name: joint.sum(dims) if dims else joint for name, dims in rest.items()}


def sites_of(loop: SSLLoop) -> PathSites:
    """Return the sites of a loop's chains that are not given."""
    drawn = loop.drawn
    sizes = tuple(getattr(chain.transition, "num_states", 0) for chain in drawn)
    return PathSites(tuple(chain.name for chain in drawn), sizes, loop.is_tuple)


def scale_of(loop: SSLLoop, sites: Mapping[str, dict[str, Any]]) -> Tensor | None:
    """User's ``poutine.scale`` on the paths' sites, ``(B,)``; ``None`` where it is 1.

    :param sites: of the chains, by name, as in a Pyro trace.
    """

    def read(chain: Chain) -> Tensor | None:
        scale = user_scale(sites[chain.name])
        if not isinstance(scale, Tensor) and scale == 1.0:
            return None
        like = loop.transition.like
        scale = torch.as_tensor(scale, dtype=like.dtype, device=like.device)
        return scale.expand(loop.batch_shape).reshape(-1)

    return _the_same(loop, [read(chain) for chain in loop.drawn], "poutine.scale")


def lengths_of(loop: SSLLoop, sites: Mapping[str, dict[str, Any]]) -> Tensor | None:
    """Number of steps of each sequence, ``(B,)``; 0 where the user masked its paths out."""

    def read(chain: Chain) -> Tensor | None:
        mask, lengths = sites[chain.name]["mask"], loop.lengths
        if mask is not None and mask is not True:
            mask = torch.as_tensor(mask, device=loop.device).expand(loop.batch_shape)
            lengths = mask * (loop.num_steps if lengths is None else lengths)
        return None if lengths is None else lengths.reshape(-1)

    return _the_same(loop, [read(chain) for chain in loop.drawn], "poutine.mask")


def _the_same(loop: SSLLoop, values: list[Tensor | None], handler: str) -> Tensor | None:
    """One value for all chains.

    :raises ValueError: if a handler treats one of them differently.
    """
    first = values[0]
    for chain, other in zip(loop.drawn, values, strict=True):
        if first is other:
            continue
        if first is None or other is None or not torch.equal(first, other):
            raise ValueError(
                f'Site "{chain.name}": {handler} stands on it in another way than on '
                f'"{loop.drawn[0].name}", and the samplers draw both together; expected the same '
                f"for all chains of a loop: write {handler} around the whole loop."
            )
    return first


def future_inputs(loop: SSLLoop, value: Any) -> Any:
    """Return inputs of steps beyond the data for all chains together, ``(horizon, B, ...)``.

    :param value: as the loop's ``inputs``: of several chains a tensor for all that read any, or a
        dict by name.
    :raises ValueError: if one does not have its chain's size.
    """
    if not loop.is_tuple or value is None:
        return value
    transitions = {chain.name: chain.transition for chain in loop.drawn}
    given = by_chain("future_inputs", value, transitions)
    each = {name: u for name, u in given.items() if u is not None}
    leading = {tuple(u.shape[:-1]) for u in each.values() if isinstance(u, Tensor)}
    for name, u in each.items():
        size = transitions[name].input_size
        if not isinstance(u, Tensor) or u.shape[-1:] != (size,) or len(leading) > 1:
            found = tuple(u.shape) if isinstance(u, Tensor) else type(u).__name__
            raise ValueError(
                f'Site "{name}": future_inputs are {found}, expected (horizon, B, {size}), and '
                "as many steps and sequences for all chains; write "
                f'future_inputs={{"{name}": u}} with inputs of the steps beyond the data.'
            )
    return torch.cat([*each.values()], -1) if each else None
