"""Reading what the body of a loop observes.

The handler stands *inside* the plates and reads each site before they broadcast it: expanding
``Categorical(phi[z])`` of batch shape ``(K, 1, 1)`` to ``(K, T, B)`` would materialise
``(K, T, B, V)``.

Next file to read: ``site.py``, one observed site.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..arguments import broadcast_shapes
from ..errors import EmissionNotLocalError, LatentSiteError
from ..loop import SSLLoop
from .site import EmissionSite, user_scale

__all__ = ["EmissionReader", "LaterReader"]


class EmissionReader(Messenger):
    """Reads the observed sites of the body before the plates around the loop broadcast them.

    :param SSLLoop loop: of as many steps as the body meets.
    :param int num_states: how many states it meets.
    :param list sites: where they go.
    :param dict fillers: by site, what stands for masked values, if not one of these steps'.
    :param Tensor steps: the steps that the body meets, where these are not all in order. A value
        that a handler outside the loop conditions on is taken at these; the body indexes its own.
    """

    def __init__(
        self,
        loop: SSLLoop,
        num_states: int,
        sites: list[EmissionSite],
        steps: Tensor | None = None,
        fillers: Mapping[str, Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        self.loop, self.num_states, self.sites, self.steps = loop, num_states, sites, steps
        self.fillers = fillers or {}
        self._num_inner = 0

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) or msg["infer"].get("_deterministic"):
            return
        name, loop = msg["name"], self.loop
        inner = [frame for frame in msg["cond_indep_stack"] if frame.vectorized]
        if inner:
            raise EmissionNotLocalError(
                f'Site "{name}": inside plate "{inner[0].name}", which stands in the body of the '
                f'loop of "{loop.name}"; expected no plate there. Write the distribution as one '
                "event: fn.to_event(1), in place of the plate."
            )
        self._num_inner = len(msg["cond_indep_stack"])
        msg["infer"]["_ssl_emission"] = "own value" if msg["is_observed"] else "given value"
        msg["done"] = True  # so that no plate broadcasts it

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_ssl_emission"):
            return
        loop, fn, value = self.loop, msg["fn"], msg["value"]
        if not msg["is_observed"]:  # checked only now: an outer handler may condition
            raise LatentSiteError(
                f'Site "{msg["name"]}": latent, inside the loop of "{loop.name}", expected an '
                "observed one. The samplers draw only z there: give obs=, condition the model on "
                "it, draw it before the loop, or leave missing observations out by "
                "poutine.mask(mask=...)."
            )
        for tensor in (value, *_parameters(fn)):
            if tensor.dim() and tensor.device != loop.device:
                raise ValueError(
                    f'Site "{msg["name"]}": its distribution or value is on {tensor.device}, but '
                    f'the transition of "{loop.name}" is on {loop.device}; expected one device: '
                    f'write transition.to("{tensor.device}"), or move the data.'
                )
        shape = torch.Size((self.num_states, loop.num_steps)) + loop.batch_shape
        time = -len(loop.batch_shape) - fn.event_dim - 1
        from_outside = msg["infer"]["_ssl_emission"] == "given value"
        if self.steps is not None and from_outside and value.dim() >= -time:
            value = value.index_select(time, self.steps)
        value_batch = value.shape[: value.dim() - fn.event_dim]
        scale = user_scale(msg, num_inner=self._num_inner)
        mask = None if msg["mask"] is True else msg["mask"]
        weights = [tuple(w.shape) for w in (mask, scale) if isinstance(w, Tensor)]
        try:
            fits = broadcast_shapes(fn.batch_shape, value_batch, *weights, shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise EmissionNotLocalError(
                f'Site "{msg["name"]}": its distribution has batch shape {tuple(fn.batch_shape)} '
                f"and its value {tuple(value_batch)}"
                f"{', its masks and scales ' * bool(weights)}{str(weights)[1:-1]}"
                f", which do not broadcast to (K, T, B) = {tuple(shape)}; expected "
                f'shapes that do: the loop of "{loop.name}" gives every state at once, z of shape '
                f"{(shape[0],) + (1,) * (len(shape) - 1)}: index by the whole of z, as in phi[z], "
                "and keep data time first, as in x[t]."
            )
        filler = self.fillers.get(msg["name"])
        self.sites.append(EmissionSite(msg["name"], fn, value, mask, scale, shape, filler))


class LaterReader(EmissionReader):
    """Reads, in the body of a later loop whose path has a value, what depends on all states.

    The body met the states of the first loop in a variable that was left there. What it observes
    given them has their dimension, left of time, and belongs to the first loop's emission.

    :param SSLLoop first: the loop whose path is drawn.
    :param SSLLoop loop: the later one.
    """

    def __init__(
        self, first: SSLLoop, loop: SSLLoop, num_states: int, sites: list[EmissionSite]
    ) -> None:
        super().__init__(loop, num_states, sites)
        self.first = first

    def _pyro_sample(self, msg: Any) -> None:
        shapes = [getattr(msg["fn"], "batch_shape", ())]
        shapes += [w.shape for w in (msg["mask"], msg["scale"]) if isinstance(w, Tensor)]
        if max(map(len, shapes)) <= 1 + len(self.loop.batch_shape):
            return
        first, loop = self.first, self.loop
        sizes = [(one.num_steps, *one.batch_shape) for one in (first, loop)]
        if sizes[0] != sizes[1]:
            raise EmissionNotLocalError(
                f'Site "{msg["name"]}": in the loop of "{loop.name}", of (T, B) = {sizes[1]}, it '
                f'depends on the path of "{first.name}", of {sizes[0]}, expected the same steps '
                "and plates; write the loops over the same data, and mask what is missing."
            )
        super()._pyro_sample(msg)


def _parameters(fn: Any) -> list[Tensor]:
    """Tensors that a distribution holds."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return [value for value in vars(fn).values() if isinstance(value, Tensor)]
