"""What transitions of all kinds must keep: one law, however it is asked for.

Next file to read: ``contract.py``, the kinds.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ..transitions import Transition

__all__ = ["Contract", "assert_close", "like"]

TransitionT = TypeVar("TransitionT", bound=Transition)


class Contract(Generic[TransitionT]):
    """What all kinds of transition must keep."""

    T = 5
    #: the sizes that ``make`` is asked for
    size: ClassVar[int] = 3

    # -------------------------------------------------------------------------- what a kind says

    def make(self, size: int) -> TransitionT:
        """Return a transition of a size; kinds name the argument after their own."""
        raise NotImplementedError

    def draw(self, transition: TransitionT, shape: tuple[int, ...]) -> Tensor:
        """Return any paths, ``shape + (T,) + event_shape``."""
        raise NotImplementedError

    def score(self, law: Any, z: Tensor) -> Tensor:
        """Return log p(z) under what a stepper returned; it may broadcast against z."""
        raise NotImplementedError

    def step_law(self, transition: TransitionT, *args: Any) -> tuple[Any, Any]:
        """Return what a stepper would, differentiable: logits or moments, and the state."""
        raise NotImplementedError

    def stepper(self, transition: TransitionT, inputs: Tensor | None) -> Any:
        """Return the samplers' step function."""
        raise NotImplementedError

    def make_inputs(self, transition: TransitionT, shape: tuple[int, ...]) -> Tensor | None:
        """Return exogenous inputs ``shape + (T, input_size)``; ``None`` if there are none."""
        if not transition.input_size:
            return None
        return torch.randn(*shape, self.T, transition.input_size).to(like(transition))

    # -------------------------------------------------------------------------- what is the same

    def test_step_equals_fused_call(self) -> None:
        """Stepping and teacher forcing give one law, over any leading dimensions."""
        transition = self._make()
        for shape in ((), (4,), (2, 3)):
            z, inputs = self._paths(transition, shape)
            stepped = self._step_through(transition, z, inputs)
            assert_close(stepped, transition.log_prob(z, inputs))

    def test_gradient_of_step_equals_that_of_fused_call(self) -> None:
        """Both ways of scoring teach the same; every parameter is reached, by finite numbers."""
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
        """The samplers' stepper over rows of particles gives the same law."""
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            transition = self._make(dtype=dtype)
            z, inputs = self._paths(transition, (6,))
            out = self._stepper_through(transition, z, inputs)
            assert out.dtype == dtype
            assert_close(out, transition.log_prob(z, inputs), tolerance)

    @torch.no_grad()
    def test_stepper_keeps_what_it_returned(self) -> None:
        """A step changes nothing that an earlier one took or gave: the state may be used again."""
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
                law, after = given
                now, then = (state, after, law, again), (taken, kept[1], kept[0], kept[0])
                pairs = zip(_tensors(now), _tensors(then), strict=True)
                assert all(torch.equal(*pair) for pair in pairs)
                state, z_prev = after, z[:, t]

    @torch.no_grad()
    def test_replay_equals_the_rest_of_a_path(self) -> None:
        """From the start, and from where a stepper is; without dropout."""
        transition = self._make()
        z, inputs = self._paths(transition, (6,))
        expected, time_first = transition.log_prob(z, inputs).T, z.transpose(0, 1)
        u = None if inputs is None else inputs.transpose(0, 1)
        transition.train()
        step, state, z_prev = self._stepper(transition, inputs), None, None
        state = transition.initial_state((6,))
        assert_close(transition.replay(time_first, None, state, u), expected)
        for t in range(self.T - 1):
            _, state = step(z_prev, state, t)
            z_prev = time_first[t]
            rest = None if u is None else u[t + 1 :]
            restored = transition.restore(state)
            found = transition.replay(time_first[t + 1 :], z_prev, restored, rest)
            assert_close(found, expected[t + 1 :])

    @torch.no_grad()
    def test_gathered_state_equals_recomputed_prefix(self) -> None:
        """The state is all that a particle remembers: gather it, and its past is gathered."""
        transition = self._make()
        z, inputs = self._paths(transition, (6,))
        inputs = None if inputs is None else inputs[:1].expand(6, -1, -1)  # one sequence's
        step, state = self._stepper(transition, inputs), transition.initial_state((6,))
        cut, ancestors = self.T // 2, torch.tensor([3, 3, 0, 5, 1, 3], device=z.device)
        z_prev, scores = None, []
        for t in range(self.T):
            if t == cut:
                state = type(state)(*(value[ancestors] for value in state))
                z = torch.cat([z[ancestors, :cut], z[:, cut:]], 1)
                z_prev = z[:, cut - 1]
            law, state = step(z_prev, state, t)
            scores.append(self.score(law, z[:, t]))
            z_prev = z[:, t]
        expected = transition.log_prob(z, inputs)[:, cut:]
        assert_close(torch.stack(scores[cut:], -1), expected)

    def test_batching_changes_nothing(self) -> None:
        """A path's log-probability is its own, whatever stands beside it."""
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

    # -------------------------------------------------------------------------- what is a module

    def test_dtype_and_device_follow_the_parameters(self) -> None:
        """Whatever the defaults are; the meta device stands for one that is not the default."""
        devices = ["cpu", "meta"] + ["cuda"] * torch.cuda.is_available()
        for device, dtype in itertools.product(devices, (torch.float32, torch.float64)):
            transition = self._make(dtype=dtype).to(device)
            z, inputs = self._paths(transition, (4,))
            state = transition.initial_state((4,))
            first = None if inputs is None else inputs[:, 0]
            given = self.step_law(transition, None, state, first)
            for value in _tensors((transition.log_prob(z, inputs), state, given)):
                assert value.dtype == dtype and value.device.type == device

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
            law, state = transition.step(z_prev, state, u)
            z_prev = z.select(time_dim, t)
            scores.append(law.expand(z.shape[:time_dim]).log_prob(z_prev))
        return torch.stack(scores, -1)

    def _stepper(self, transition: TransitionT, inputs: Tensor | None) -> Any:
        return self.stepper(transition, None if inputs is None else inputs.transpose(0, 1))

    @torch.no_grad()
    def _stepper_through(self, transition: TransitionT, z: Tensor, inputs: Tensor | None) -> Tensor:
        """Teacher-forced log-probabilities of rows ``(N, T) + event_shape`` by the stepper."""
        step, state = self._stepper(transition, inputs), transition.initial_state(z.shape[:1])
        z_prev, scores = None, []
        for t in range(z.shape[1]):
            law, state = step(z_prev, state, t)
            z_prev = z[:, t]
            scores.append(self.score(law, z_prev))
        return torch.stack(scores, -1)


def like(transition: Transition) -> Tensor:
    """A tensor on the device and of the dtype that the transition has."""
    return next(itertools.chain(transition.parameters(), transition.buffers()))


def _tensors(values: Any) -> list[Tensor]:
    """All tensors of nested tuples, in order."""
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)]


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    """Assert that all numbers agree to an absolute tolerance."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)
