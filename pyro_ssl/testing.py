"""Tests for your own models and transitions: is the sampler exact, does a transition keep its word.

:func:`invariance_test` needs no oracle: it starts one sweep at exact posterior draws, made by
enumerating all paths, and asks whether the sweep ends at exact posterior draws. There is no burn-in
and no autocorrelation, so with 100,000 replicates small errors show.
:class:`TransitionContract` is a pytest class that every :class:`~pyro_ssl.transitions.Transition`
must pass; inherit it in the tests of your own.
"""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from .infer.estep import SMCSettings, check_placement, draw_paths
from .infer.exact import Enumeration, enumerate_paths
from .infer.program import ModelRun, check_emission_is_local, run_model
from .transitions import DiscreteTransition
from .transitions.base import Stepper

__all__ = ["InvarianceResult", "TransitionContract", "invariance_test"]

#: an enumeration of more paths than this has too few replicates in each cell to say anything
MAX_PATHS = 10_000
#: rows of particles that are swept at a time
MAX_ROWS = 2**16


class InvarianceResult(NamedTuple):
    """What :func:`invariance_test` found.

    ``p_value`` of the hypothesis that the sweep leaves the posterior invariant; ``statistic`` and
    ``num_degrees`` the chi-square statistic behind it and its degrees of freedom.
    ``change_rate`` ``(T, B)`` is how often z_t changed in the sweep, and ``independent_rate`` how
    often it would between two independent posterior draws; both are 0 past a sequence's length.
    """

    p_value: float
    statistic: float
    num_degrees: int
    change_rate: Tensor
    independent_rate: Tensor


@torch.no_grad()
@poutine.block()
def invariance_test(
    model: Callable[..., Any],
    *args: Any,
    num_particles: int = 3,
    num_replicates: int = 100_000,
    resampling: str = "systematic",
    ancestor_sampling: int = 1,
    seed: int = 0,
    **kwargs: Any,
) -> InvarianceResult:
    r"""Test that one conditional sweep leaves the exact posterior of a small model invariant.

    For each sequence: enumerate its K\ :sup:`T` paths, draw ``num_replicates`` of them from their
    exact posterior, make *one* sweep from each, and compare the law of the results with the
    posterior (chi-square). Latent sites other than the path are drawn once from their prior, and
    kept. Give few particles, 2 or 3: that is where errors show.

    If all is right, the p-value is uniform: below 0.01 once in a hundred seeds. So ask for
    ``p_value > 1e-6``, and never repeat a test until it passes.

    Invariance alone is no proof: a sampler that returns its reference passes. Look at
    ``change_rate`` too; where it is far below ``independent_rate``, the chain hardly moves.

    :param model: a Pyro model with one ``ssl_transition``; further arguments go to it.
    :param int num_particles: P.
    :param int num_replicates: sweeps for each sequence.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param int ancestor_sampling: redraw the reference's ancestor every so many steps; 0: never.
    :param int seed: of all draws; the state of the caller's generators is left as it was.
    :raises ValueError: if there are too many paths to enumerate.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ssl_transition
        >>> transition = LSTMTransition(num_states=2, hidden_size=3)
        >>> def model(x):                                                     # (T, B)
        ...     with pyro.plate("sequences", x.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(x)):
        ...             pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x[t])
        >>> result = invariance_test(model, torch.randn(3, 2), num_replicates=1000)
        >>> result.p_value > 1e-6
        True
        >>> result.change_rate.shape
        torch.Size([3, 2])
    """
    settings = SMCSettings(num_particles, resampling, ancestor_sampling)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        run = run_model(model, args, kwargs)
        table = run.grid.table()
        check_placement(run, table)
        check_emission_is_local(model, args, kwargs, run, table)
        exact = _enumerate(run, table)
        return _replicate(run, table, exact, settings, num_replicates)


def _enumerate(run: ModelRun, table: Tensor) -> Enumeration:
    """All paths of each sequence, by the law that the sweep should have."""
    transition = run.transition
    assert isinstance(transition, DiscreteTransition)
    T, _, K = table.shape
    if K**T > MAX_PATHS:
        raise ValueError(
            f'Site "{run.loop.name}": K^T = {K}^{T} paths are too many to compare the law of, '
            f"expected at most {MAX_PATHS}; test the same model with fewer states, or on its "
            f"first {int(math.log(MAX_PATHS, K))} steps."
        )
    prior = enumerate_paths(
        transition, torch.zeros_like(table), inputs=run.inputs, lengths=run.grid.lengths
    )
    log_prior, scale = prior.log_joint, run.grid.transition_scale  # (B, N)
    if scale is not None:
        log_prior = torch.where(log_prior == -torch.inf, log_prior, log_prior * scale[:, None])
    steps = torch.arange(T, device=table.device)
    if run.grid.lengths is not None:
        table = table.masked_fill((steps[:, None] >= run.grid.lengths).unsqueeze(-1), 0.0)
    return Enumeration(prior.paths, log_prior + table[steps, :, prior.paths].sum(1).T)


def _replicate(
    run: ModelRun, table: Tensor, exact: Enumeration, settings: SMCSettings, num_replicates: int
) -> InvarianceResult:
    T, B, _ = table.shape
    posterior = exact.posterior.double()  # (B, N)
    counts = torch.zeros_like(posterior)
    changed = torch.zeros(T, B, dtype=torch.float64, device=table.device)
    # At least ten sweeps, since a sweep draws one schedule of ancestor sampling for all replicates.
    chunk = max(1, min(MAX_ROWS // max(B * settings.num_particles, 1), num_replicates // 10))
    for start in range(0, num_replicates, chunk):
        n = min(chunk, num_replicates - start)
        index = torch.multinomial(posterior, n, replacement=True)  # (B, n)
        reference = exact.paths[index.T].flatten(0, 1).T.contiguous()  # (T, n B)
        _, path = draw_paths(run, table.repeat(1, n, 1), reference, settings, num_chains=n)
        changed += (path != reference).unflatten(1, (n, B)).double().sum(1)
        index = exact.index(path.T.unflatten(0, (n, B))).T
        counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype))
    tests = [_chi_square(n, p) for n, p in zip(counts, posterior, strict=True)]
    statistic, degrees = sum(s for s, _ in tests), sum(d for _, d in tests)
    return InvarianceResult(
        _chi_square_tail(statistic, degrees),
        statistic,
        degrees,
        changed / num_replicates,
        _independent_rate(exact, table.shape[-1]),
    )


def _chi_square(counts: Tensor, law: Tensor, smallest: float = 10.0) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; inf where the impossible was seen.

    Cells expected fewer than ``smallest`` times are pooled, and with the next one if even the pool
    is expected fewer times: so the tail of chi-square holds far out.
    """
    if bool((counts[law == 0] > 0).any()):
        return torch.inf, 1
    law, order = law.sort(descending=True)
    counts, expected = counts[order], counts.sum() * law
    num_alone = int((expected >= smallest).sum())
    if num_alone < len(law) and expected[num_alone:].sum() < smallest:
        num_alone = max(num_alone - 1, 0)
    expected = torch.cat([expected[:num_alone], expected[num_alone:].sum(0, keepdim=True)])
    counts = torch.cat([counts[:num_alone], counts[num_alone:].sum(0, keepdim=True)])
    cells = expected > 0
    statistic = ((counts - expected).square() / expected)[cells].sum()
    return statistic.item(), max(int(cells.sum()) - 1, 0)


def _chi_square_tail(statistic: float, degrees: int) -> float:
    if degrees == 0 or statistic == torch.inf:
        return float(statistic != torch.inf)
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64, device="cpu")
    return torch.special.gammaincc(half[0], half[1]).item()


def _independent_rate(exact: Enumeration, K: int) -> Tensor:
    """1 - Σ_k p(z_t = k | x)², ``(T, B)``."""
    one_hot = torch.nn.functional.one_hot(exact.paths, K).to(exact.posterior.dtype)  # (N, T, K)
    marginal = torch.einsum("bn,ntk->tbk", exact.posterior, one_hot)
    return 1.0 - marginal.square().sum(-1)


class TransitionContract:
    """What every discrete transition must keep; inherit it in a pytest module.

    Subclass it with a name that pytest collects, and say how to make the transition::

        class TestMyTransition(TransitionContract):
            def make(self, num_states=3):
                return MyTransition(num_states)

    It reads exogenous inputs, of ``input_size`` numbers a step, if the transition does.
    """

    T = 5

    def make(self, num_states: int = 3) -> DiscreteTransition:
        """Return a transition with random parameters, in the default dtype; override this."""
        raise NotImplementedError

    def make_inputs(self, transition: DiscreteTransition, shape: tuple[int, ...]) -> Tensor | None:
        """Return exogenous inputs ``shape + (T, input_size)``; ``None`` if there are none."""
        if not transition.input_size:
            return None
        return torch.randn(*shape, self.T, transition.input_size).to(_like(transition))

    # -------------------------------------------------------------------------- what is the same

    def test_step_equals_fused_call(self) -> None:
        """Stepping and teacher forcing give one law, over any leading dimensions."""
        transition = self._make()
        for shape in ((), (4,), (2, 3)):
            z, inputs = self._paths(transition, shape)
            stepped = _step_through(transition, z, inputs)
            _assert_close(stepped, transition.log_prob(z, inputs))

    def test_gradient_of_step_equals_that_of_fused_call(self) -> None:
        """Both ways of scoring teach the same; every parameter is reached, by finite numbers."""
        transition = self._make()
        z, inputs = self._paths(transition, (4,))
        parameters = [p for p in transition.parameters() if p.requires_grad]
        if not parameters:
            return
        fused = torch.autograd.grad(transition.log_prob(z, inputs).sum(), parameters)
        stepped = torch.autograd.grad(_step_through(transition, z, inputs).sum(), parameters)
        for gradient, expected in zip(fused, stepped, strict=True):
            assert gradient.isfinite().all()
            _assert_close(gradient, expected, 1e-10)
        assert any(bool(gradient.any()) for gradient in fused)

    def test_stepper_equals_step(self) -> None:
        """The samplers' stepper over rows of particles gives the same law."""
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            transition = self._make(dtype=dtype)
            z, inputs = self._paths(transition, (6,))
            out = _stepper_through(transition, z, inputs)
            assert out.dtype == dtype
            _assert_close(out, transition.log_prob(z, inputs), tolerance)

    @torch.no_grad()
    def test_stepper_keeps_what_it_returned(self) -> None:
        """A step changes nothing that an earlier one took or gave: the state may be used again."""
        for dtype in (torch.float64, torch.float32):
            transition = self._make(dtype=dtype)
            z, inputs = self._paths(transition, (6,))
            step, state = _stepper(transition, inputs), transition.initial_state((6,))
            z_prev = None
            for t in range(self.T):
                taken = copy.deepcopy(state)
                given = step(z_prev, state, t)
                kept = copy.deepcopy(given)
                again, _ = step(z_prev, state, t)
                logits, after = given
                now, then = (*state, *after, logits, again), (*taken, *kept[1], kept[0], kept[0])
                assert all(torch.equal(*pair) for pair in zip(now, then, strict=True))
                state, z_prev = after, z[:, t]

    @torch.no_grad()
    def test_gathered_state_equals_recomputed_prefix(self) -> None:
        """The state is all that a particle remembers: gather it, and its past is gathered."""
        transition = self._make()
        z, inputs = self._paths(transition, (6,))
        inputs = None if inputs is None else inputs[:1].expand(6, -1, -1)  # one sequence's
        step, state = _stepper(transition, inputs), transition.initial_state((6,))
        cut, ancestors = self.T // 2, torch.tensor([3, 3, 0, 5, 1, 3], device=z.device)
        z_prev, scores = None, []
        for t in range(self.T):
            if t == cut:
                state = type(state)(*(value[ancestors] for value in state))
                z = torch.cat([z[ancestors, :cut], z[:, cut:]], 1)
                z_prev = z[:, cut - 1]
            logits, state = step(z_prev, state, t)
            scores.append(_score(logits, z[:, t]))
            z_prev = z[:, t]
        expected = transition.log_prob(z, inputs)[:, cut:]
        _assert_close(torch.stack(scores[cut:], -1), expected)

    def test_batching_changes_nothing(self) -> None:
        """A path's log-probability is its own, whatever stands beside it."""
        transition = self._make()
        z, inputs = self._paths(transition, (2, 3))
        together = transition.log_prob(z, inputs)
        assert together.shape == z.shape
        for i, j in itertools.product(range(2), range(3)):
            alone = transition.log_prob(z[i, j], None if inputs is None else inputs[i, j])
            _assert_close(alone, together[i, j])

    def test_later_values_change_nothing(self) -> None:
        """p(z_t | z_{1:t-1}) does not see z_{t+1}."""
        transition = self._make()
        z, inputs = self._paths(transition, (4,))
        before = transition.log_prob(z, inputs)
        for t in range(1, self.T):
            other = torch.cat([z[:, :t], torch.randint_like(z[:, t:], transition.num_states)], 1)
            after = transition.log_prob(other, inputs)
            _assert_close(after[:, :t], before[:, :t])

    # -------------------------------------------------------------------------- what is a law

    def test_normalised(self) -> None:
        """The probabilities of all K^T paths sum to 1."""
        transition = self._make()
        states = [range(transition.num_states)] * self.T
        z = torch.tensor(list(itertools.product(*states)))
        inputs = self.make_inputs(transition, ())
        inputs = None if inputs is None else inputs.expand(len(z), -1, -1)
        total = transition.log_prob(z, inputs).sum(-1).exp().sum()
        _assert_close(total, torch.ones_like(total), 1e-10)

    def test_small_sizes(self) -> None:
        """One state, one step, no sequence at all."""
        transition = self._make(num_states=1)
        z, inputs = self._paths(transition, (4,))
        assert not transition.log_prob(z, inputs).any()
        transition = self._make()
        z, inputs = self._paths(transition, (4,))
        first = None if inputs is None else inputs[:, :1]
        _assert_close(transition.log_prob(z[:, :1], first), transition.log_prob(z, inputs)[:, :1])
        z, inputs = self._paths(transition, (0,))
        assert transition.log_prob(z, inputs).shape == (0, self.T)
        assert _stepper_through(transition, z, inputs).shape == (0, self.T)

    # -------------------------------------------------------------------------- what is a module

    def test_dtype_and_device_follow_the_parameters(self) -> None:
        """Whatever the defaults are; the meta device stands for one that is not the default."""
        devices = ["cpu", "meta"] + ["cuda"] * torch.cuda.is_available()
        for device, dtype in itertools.product(devices, (torch.float32, torch.float64)):
            transition = self._make(dtype=dtype).to(device)
            z, inputs = self._paths(transition, (4,))
            state = transition.initial_state((4,))
            first = None if inputs is None else inputs[:, 0]
            logits, after = transition.step_logits(None, state, first)
            for value in (transition.log_prob(z, inputs), logits, *state, *after):
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

    def _make(self, num_states: int = 3, dtype: torch.dtype = torch.float64) -> DiscreteTransition:
        return self.make(num_states).to(dtype).eval()

    def _paths(
        self, transition: DiscreteTransition, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor | None]:
        device = _like(transition).device
        z = torch.randint(transition.num_states, (*shape, self.T), device=device)
        return z, self.make_inputs(transition, shape)


def _like(transition: DiscreteTransition) -> Tensor:
    """A tensor on the device and of the dtype that the transition has."""
    return next(itertools.chain(transition.parameters(), transition.buffers()))


def _assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


def _score(logits: Tensor, z: Tensor) -> Tensor:
    """log p(z) under logits that broadcast against it."""
    log_p = logits.log_softmax(-1).expand(*z.shape, -1)
    return log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1)


def _step_through(transition: DiscreteTransition, z: Tensor, inputs: Tensor | None) -> Tensor:
    """Teacher-forced log-probabilities by :meth:`Transition.step`, ``(..., T)``."""
    state, z_prev, scores = transition.initial_state(z.shape[:-1]), None, []
    for t in range(z.shape[-1]):
        law, state = transition.step(z_prev, state, None if inputs is None else inputs[..., t, :])
        z_prev = z[..., t]
        scores.append(law.expand(z_prev.shape).log_prob(z_prev))
    return torch.stack(scores, -1)


def _stepper(transition: DiscreteTransition, inputs: Tensor | None) -> Stepper:
    return transition.stepper(None if inputs is None else inputs.transpose(0, 1))


@torch.no_grad()
def _stepper_through(transition: DiscreteTransition, z: Tensor, inputs: Tensor | None) -> Tensor:
    """Teacher-forced log-probabilities of rows ``(N, T)`` by the samplers' stepper."""
    step, state = _stepper(transition, inputs), transition.initial_state(z.shape[:1])
    z_prev, scores = None, []
    for t in range(z.shape[1]):
        logits, state = step(z_prev, state, t)
        z_prev = z[:, t]
        scores.append(_score(logits, z_prev))
    return torch.stack(scores, -1)
