r"""Answering ``ssl_transition`` for the samplers: the body of the loop becomes a table.

:class:`StateGrid` runs the body once with every state, ``z = arange(K)`` of shape
``(K, 1, ..., 1)``, and its observed sites become log p(x_t | z_t = k) for all t and k at once. The
sweep over t then needs none of the user's Python.

The handler stands *inside* the plates and reads each site before they broadcast it: expanding
``Categorical(phi[z])`` of batch shape ``(K, 1, 1)`` to ``(K, T, B)`` would materialise
``(K, T, B, V)``.

Next files to read: ``site.py``, one observed site; ``program.py``, who runs the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import EmissionNotLocalError, LatentSiteError, NonFiniteError, SMCFailed
from ..primitive import SSLLoop
from ..transitions import DiscreteTransition, Transition
from .quadratic import probe_points
from .site import EmissionSite, user_scale

__all__ = ["EmissionReader", "StateGrid"]


class StateGrid(Messenger):
    """Answers ``ssl_transition`` with the grid of all states, and gathers the emission.

    Once the model ran under it, :attr:`answered` says whether there was a loop whose path is still
    to be drawn (not given by ``condition`` or ``replay``); then :attr:`loop` says what it was, and
    :attr:`sites` what its body observed.

    Over vectors the states are points of R^D at which log p(x_t | z_t) is to be known.

    :param Tensor states: what the body meets in place of ``arange(K)``: ``(S,)`` or ``(S, D)``; or
        a value for each step and sequence, ``(S, T) + batch_shape + (D,)``.
    """

    def __init__(self, states: Tensor | None = None) -> None:
        super().__init__()
        self.states = states
        self._loop: SSLLoop | None = None
        self.sites: list[EmissionSite] = []
        self._path_site: dict[str, Any] = {}
        self._placeholder = False

    @property
    def answered(self) -> bool:
        """Whether the model had a loop whose path is still to be drawn."""
        return self._loop is not None

    @property
    def loop(self) -> SSLLoop:
        """The ``ssl_transition`` statement."""
        assert self._loop is not None, "the model had no loop to answer"
        return self._loop

    @property
    def transition(self) -> Transition:
        """p(z_t | z_{1:t-1})."""
        return self.loop.transition

    def _pyro_ssl_transition(self, msg: Any) -> None:
        msg["value"], msg["done"] = self._run, True

    def _pyro_sample(self, msg: Any) -> None:
        if msg["infer"].get("_ssl_path") and not msg["is_observed"] and msg["value"] is None:
            # The sweep draws z; the site is there for the masks and scales that stand on it.
            transition = msg["fn"].transition
            dtype = transition.like.dtype if transition.event_shape else torch.long
            shape, device = msg["fn"].shape(), transition.like.device
            msg["value"] = torch.zeros(shape, dtype=dtype, device=device)
            msg["done"] = self._placeholder = True

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["infer"].get("_ssl_path"):
            self._path_site = dict(msg)

    def _run(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Tensor]]:
        self._placeholder = False
        z = pyro.sample(loop.name, loop.distribution(), infer={"_ssl_path": True})
        if not self._placeholder:
            with loop.body():
                yield loop.steps(), loop.time_first(z)
            return
        if self._loop is not None:
            raise LatentSiteError(
                f'Site "{loop.name}": a second ssl_transition in one model (the first is '
                f'"{self._loop.name}"), expected one. Sample them in turn, each with the other '
                f'given: pyro.condition(model, {{"{loop.name}": path}}).'
            )
        self._loop = loop
        yield from self._answer(loop)

    def _answer(self, loop: SSLLoop) -> Iterator[tuple[Tensor, Tensor]]:
        """Run the body, in the place that the path's site left."""
        states = self._states_of(loop)
        S = len(states)
        # The frame keeps the states' dimension from a plate in the body, which the reader refuses.
        frame = IndepMessenger(f"{loop.name}_states", S, dim=loop.time_dim - 1)
        with loop.body(), frame, EmissionReader(loop, S, self.sites):
            yield loop.steps(), states

    def _states_of(self, loop: SSLLoop) -> Tensor:
        """States as the body meets them, ``(S, 1, ..., 1) + event_shape`` at the least."""
        states, event = self.states, loop.transition.event_shape
        if states is None:
            if not isinstance(loop.transition, DiscreteTransition):
                states = probe_points(loop.transition)
            else:
                states = torch.arange(loop.transition.num_states, device=loop.device)
        if states.dim() == 1 + len(event):
            ones = (1,) * (1 + len(loop.batch_shape))
            states = states.reshape(states.shape[:1] + ones + event)
        return states

    @property
    def transition_scale(self) -> Tensor | None:
        """User's ``poutine.scale`` on the path's site, ``(B,)``; ``None`` where it is 1."""
        scale = user_scale(self._path_site)
        if not isinstance(scale, Tensor) and scale == 1.0:
            return None
        like = self.transition.like
        scale = torch.as_tensor(scale, dtype=like.dtype, device=like.device)
        return scale.expand(self.loop.batch_shape).reshape(-1)

    @property
    def lengths(self) -> Tensor | None:
        """Number of steps of each sequence, ``(B,)``; 0 where the user masked it out."""
        mask, lengths = self._path_site["mask"], self.loop.lengths
        if mask is not None and mask is not True:
            mask = torch.as_tensor(mask, device=self.loop.device).expand(self.loop.batch_shape)
            lengths = mask * (self.loop.num_steps if lengths is None else lengths)
        return None if lengths is None else lengths.reshape(-1)

    def observed(self) -> Tensor:
        """Return the cells at which something was observed and not masked, bool ``(T, B)``."""
        self._check_observes()
        seen = torch.zeros((), dtype=torch.bool, device=self.loop.device)
        for site in self.sites:
            mask = site.mask
            if not isinstance(mask, Tensor):
                mask = torch.tensor(mask is not False, device=self.loop.device)
            seen = seen | mask.expand(site.shape).any(0)
        return seen.expand(self.sites[0].shape[1:]).reshape(self.loop.num_steps, -1)

    def table(self) -> Tensor:
        """Return Σ over the body's sites of log p(x_t | z_t = k), ``(T, B, K)``.

        :raises EmissionNotLocalError: if nothing was observed, or nothing that depends on z.
        :raises NonFiniteError: on NaN or +inf.
        :raises SMCFailed: where an observation is impossible under every state.
        """
        self._check_observes()
        K = self.sites[0].shape[0]
        if K > 1 and not any(site.varies_with_state() for site in self.sites):
            site = self.sites[0]
            raise EmissionNotLocalError(
                f'Site "{site.name}": its distribution has batch shape '
                f"{tuple(site.fn.batch_shape)}, which does not vary over the K={K} states; "
                f"expected {tuple(site.shape)} up to broadcasting. Index parameters by the whole "
                "of z, as in phi[z]: z is (K, 1, 1) here and (T, B) elsewhere, and time must not "
                "be indexed in it."
            )
        total: Any = 0.0
        for site in self.sites:
            table = site.table()
            if not bool((table < torch.inf).all()):
                t, b, k = (~(table < torch.inf)).nonzero()[0].tolist()
                raise NonFiniteError(
                    f'Site "{site.name}": log p(x_t | z_t={k}) is {table[t, b, k].item()} at step '
                    f"{t} of sequence {b}, expected a finite number or -inf; check the "
                    "parameters of its distribution, and the data, for NaN."
                )
            total = total + table
        impossible = (total == -torch.inf).all(-1)
        if isinstance(self.transition, DiscreteTransition) and bool(impossible.any()):
            t, b = impossible.nonzero()[0].tolist()
            names = ", ".join(f'"{site.name}"' for site in self.sites)
            raise SMCFailed(
                f"Site {names}: the observation at step {t} of sequence {b} has probability 0 "
                f"under each of the {K} states, expected a positive one; smooth the emission "
                "(a Dirichlet prior with concentration above 1), or mask the observation."
            )
        return total

    def _check_observes(self) -> None:
        if not self.sites:
            raise EmissionNotLocalError(
                f'Site "{self.loop.name}": its loop observed nothing; write '
                'pyro.sample("x", Emission(phi[z]), obs=x[t]) in the body, before any break.'
            )

    def path(self, z: Tensor) -> Tensor:
        """Return log p(x_t | z_t) of given paths, ``(T, B)`` in and out."""
        return torch.stack([site.path(z) for site in self.sites]).sum(0)


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
            fits = torch.broadcast_shapes(fn.batch_shape, value_batch, *weights, shape) == shape
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


def _parameters(fn: Any) -> list[Tensor]:
    """Tensors that a distribution holds."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return [value for value in vars(fn).values() if isinstance(value, Tensor)]
