"""What transitions of all kinds must satisfy: the same probabilities from every method.

Next file to read: ``contract.py``, the kinds.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ..transitions import Transition, map_state

__all__ = ["Contract", "assert_close"]

TransitionT = TypeVar("TransitionT", bound=Transition)


class Contract(Generic[TransitionT]):
    """What all kinds of transition must satisfy."""

    T = 5
    #: the sizes that ``make`` is asked for
    size: ClassVar[int] = 3

    # ------------------------------------------------------------------- written by each kind

    def make(self, size: int) -> TransitionT:
        """Return a transition of that size; each kind has its own name for the argument."""
        raise NotImplementedError

    def draw(self, transition: TransitionT, shape: tuple[int, ...]) -> Tensor:
        """Return any paths, ``shape + (T,) + event_shape``."""
        raise NotImplementedError

    def score(self, given: Any, z: Tensor) -> Tensor:
        """Return log p(z) under logits or moments, which may broadcast against z."""
        raise NotImplementedError

    def step_parameters(self, transition: TransitionT, *args: Any) -> tuple[Any, Any]:
        """Return logits or moments, differentiable, and the state."""
        raise NotImplementedError

    def make_inputs(self, transition: TransitionT, shape: tuple[int, ...]) -> Tensor | None:
        """Return exogenous inputs ``shape + (T, input_size)``; ``None`` if there are none."""
        if not transition.input_size:
            return None
        return torch.randn(*shape, self.T, transition.input_size).to(transition.like)

    # -------------------------------------------------------------------------- probabilities

    def test_step_equals_fused_call(self) -> None:
        """Stepping and teacher forcing agree, over any leading dimensions."""
        transition = self._make()
        for shape in ((), (4,), (2, 3)):
            z, inputs = self._paths(transition, shape)
            stepped = self._step_through(transition, z, inputs)
            assert_close(stepped, transition.log_prob(z, inputs))

    def test_gradient_of_step_equals_that_of_fused_call(self) -> None:
        """Both have the same gradient, finite, and not 0 for all parameters."""
        transition = self._make()
        z, inputs = self._paths(transition, (4,))
        parameters = [p for p in transition.parameters() if p.requires_grad]
        if not parameters:
            return
        fused = torch.autograd.grad(transition.log_prob(z, inputs).sum(), parameters)
        stepped = torch.autograd.grad(self._step_through(transition, z, inputs).sum(), parameters)
        for gradient, expected in zip(fused, stepped, strict=True):
            assert gradient.isfinite().all()
            assert_close(gradient, expected, 1e-10)
        assert any(bool(gradient.any()) for gradient in fused)

    def test_stepper_equals_step(self) -> None:
        """The samplers' stepper over rows of particles gives the same probabilities."""
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            transition = self._make(dtype=dtype)
            z, inputs = self._paths(transition, (6,))
            out = self._stepper_through(transition, z, inputs)
            assert out.dtype == transition.like.dtype
            assert_close(out, transition.log_prob(z, inputs), tolerance)

    @torch.no_grad()
    def test_stepper_keeps_what_it_returned(self) -> None:
        """A step changes no tensor of another step: a state may be used twice."""
        for dtype in (torch.float64, torch.float32):
            transition = self._make(dtype=dtype)
            z, inputs = self._paths(transition, (6,))
            step, state = self._stepper(transition, inputs), transition.initial_state((6,))
            z_prev = None
            for t in range(self.T):
                taken = copy.deepcopy(state)
                given = step(z_prev, state, t)
                kept = copy.deepcopy(given)
                again, _ = step(z_prev, state, t)
                found, after = given
                now, then = (state, after, found, again), (taken, kept[1], kept[0], kept[0])
                pairs = zip(_tensors(now), _tensors(then), strict=True)
                assert all(torch.equal(*pair) for pair in pairs)
                state, z_prev = after, z[:, t]

    @torch.no_grad()
    def test_replay_equals_the_rest_of_a_path(self) -> None:
        """From the start, and from a stepper's state, in ``log_prob``'s layout; without dropout."""
        transition = self._make()
        z, inputs = self._paths(transition, (6,))
        expected = transition.log_prob(z, inputs)
        transition.train()
        step, state, z_prev = self._stepper(transition, inputs), None, None
        state = transition.initial_state((6,))
        assert_close(transition.replay(z, None, state, inputs), expected)
        assert_close(Transition.replay(transition, z, None, state, inputs), expected)
        for t in range(self.T - 1):
            _, state = step(z_prev, state, t)
            z_prev = z[:, t]
            rest = None if inputs is None else inputs[:, t + 1 :]
            found = transition.replay(z[:, t + 1 :], z_prev, state, rest)
            assert_close(found, expected[:, t + 1 :])

    @torch.no_grad()
    def test_state_is_of_tensors_with_the_batch_first(self) -> None:
        """A NamedTuple of tensors or of NamedTuples, of the same types after every step."""
        transition = self._make()
        for shape in ((), (4,), (2, 3)):
            z, inputs = self._paths(transition, shape)
            state, z_prev = transition.initial_state(shape), None
            kinds = _kinds(state)
            assert kinds == _kinds(map_state(torch.clone, state))
            for t in range(2):
                u = None if inputs is None else inputs[..., t, :]
                _, state = transition.step(z_prev, state, u)
                z_prev = z.select(len(shape), t)
                assert _kinds(state) == kinds
                assert all(s.shape[: len(shape)] == shape for s in _tensors(state))

    @torch.no_grad()
    def test_gathered_state_equals_recomputed_prefix(self) -> None:
        """The state is all that a particle remembers: its rows are gathered for the whole past."""
        transition = self._make()
        z, inputs = self._paths(transition, (6,))
        inputs = None if inputs is None else inputs[:1].expand(6, -1, -1)  # one sequence's
        step, state = self._stepper(transition, inputs), transition.initial_state((6,))
        cut, ancestors = self.T // 2, torch.tensor([3, 3, 0, 5, 1, 3], device=z.device)
        z_prev, scores = None, []
        for t in range(self.T):
            if t == cut:
                state = map_state(lambda s: s[ancestors], state)
                z = torch.cat([z[ancestors, :cut], z[:, cut:]], 1)
                z_prev = z[:, cut - 1]
            given, state = step(z_prev, state, t)
            scores.append(self.score(given, z[:, t]))
            z_prev = z[:, t]
        expected = transition.log_prob(z, inputs)[:, cut:]
        assert_close(torch.stack(scores[cut:], -1), expected)

    def test_batching_changes_nothing(self) -> None:
        """A path's log-probability does not depend on the others in the batch."""
        transition = self._make()
        z, inputs = self._paths(transition, (2, 3))
        together = transition.log_prob(z, inputs)
        assert together.shape == (2, 3, self.T)
        for i, j in itertools.product(range(2), range(3)):
            alone = transition.log_prob(z[i, j], None if inputs is None else inputs[i, j])
            assert_close(alone, together[i, j])

    def test_later_values_change_nothing(self) -> None:
        """p(z_t | z_{1:t-1}) does not see z_{t+1}."""
        transition = self._make()
        z, inputs = self._paths(transition, (4,))
        before = transition.log_prob(z, inputs)
        for t in range(1, self.T):
            other = torch.cat([z[:, :t], self.draw(transition, (4,))[:, t:]], 1)
            after = transition.log_prob(other, inputs)
            assert_close(after[:, :t], before[:, :t])

    # -------------------------------------------------------------------------- small sizes

    def test_small_sizes(self) -> None:
        """Size one, one step, no sequence at all."""
        for size in (1, self.size):
            transition = self._make(size)
            z, inputs = self._paths(transition, (4,))
            expected = transition.log_prob(z, inputs)
            assert_close(self._step_through(transition, z, inputs), expected)
            first = None if inputs is None else inputs[:, :1]
            assert_close(transition.log_prob(z[:, :1], first), expected[:, :1])
            z, inputs = self._paths(transition, (0,))
            assert transition.log_prob(z, inputs).shape == (0, self.T)
            assert self._stepper_through(transition, z, inputs).shape == (0, self.T)

    # -------------------------------------------------------------------------- as a module

    def test_dtype_and_device_are_those_of_like(self) -> None:
        """Whatever the defaults are; the meta device stands for any other than the default."""
        devices = ["cpu", "meta"] + ["cuda"] * torch.cuda.is_available()
        for device, dtype in itertools.product(devices, (torch.float32, torch.float64)):
            transition = self._make(dtype=dtype).to(device)
            like = transition.like
            assert like.shape == () and not like.requires_grad
            for own in itertools.chain(transition.parameters(), transition.buffers()):
                assert own.device == like.device and like.device.type == device
                assert like.dtype == dtype
            z, inputs = self._paths(transition, (4,))
            state = transition.initial_state((4,))
            first = None if inputs is None else inputs[:, 0]
            given = self.step_parameters(transition, None, state, first)
            for value in _tensors((transition.log_prob(z, inputs), state, given)):
                assert value.dtype == like.dtype or not value.is_floating_point()
                assert value.device == like.device

    def test_copies_are_equal(self) -> None:
        """By pickle, by deepcopy, by state_dict."""
        transition = self._make()
        z, inputs = self._paths(transition, (4,))
        loaded = self._make()
        loaded.load_state_dict(transition.state_dict())
        for twin in (pickle.loads(pickle.dumps(transition)), copy.deepcopy(transition), loaded):
            assert torch.equal(twin.log_prob(z, inputs), transition.log_prob(z, inputs))

    # -------------------------------------------------------------------------- parts

    def _make(self, size: int | None = None, dtype: torch.dtype = torch.float64) -> TransitionT:
        return self.make(self.size if size is None else size).to(dtype).eval()

    def _paths(
        self, transition: TransitionT, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor | None]:
        return self.draw(transition, shape), self.make_inputs(transition, shape)

    def _step_through(self, transition: TransitionT, z: Tensor, inputs: Tensor | None) -> Tensor:
        """Teacher-forced log-probabilities by :meth:`Transition.step`, ``(..., T)``."""
        time_dim = -1 - len(transition.event_shape)
        state, z_prev, scores = transition.initial_state(z.shape[:time_dim]), None, []
        for t in range(z.shape[time_dim]):
            u = None if inputs is None else inputs[..., t, :]
            p, state = transition.step(z_prev, state, u)
            z_prev = z.select(time_dim, t)
            scores.append(p.expand(z.shape[:time_dim]).log_prob(z_prev))
        return torch.stack(scores, -1)

    def _stepper(self, transition: TransitionT, inputs: Tensor | None) -> Any:
        return transition.stepper(None if inputs is None else inputs.transpose(0, 1))

    @torch.no_grad()
    def _stepper_through(self, transition: TransitionT, z: Tensor, inputs: Tensor | None) -> Tensor:
        """Teacher-forced log-probabilities of rows ``(N, T) + event_shape`` by the stepper."""
        step, state = self._stepper(transition, inputs), transition.initial_state(z.shape[:1])
        z_prev, scores = None, []
        for t in range(z.shape[1]):
            given, state = step(z_prev, state, t)
            z_prev = z[:, t]
            scores.append(self.score(given, z_prev))
        return torch.stack(scores, -1)


def _tensors(values: Any) -> list[Tensor]:
    """All tensors of nested tuples, in order."""
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)]


def _kinds(state: Any) -> Any:
    """The types of a state, nested as it is."""
    if isinstance(state, Tensor):
        return Tensor
    return type(state), [_kinds(part) for part in state]


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    """Assert that all numbers agree to an absolute tolerance."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)
