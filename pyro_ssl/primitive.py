r"""``ssl_transition``: the loop over time, as one Pyro effect.

.. math::
    s_t = \mathrm{cell}(s_{t-1}, z_{t-1}), \qquad z_t \sim p(z \mid g(s_t)), \qquad
    x_t \sim p(x \mid h(z_t))

(Zheng et al. 2017, arXiv 1711.11179, eq. 4). The loop *reads* as this process does, step by step.
As with :class:`pyro.plate`, which can be entered once or looped over, the code that runs the model
decides how often the body really runs: by default once, with all of z as one sample site; under
conditional SMC once, with the K states in place of z (``reading/handlers.py``).

The user's code never holds the state s_t, so nothing can pass from step to step without being
resampled.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import apply_stack
from torch import Tensor

from .loop_arguments import check_inputs, check_lengths, check_tensor
from .steps import steps_within
from .transitions import PathDistribution, Transition

__all__ = ["SSLLoop", "ssl_transition"]

#: Plates that Pyro wraps around a whole model, left of all others.
_OUTERMOST_PLATES = frozenset({"num_particles_vectorized", "_num_predictive_samples"})


class SSLLoop(NamedTuple):
    """One ``ssl_transition`` statement, as handlers are given it.

    ``plates`` are the model's vectorised plates around the loop and ``batch_shape`` their shape;
    ``inputs`` and ``lengths`` are laid out by it, batch first. ``outer_dim`` is the dimension of
    a plate that Pyro wraps around the whole model (vectorised particles), 0 where there is none.
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

    @property
    def time_dim(self) -> int:
        """Dimension of time in the body: left of every plate around the loop."""
        return -1 - len(self.batch_shape)

    def distribution(self) -> PathDistribution:
        """Return p(z_{1:T}), batch shape ``batch_shape``, event ``(T,)`` or ``(T, D)``."""
        return PathDistribution(
            self.transition,
            self.num_steps,
            inputs=self.inputs,
            lengths=self.lengths,
            batch_shape=self.batch_shape,
        )

    def steps(self) -> Tensor:
        """The value of ``t`` in a body that runs once: ``arange(T)``."""
        return torch.arange(self.num_steps, device=self.device)

    def active(self) -> Tensor | None:
        """Steps within each sequence, bool ``(T,) + batch_shape``; ``None`` if all are."""
        return None if self.lengths is None else steps_within(self.lengths, self.num_steps)

    def time_first(self, z: Tensor) -> Tensor:
        """Lay a path ``(..., B, T)`` out as the body reads it, ``(..., T, B)``; D stays last."""
        num_batch_dims, event = len(self.batch_shape), self.transition.event_shape
        num_outer = z.dim() - len(event) - 1 - num_batch_dims
        time = -1 - len(event)
        if num_outer + num_batch_dims < 0 or z.shape[time:] != (self.num_steps, *event):
            raise ValueError(
                f'Site "{self.name}": a path of shape {tuple(z.shape)} was given, expected '
                f"{(*self.batch_shape, self.num_steps, *event)}, time last"
                f"{' but one' * bool(event)}; "
                f'write condition(model, {{"{self.name}": z}}) with z of shape '
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
        active = self.active()
        with pyro.plate(f"{self.name}_time", self.num_steps, dim=self.time_dim, device=self.device):
            if active is None:
                yield
            else:
                with poutine.mask(mask=active):
                    yield


def ssl_transition(
    name: str,
    transition: Transition,
    num_steps: int,
    *,
    inputs: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Loop over the steps of a state space LSTM: ``for t, z in ssl_transition(...)``.

    The body observes x_t given z_t, with data time first. It is written as for one step and runs
    vectorised: ``t`` is a tensor, ``z`` broadcasts against ``x[t]``, and plates around the loop
    (sequences) stand to the right of time. Nothing latent may be sampled in the body. Write the
    call in the ``for`` statement itself: an iterator that is kept elsewhere keeps its plates open
    when an exception leaves the body.

    ======================  =============  ====================================================
    run by                  ``t``          ``z``
    ======================  =============  ====================================================
    Pyro's own inference    ``arange(T)``  sample site ``name``, ``(..., B, T)``, event_dim 1;
                                           the body sees it time first, ``(..., T, B)``
    this library's samplers ``arange(T)``  every state, ``arange(K)`` as ``(K, 1, 1)``
    ... over vectors, and   one step       the particles, ``(P, 1, B, D)``
    no quadratic emission
    ======================  =============  ====================================================

    Where the transition is over vectors, D stands to the right of all: the site is ``(..., B, T,
    D)`` with event_dim 2, and the body sees ``(..., T, B, D)``, so that ``z @ C.T`` is a linear
    emission's mean. There the body is run at one step, and what torch computed in it is computed
    again at the others; where that could mean something else (numbers that leave torch, edits in
    place, random numbers, a branch that turns out otherwise) it is run at each.

    :param str name: name of the latent sample site.
    :param Transition transition: p(z_t | z_{1:t-1}). Register its parameters by
        ``pyro.module("transition", transition)``.
    :param int num_steps: T, at least 1.
    :param Tensor inputs: exogenous inputs, time first, ``(T, B, input_size)``; ``(T, input_size)``
        is shared by all sequences.
    :param Tensor lengths: integers ``(B,)``, each in ``0..T``: steps at or past a sequence's
        length are masked out of the transition and of the whole body.
    :raises ValueError: on a shape or a length that does not fit; the message names the site.

    *Reference*: Zheng et al., "State Space LSTM Models with Particle MCMC Inference", 2017,
    section 3.

    Example::

        >>> import pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition
        >>> transition = LSTMTransition(num_states=4, hidden_size=8)
        >>> def model(words):                                       # words: (T, B)
        ...     pyro.module("transition", transition)
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(4, 20)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> trace = poutine.trace(model).get_trace(torch.zeros(5, 3, dtype=torch.long))
        >>> trace.nodes["z"]["value"].shape, trace.nodes["x"]["fn"].batch_shape
        (torch.Size([3, 5]), torch.Size([5, 3]))
    """
    msg: Any = {
        "type": "ssl_transition",
        "name": name,
        "fn": lambda: _run_once,
        "is_observed": False,
        "args": (),
        "kwargs": {},
        "value": None,  # a handler's answer: a function from SSLLoop to an iterator of (t, z)
        "infer": {},
        "scale": 1.0,
        "mask": None,
        "cond_indep_stack": (),
        "done": False,
        "stop": False,
        "continuation": None,
    }
    apply_stack(msg)
    frames = [frame for frame in msg["cond_indep_stack"] if frame.vectorized]
    plates = tuple(frame for frame in frames if frame.name not in _OUTERMOST_PLATES)
    loop = _describe(name, transition, num_steps, inputs, lengths, plates)
    outer_dim = min((frame.dim for frame in frames if frame not in plates), default=0)
    yield from msg["value"](loop._replace(outer_dim=outer_dim))


def _run_once(loop: SSLLoop) -> Iterator[tuple[Tensor, Tensor]]:
    """The default meaning: one sample site for the whole path, then the body in a time plate."""
    z = pyro.sample(loop.name, loop.distribution())
    with loop.body():
        yield loop.steps(), loop.time_first(z)


def _describe(
    name: str,
    transition: Transition,
    num_steps: int,
    inputs: Tensor | None,
    lengths: Tensor | None,
    plates: tuple[CondIndepStackFrame, ...],
) -> SSLLoop:
    """Check what the user wrote, and lay it out batch first."""
    if not isinstance(transition, Transition):
        raise TypeError(
            f'Site "{name}": transition is a {type(transition).__name__}, expected a '
            f'pyro_ssl Transition; write ssl_transition("{name}", LSTMTransition(K, H), T).'
        )
    try:
        T = operator.index(num_steps)
    except TypeError:
        T = 0
    if T < 1:
        raise ValueError(
            f'Site "{name}": num_steps is {num_steps}, expected at least 1; drop empty sequences '
            "before the model, and give the rest as lengths= (and num_steps an integer, len(x))."
        )
    batch_shape = [1] * max((-frame.dim for frame in plates), default=0)
    for frame in plates:
        batch_shape[frame.dim] = frame.size
    shape = torch.Size(batch_shape)
    if isinstance(transition, PyroModule):  # each of its attributes is a statement of Pyro's
        for attribute in (*transition._parameters, *transition._modules):
            getattr(transition, attribute)

    for what, value in (("lengths", lengths), ("inputs", inputs)):
        check_tensor(name, what, value, transition.like.device)
    lengths = check_lengths(name, lengths, T, shape)
    inputs = check_inputs(name, transition, inputs, lengths, (T, *shape))
    return SSLLoop(name, transition, T, inputs, lengths, shape, plates, transition.like.device)
