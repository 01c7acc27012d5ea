"""One ``ssl_transition`` statement: its chains, its layout, and what its body is given.

Most loops have one chain. A factorial model's has several, side by side, and then ``name``,
``transition`` and ``inputs`` are those of the chains together (``transitions/product.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from .steps import steps_within
from .transitions import PathDistribution, ProductTransition, Transition

#: Chains whose states have more tuples than this are drawn each given the others: a sweep's table
#: and its particles' probabilities have an entry for each tuple, and a twist's messages its square.
MAX_TUPLES = 512

__all__ = ["MAX_TUPLES", "Chain", "SSLLoop", "TimePlate", "joined"]


class TimePlate(str):
    """The name of a time plate: by its class a loop in the body of another one is known."""


class Chain(NamedTuple):
    """One latent path of a loop.

    ``known`` ``(T,) + batch_shape`` holds what is known of it, -1 where nothing is; ``known_at``,
    bool, says where, and is ``None`` where all of it is.
    """

    name: str
    transition: Transition
    inputs: Tensor | None = None  # batch_shape + (T, input_size)
    known: Tensor | None = None
    known_at: Tensor | None = None

    def observe(self, t: Tensor, z: Tensor) -> None:
        """Observe, in the body, what is known of z_t: log p is 0 where z_t is that, else -inf."""
        if self.known is None or self.known_at is None:
            return
        like = self.transition.like
        with poutine.mask(mask=self.known_at[t]):
            seen = self.known[t].to(like.dtype)
            pyro.sample(f"{self.name}_obs", dist.Delta(z.to(like.dtype)), obs=seen)


class SSLLoop(NamedTuple):
    """One ``ssl_transition`` statement, as handlers are given it.

    ``plates`` are the model's vectorised plates around the loop and ``batch_shape`` their shape;
    ``inputs`` and ``lengths`` are laid out by it, batch first. ``outer_dim`` is the dimension of
    a plate that Pyro wraps around the whole model (vectorised particles), 0 where there is none.
    ``paths`` are those of chains that are given, by name and time first, ``(T,) + batch_shape``;
    ``transition`` is that of all other chains. ``is_tuple`` says whether the body meets a tuple.
    """

    name: str
    transition: Transition
    num_steps: int
    inputs: Tensor | None  # batch_shape + (T, input_size)
    lengths: Tensor | None  # batch_shape
    batch_shape: torch.Size
    plates: tuple[CondIndepStackFrame, ...]
    device: torch.device
    outer_dim: int = 0
    chains: tuple[Chain, ...] = ()
    paths: Mapping[str, Tensor] = {}
    is_tuple: bool = False
    statement: object = None  # one for each ssl_transition

    @property
    def time_dim(self) -> int:
        """Dimension of time in the body: left of every plate around the loop."""
        return -1 - len(self.batch_shape)

    @property
    def drawn(self) -> tuple[Chain, ...]:
        """The chains whose paths are not given, in order."""
        return tuple(chain for chain in self.chains if chain.name not in self.paths)

    def blocks(self) -> list[SSLLoop]:
        """Return what is drawn together, as loops: all chains that are not given, or each alone.

        See ``MAX_TUPLES``.
        """
        drawn, num_tuples = self.drawn, getattr(self.transition, "num_states", 1)
        together = num_tuples <= MAX_TUPLES or len(drawn) == 1
        each = [drawn] if together else [(chain,) for chain in drawn]
        return [joined(self._replace(chains=some, paths={}), some) for some in each if some]

    def several_with(self, other: SSLLoop) -> bool:
        """Whether a block is of the same statement as another one."""
        return self.is_tuple and self.statement is other.statement

    def given(self, paths: Mapping[str, Tensor]) -> SSLLoop:
        """Return the loop over the other chains, where paths, time first, are given."""
        rest = [chain for chain in self.chains if chain.name not in paths]
        if not paths or not rest:
            return self._replace(paths=paths)
        return joined(self._replace(paths=paths), rest)

    def sample(self, chain: Chain, infer: dict[str, Any] | None = None) -> Tensor:
        """Sample the path of a chain: ``(..., B, T)``, observed where all of it is known."""
        whole = None
        if chain.known is not None and chain.known_at is None:
            active = self.active()
            whole = chain.known if active is None else torch.where(active, chain.known, 0)
            whole = whole.movedim(0, -1)
        return pyro.sample(chain.name, self.distribution(chain), obs=whole, infer=infer)

    def distribution(self, chain: Chain) -> PathDistribution:
        """Return p(z_{1:T}) of a chain, of batch shape ``batch_shape``."""
        return PathDistribution(
            chain.transition,
            self.num_steps,
            inputs=chain.inputs,
            lengths=self.lengths,
            batch_shape=self.batch_shape,
        )

    def steps(self) -> Tensor:
        """The value of ``t`` in a body that runs once: ``arange(T)``."""
        return torch.arange(self.num_steps, device=self.device)

    def active(self) -> Tensor | None:
        """Steps within each sequence, bool ``(T,) + batch_shape``; ``None`` if all are."""
        return None if self.lengths is None else steps_within(self.lengths, self.num_steps)

    def meet(self, t: Tensor, z: Tensor) -> Any:
        """Return what the body is given at steps t, where z stands for what is not given.

        What is known of the chains is observed: call it where the body runs.

        :param Tensor z: as the body meets it; where several chains are not given, states of their
            product.
        """
        drawn = self.drawn
        parts: tuple[Tensor, ...] = (z,)
        if len(drawn) > 1:
            assert isinstance(self.transition, ProductTransition)
            parts = self.transition.split(z)
        met = {name: path[t] for name, path in self.paths.items()}
        met |= {chain.name: part for chain, part in zip(drawn, parts, strict=True)}
        return self.show(t, [met[chain.name] for chain in self.chains])

    def show(self, t: Tensor, each: Sequence[Tensor]) -> Any:
        """Return what the body is given, of values for each chain; see :meth:`meet`."""
        for chain, z in zip(self.chains, each, strict=True):
            chain.observe(t, z)
        return tuple(each) if self.is_tuple else each[0]

    def time_first(self, chain: Chain, z: Tensor) -> Tensor:
        """Lay a path ``(..., B, T)`` out as the body reads it, ``(..., T, B)``; D stays last."""
        num_batch_dims, event = len(self.batch_shape), chain.transition.event_shape
        num_outer = z.dim() - len(event) - 1 - num_batch_dims
        time = -1 - len(event)
        if num_outer + num_batch_dims < 0 or z.shape[time:] != (self.num_steps, *event):
            raise ValueError(
                f'Site "{chain.name}": a path of shape {tuple(z.shape)} was given, expected '
                f"{(*self.batch_shape, self.num_steps, *event)}, time last"
                f"{' but one' * bool(event)}; "
                f'write condition(model, {{"{chain.name}": z}}) with z of shape '
                f"{'(B, T, D)' if event else '(B, T)'}."
            )
        if num_outer < 0:
            z, num_outer = z.expand(self.batch_shape + z.shape[time:]), 0
        if num_outer and self.outer_dim:
            # Pyro counts the event's dimension as a plate's when it lays out posterior samples.
            ones = (1,) * (-self.outer_dim - num_batch_dims - 2)
            z = z.reshape((math.prod(z.shape[:num_outer]), *ones, *z.shape[num_outer:]))
            num_outer = 1 + len(ones)
        elif num_outer and z.shape[num_outer - 1] == 1:  # T takes the place of a singleton
            num_outer -= 1
            z = z.squeeze(num_outer)
        return z.movedim(time, num_outer)

    @contextmanager
    def body(self) -> Iterator[None]:
        """Context of a body that runs once for all t: the time plate, masked by the lengths."""
        active, name = self.active(), TimePlate(f"{self.name}_time")
        with pyro.plate(name, self.num_steps, dim=self.time_dim, device=self.device):
            if active is None:
                yield
            else:
                with poutine.mask(mask=active):
                    yield


def joined(loop: SSLLoop, chains: Sequence[Chain]) -> SSLLoop:
    """Return a loop whose name, transition and inputs are those of some of its chains together."""
    if len(chains) == 1:
        (chain,) = chains
        return loop._replace(name=chain.name, transition=chain.transition, inputs=chain.inputs)
    T, shape = loop.num_steps, loop.batch_shape
    inputs = [chain.inputs.expand(*shape, T, -1) for chain in chains if chain.inputs is not None]
    return loop._replace(
        name=", ".join(chain.name for chain in chains),
        transition=ProductTransition([chain.transition for chain in chains]),  # type: ignore[misc]
        inputs=torch.cat(inputs, -1) if inputs else None,
    )
