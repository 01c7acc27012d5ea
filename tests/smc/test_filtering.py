"""The filter has the draws of the sweep, keeps no history, and goes on where it ended.

Nothing here is a matter of chance: two filters of one seed are the same to the last bit, or not.
"""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_ssl import GaussianLSTMTransition, LSTMTransition, MarkovTransition, kernels
from pyro_ssl.smc import (
    QuadraticEmission,
    TableEmission,
    conditional_smc,
    filter_smc,
    filtering,
    randomness,
    sweep,
)
from pyro_ssl.transitions import LinearGaussianTransition, MultiplicativeLSTMTransition
from tests.statistics import covering_list

T, B, K, D = 11, 3, 4, 2

TRANSITIONS = {
    "lstm": lambda inputs: LSTMTransition(K, 5, input_size=inputs),
    "mlstm": lambda inputs: MultiplicativeLSTMTransition(K, 5, input_size=inputs),
    "markov": lambda inputs: MarkovTransition(K),
    "vectors": lambda inputs: GaussianLSTMTransition(D, 5, input_size=inputs),
    "increments": lambda inputs: GaussianLSTMTransition(
        D, 5, input_size=inputs, residual=True, reads="increments"
    ),
    "chain": lambda inputs: LinearGaussianTransition(D),
}
FACTORS = {
    "transition": tuple(TRANSITIONS),
    "P": (1, 6),
    "resampling": ("systematic", "multinomial"),
    "twist": (False, True),
    "ragged": (False, True),
    "scaled": (False, True),
    "inputs": (False, True),
    "dtype": (torch.float32, torch.float64),
    "compiled": (True, False),
}
NO_INPUTS = ("markov", "chain")
PAIRS = covering_list(
    FACTORS, lambda case: not (case.get("inputs") and case.get("transition") in NO_INPUTS), 40
)


@pytest.fixture
def short_blocks(monkeypatch):
    """Blocks of 4 steps."""
    for module in (filtering, randomness, sweep):
        monkeypatch.setattr(module, "BLOCK", 4)


def problem(case):
    torch.manual_seed(1)
    transition = TRANSITIONS[case["transition"]](2 if case["inputs"] else 0)
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter.normal_()
    states = case["transition"] in ("lstm", "mlstm", "markov")
    emission, twist = (table() if states else quadratic() for _ in range(2))
    given = {"resampling": case["resampling"], "seed": 3}
    if case["twist"]:
        given["twist"] = twist
    if case["ragged"]:
        given["lengths"] = torch.tensor([T, 6, 0])
    if case["scaled"]:
        given["transition_scale"] = torch.rand(B) + 0.5
    if case["inputs"]:
        given["inputs"] = torch.randn(T, B, 2)
    return transition, emission, given


def table():
    return TableEmission(2.0 * torch.randn(T, B, K))


def quadratic():
    root = 0.4 * torch.randn(T, B, D, D)
    center, linear = torch.randn(T, B, D), torch.randn(T, B, D)
    return QuadraticEmission(center, torch.randn(T, B), linear, root @ root.mT)


def halves(emission, given, cut):
    """The arguments of the first steps, and of the others."""
    parts = list(emission.split(cut))
    first, rest = dict(given), dict(given)
    if "twist" in given:
        first["twist"], rest["twist"] = given["twist"].split(cut)
    if "lengths" in given:
        first["lengths"] = given["lengths"].clamp(max=cut)
        rest["lengths"] = (given["lengths"] - cut).clamp(min=0)
    if "inputs" in given:
        first["inputs"], rest["inputs"] = given["inputs"][:cut], given["inputs"][cut:]
    return parts, first, rest


def leaves(state):
    if isinstance(state, tuple):
        return [leaf for part in state for leaf in leaves(part)]
    return [] if state is None else [state]


@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_it_has_the_draws_of_the_sweep_in_any_parts(case, short_blocks, monkeypatch):
    if not case["compiled"]:
        monkeypatch.setattr(kernels.loading, "_turned_off", True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(case["dtype"])
    transition, emission, given = problem(case)
    P = case["P"]
    whole = conditional_smc(transition, emission, P, **given)
    found = filter_smc(transition, emission, P, **given)
    assert torch.equal(found.log_likelihood, whole.log_likelihood)
    for cut in (1, 6):
        (now, later), first, rest = halves(emission, given, cut)
        begun = filter_smc(transition, now, P, **first)
        ended = filter_smc(transition, later, P, start=begun.standing, first_step=cut, **rest)
        both = torch.cat([begun.log_likelihood, ended.log_likelihood])
        assert torch.equal(both, whole.log_likelihood)
        if not case["ragged"]:
            assert torch.equal(ended.standing.z, whole.z[-1])
            pairs = zip(leaves(ended.standing.state), leaves(whole.state), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    torch.set_default_dtype(before)


class Live(TorchDispatchMode):
    """Bytes of the tensors made within that live at a time, at most: by their memory, once each."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.held = 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = {id_of(a) for a in args if isinstance(a, torch.Tensor)} - self.held.keys()
        for value in found if isinstance(found, list | tuple) else (found,):
            if isinstance(value, torch.Tensor) and id_of(value) not in given:
                self.hold(value)
        self.peak = max(self.peak, self.now)
        return found

    def hold(self, value):
        key, size = id_of(value), value.untyped_storage().nbytes()
        count = self.held.get(key, 0)
        self.held[key] = count + 1
        self.now += 0 if count else size
        weakref.finalize(value, self.drop, key, size)

    def drop(self, key, size):
        self.held[key] -= 1
        if not self.held[key]:
            del self.held[key]
            self.now -= size


def id_of(value):
    return value.untyped_storage()._cdata


def peak_of(run, num_steps, transition, P):
    table = torch.zeros(num_steps, 2, 3)
    with Live() as live:
        kept = run(transition, TableEmission(table), P, seed=0)
    del kept
    return live.peak


@pytest.mark.stage("system")
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_memory_for_particles_does_not_grow_with_the_steps(
    compiled, resampling, short_blocks, monkeypatch
):
    """Four times the steps, and the same but for one number of each step and sequence."""
    if not compiled:
        monkeypatch.setattr(kernels.loading, "_turned_off", True)
    torch.set_default_dtype(torch.float32)
    transition, P = LSTMTransition(3, 4), 50

    def filtered(*args, **kwargs):
        return filter_smc(*args, resampling=resampling, **kwargs)

    few, many = (peak_of(filtered, n, transition, P) for n in (16, 64))
    of_scores = 8 * 2 * 48  # float64 (T, B)
    assert many - few <= 3 * of_scores
    history = [peak_of(conditional_smc, n, transition, P) for n in (16, 64)]
    assert history[1] - history[0] >= P * of_scores
