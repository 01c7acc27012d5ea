r"""The transition protocol: what ``ssl_transition`` and the samplers ask of p(z_t | z_{1:t-1}).

A transition is a deterministic state machine that reads the latents and emits a distribution for
the next one (Zheng et al. 2017, arXiv 1711.11179, section 3):

.. math:: s_t = \mathrm{cell}(s_{t-1}, z_{t-1}), \qquad z_t \sim p(z \mid g(s_t)).

The particles *step* through it, one latent at a time; learning is *teacher-forced*, one fused call
over a whole path. Both must give the same probabilities, to float precision.
:class:`pyro_ssl.testing.TransitionContract` is the test of this, for every transition.

Next files to read: ``recurrent.py``; ``gaussian.py``, for vectors; ``path.py``, whole paths.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..arguments import check_range, check_tensor, whole
from .given import at_parameters

__all__ = ["DiscreteTransition", "Stepper", "Transition", "like_of", "map_state"]

#: ``stepper(z_prev, state, t) -> (logits, state)``; see :meth:`DiscreteTransition.stepper`.
Stepper = Callable[[Tensor | None, Any, int], tuple[Tensor, Any]]


def map_state(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Apply a function to every tensor of a state, and return a state of the same types.

    :param function: of one tensor; for instance ``lambda s: s.index_select(0, rows)``.
    :param state: a tensor, or a NamedTuple of states: tensors and further NamedTuples.

    Example::

        >>> from pyro_ssl import LSTMTransition
        >>> state = LSTMTransition(3, hidden_size=4).initial_state((5,))
        >>> map_state(lambda s: s[:2], state).h.shape
        torch.Size([2, 4])
    """
    if isinstance(state, tuple):
        return type(state)(*[map_state(function, part) for part in state])
    return function(state)


def like_of(module: nn.Module) -> Tensor:
    """Return an empty tensor ``()`` of a module's dtype and device; see :attr:`Transition.like`."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return torch.empty((), dtype=tensor.dtype, device=tensor.device)
    return torch.empty((), dtype=torch.get_default_dtype(), device=None)  # the default one


class Transition(nn.Module):
    """p(z_t | z_{1:t-1}, inputs_{1:t}), as a state machine over the latents.

    To write your own, subclass :class:`DiscreteTransition` for z in ``{0..K-1}``, or
    :class:`~pyro_ssl.transitions.GaussianTransition` for z in R^D.

    The state is all that a transition remembers of z_{1:t-1} before it reads the last latent: a
    NamedTuple of tensors, or of further NamedTuples, each tensor of shape ``batch_shape + (...)``.
    Particles are resampled by taking rows of these tensors, so keep nothing elsewhere. Make new
    tensors with the dtype and the device of :attr:`like`.
    """

    #: number of exogenous inputs per step that the transition reads (0: none)
    input_size: int = 0

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one latent z_t: ``()`` where it is discrete, ``(D,)`` where it is a vector."""
        return torch.Size()

    @property
    def like(self) -> Tensor:
        """An empty tensor ``()`` of the transition's dtype and device.

        They are those of its first floating-point parameter, or buffer if there is none; where
        there is neither, the defaults.
        """
        return like_of(self)

    def given(self, values: Mapping[str, Tensor]) -> Self:
        """Return this transition at other values of some parameters, as latent sites of a model.

        :param values: by the names of ``named_parameters``, of the same shapes.

        Example::

            >>> import pyro, pyro.distributions as dist
            >>> from pyro_ssl import LSTMTransition
            >>> lstm = LSTMTransition(num_states=3, hidden_size=4)
            >>> weight = pyro.sample("W", dist.Normal(0.0, 1.0).expand([3, 4]).to_event(2))
            >>> lstm.given({"head.weight": weight}).log_prob(torch.tensor([[0, 2, 1]])).shape
            torch.Size([1, 3])
        """
        return at_parameters(self, values)

    def draw_weights(self) -> dict[str, Tensor]:
        """Return a draw of the parameters that have a distribution, by name; by default of none."""
        return {}

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> Any:
        """Return the state before the first latent, tensors of shape ``batch_shape + (...)``."""
        raise NotImplementedError

    def step(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[dist.TorchDistribution, Any]:
        """Advance by one latent.

        :param z_prev: z_{t-1}, ``(...) + event_shape``; ``None`` at the first step.
        :param state: what the previous call (or :meth:`initial_state`) returned.
        :param inputs: exogenous inputs of step t, ``(..., input_size)``.
        :returns: p(z_t | z_{1:t-1}) of batch shape ``(...)``, and the new state.
        """
        raise NotImplementedError

    def log_prob(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced log p(z_t | z_{1:t-1}) of every step of a path, in one fused call.

        :param z: paths, ``(..., T) + event_shape``.
        :param inputs: exogenous inputs, ``(..., T, input_size)``.
        :returns: ``(..., T)``; the sum over the last dimension is log p(z_{1:T}).
        """
        raise NotImplementedError

    def stepper(
        self, inputs: Tensor | None = None
    ) -> Callable[[Tensor | None, Any, int], tuple[Any, Any]]:
        """Return the samplers' step over N rows of particles, without gradient.

        A sweep flattens sequences and particles to rows, so that resampling is one row gather.
        ``stepper(z_prev, state, t)`` takes latents ``(N,) + event_shape`` and a state of
        ``(N, ...)`` tensors, which it leaves as they are. It returns the parameters of
        p(z_t | z_{1:t-1}), logits or moments, and the new state, of the same types as
        :meth:`initial_state` makes.

        :param inputs: exogenous inputs by row, ``(T, N, input_size)``.
        """
        raise NotImplementedError

    @torch.no_grad()
    def replay(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> Tensor:
        """log p(z_s | z_{1:s-1}) of paths that go on from a state, for the samplers.

        Without gradient, and without dropout in any mode. Override it where one fused call beats
        the loop.

        :param Tensor z: the rest of N paths, S steps, ``(N, S) + event_shape``.
        :param z_prev: the latent before it, ``(N,) + event_shape``; ``None`` if there is none.
        :param state: of ``(N, ...)`` tensors, as :meth:`step` takes it.
        :param inputs: exogenous inputs of these steps, ``(N, S, input_size)``.
        :returns: ``(N, S)``.
        """
        return self._replay_on(z, z_prev, state, inputs)[0]

    @torch.no_grad()
    def _replay_on(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Replay by single steps, and return the state after them too: before it reads the last."""
        log_p = []
        for s in range(z.shape[1]):
            p, state = self.step(z_prev, state, None if inputs is None else inputs[:, s])
            z_prev = z[:, s]
            log_p.append(p.log_prob(z_prev).expand(len(z)))
        return torch.stack(log_p, 1), state

    def _check_path(self, where: str, z: Any, inputs: Tensor | None) -> None:
        """Check a path ``(..., T) + event_shape``, and its inputs, before they are read.

        :raises TypeError: if one is no tensor.
        :raises ValueError: if its shape, dtype or device does not fit, or a symbol is no state.
        """
        where = f"{type(self).__name__}.{where}"
        event, like = tuple(self.event_shape), self.like
        write = "z.T, or z.transpose(0, 1), for paths that are time first"
        check_tensor(where, "z", z, (..., "T", *event), like=like, integer=not event, write=write)
        self._check_inputs(where, inputs, (..., z.shape[-1 - len(event)]))

    def _check_inputs(self, where: str, inputs: Any, shape: tuple[Any, ...]) -> None:
        """Check exogenous inputs of a shape, but for their size.

        :raises ValueError: if the transition reads some and has none, the other way round, or
            their shape, dtype or device does not fit.
        """
        self._check_has_inputs(where, inputs)
        if inputs is not None:
            shape, write = (*shape, self.input_size), "inputs of each step"
            check_tensor(where, "inputs", inputs, shape, like=self.like, write=write)

    def _check_has_inputs(self, where: str, inputs: Any) -> None:
        """Check that there are inputs where the transition reads any, and none where it does not.

        :raises ValueError: if it is the other way round.
        """
        if (inputs is not None) != bool(self.input_size):
            raise ValueError(
                f"{where}: the transition reads input_size={self.input_size} inputs, but inputs "
                f"{'were' if inputs is not None else 'were not'} given; write "
                f"{type(self).__name__}(..., input_size=u.shape[-1]) and give u, or neither."
            )

    def _along(
        self,
        step: Callable[[Tensor | None, Any, Tensor | None], tuple[Any, Any]],
        z: Tensor,
        z_prev: Tensor | None,
        state: Any,
        inputs: Tensor | None,
    ) -> Iterator[tuple[Any, Tensor]]:
        """Step along paths ``(..., T) + event_shape``, and yield what ``step`` gives, and z_t."""
        time_dim = z.dim() - 1 - len(self.event_shape)
        for t in range(z.shape[time_dim]):
            given, state = step(z_prev, state, None if inputs is None else inputs[..., t, :])
            z_prev = z.select(time_dim, t)
            yield given, z_prev


class DiscreteTransition(Transition):
    """A transition over K states: subclasses give the logits, and all else follows.

    :param int num_states: K, the number of values that z_t takes.

    Write :meth:`initial_state` and :meth:`step_logits`. Override :meth:`path_logits` and ``replay``
    where one fused call beats the loop, and :meth:`stepper` where work can be done once per sweep.

    Example, in which a state becomes less likely to last, the longer it has lasted::

        >>> from typing import NamedTuple
        >>> class Lasted(NamedTuple):
        ...     steps: Tensor  # (..., K), 0 for all states but the current one
        >>> class Restless(DiscreteTransition):
        ...     def initial_state(self, batch_shape):
        ...         return Lasted(self.like.new_zeros((*batch_shape, self.num_states)))
        ...     def step_logits(self, z_prev, state, inputs=None):
        ...         if z_prev is None:
        ...             return state.steps, state  # all 0: any state
        ...         now = torch.nn.functional.one_hot(z_prev, self.num_states)
        ...         steps = (state.steps + 1.0) * now
        ...         return 2.0 * now - 0.5 * steps, Lasted(steps)
        >>> Restless(3).log_prob(torch.tensor([[0, 0, 0, 1]])).exp()
        tensor([[0.3333, 0.6914, 0.5761, 0.2741]])
    """

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.num_states = whole(type(self).__name__, "num_states", num_states, 1)

    def step_logits(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return unnormalised logits of p(z_t | z_{1:t-1}), ``(..., K)``, and the new state."""
        raise NotImplementedError

    def step(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[dist.Categorical, Any]:
        """Advance by one latent; see :meth:`Transition.step`."""
        logits, state = self.step_logits(z_prev, state, inputs)
        validate = None if logits.numel() else False  # torch's own check fails at an empty batch
        return dist.Categorical(logits=logits, validate_args=validate), state

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Logits of every step of a given path: ``(..., T)`` to ``(..., T, K)``."""
        state, shape = self.initial_state(z.shape[:-1]), (*z.shape[:-1], self.num_states)
        steps = self._along(self.step_logits, z, None, state, inputs)
        return torch.stack([logits.expand(shape) for logits, _ in steps], -2)

    def log_prob(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced log-probabilities, ``(..., T)``; see :meth:`Transition.log_prob`.

        :raises ValueError: if z are not int64 from 0 to K - 1, or the inputs do not fit.
        """
        self._check_path("log_prob", z, inputs)
        write = "z.clamp(min=0) where padding is -1, or encode the states as 0, 1, 2, ..."
        check_range(f"{type(self).__name__}.log_prob", "z", z, self.num_states, write)
        log_p = torch.log_softmax(self.path_logits(z, inputs), -1)
        return log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1)

    def stepper(self, inputs: Tensor | None = None) -> Stepper:
        """Return a step function that gives logits ``(N, K)``; see :meth:`Transition.stepper`."""
        self._check_inputs(f"{type(self).__name__}.stepper", inputs, ("T", "N"))

        @torch.no_grad()
        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Tensor, Any]:
            logits, state = self.step_logits(z_prev, state, None if inputs is None else inputs[t])
            return logits.detach(), state  # logits may be a parameter

        return step
