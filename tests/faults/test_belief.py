"""Reading networks as beliefs: each fault has its error, and changes nothing."""

import functools
import re

import pytest
import torch
from torch import nn

from pyro_ssl import belief as bf
from pyro_ssl import transitions as tr
from pyro_ssl.belief.filter import GateState
from tests.faults.digest import nothing_changes

NAN = float("nan")


@functools.cache  # made in a test, whose default dtype is float64
class World:
    """Networks and good arguments."""

    def __init__(self):
        self.lstm, self.gate = nn.LSTM(3, 4), bf.GateRNN(3, 2)
        self.states, self.chain = tr.LSTMTransition(3, 4), tr.MarkovTransition(2)
        self.x, self.s = torch.randn(5, 2, 3), torch.arange(10).view(5, 2) % 3
        self.n, self.points = torch.tensor([5, 2]), torch.randn(5, 2)
        self.M = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        self.O = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
        self.hmm = bf.ExtractedHMM(torch.ones(2) / 2, self.M, self.O)
        self.pomdp = bf.to_pomdp(self.gate)
        self.normal = tr.Moments(torch.zeros(2), torch.ones(2))

    @property
    def view(self):
        return bf.belief_view(self.lstm, self.x)


def view(x=None, state=None, source="lstm", **options):
    def call(w):
        given = w.x if x is None else x(w)
        return bf.belief_view(getattr(w, source), given, state and state(w), **options)

    return call


def hmm_of(words=None, lengths=None, **options):
    def call(w):
        given = w.s if words is None else words(w)
        return bf.to_hmm(w.lstm, given, lengths and lengths(w), **{"num_states": 2, **options})

    return call


def kmeans(points=None, num_clusters=2, **options):
    return lambda w: bf.kmeans(w.points if points is None else points(w), num_clusters, **options)


def memory(z=lambda w: w.s.T, **options):
    return lambda w: bf.memory_horizon(w.states, z=z(w), **{"max_lag": 2, **options})


def zeros(*shape):
    return torch.zeros(shape)


FAULTS = {
    "view list": (view(lambda w: w.x.tolist()), "inputs is a list, expected a Tensor"),
    "view numbers": (view(lambda w: w.x[0, 0]), r"expected \(T, B, 3\), or int64 symbols"),
    "view nan": (view(lambda w: w.x * NAN), "30 numbers of inputs are not finite"),
    "view symbols": (view(lambda w: w.s + 9), "found symbols from 9 to 11, expected 0 to 2"),
    "view int32": (view(lambda w: w.s.int()), "found torch.int32 inputs"),
    "view empty": (view(lambda w: w.x[:0]), "with a step and a sequence at least"),
    "view h alone": (view(state=lambda w: zeros(1, 2, 4)), r"state is a Tensor.*state=\(h, c\)"),
    "view word": (view(state=lambda w: "zero"), "state is a str"),
    "view B": (view(state=lambda w: (zeros(1, 3, 4),) * 2), r"shape \(1, 3, 4\), expected \(1, 2"),
    "view H": (view(state=lambda w: (zeros(1, 2, 5),) * 2), r"shape \(1, 2, 5\), expected \(1, 2"),
    "view c": (view(state=lambda w: (zeros(1, 2, 4), None)), "a tensor of state is a NoneType"),
    "gate state": (view(state=lambda w: zeros(2, 2), source="gate"), "state is a Tensor"),
    "gate B": (view(state=lambda w: GateState(zeros(3, 2)), source="gate"), r"expected \(2, 2\)"),
    "cell state": (view(lambda w: w.s.T, lambda w: "zero", "states"), "state is a str"),
    "layer 1": (view(layer=1), "layer is 1, expected one from 0 to 0"),
    "layer 0.0": (view(layer=0.0), "layer is 0.0"),
    "paths K": (view(lambda w: w.s.T + 3, source="states"), "z holds numbers from 3 to 5"),
    "paths float": (view(lambda w: w.s.T * 1.0, source="states"), "z is torch.float64"),
    "paths list": (view(lambda w: [1], source="states"), "inputs is a list"),
    "exogenous": (view(exogenous=1), "has no exogenous inputs; join them"),
    "gate": (lambda w: w.view.joint("candidate"), 'found no gate "candidate", expected one of'),
    "unit 99": (lambda w: w.view.joint("forget", [99]), r"found units=\[99\], expected .* 0 to 3"),
    "unit -1": (lambda w: w.view.joint("forget", [-1]), "a unit is -1"),
    "unit 1.5": (lambda w: w.view.joint("forget", [1.5]), "a unit is 1.5"),
    "unit twice": (lambda w: w.view.joint("forget", [1, 1]), "expected different numbers"),
    "no unit": (lambda w: w.view.joint("forget", []), "one at least; write units="),
    "units 1": (lambda w: w.view.joint("forget", 1), "found units=1"),
    "most 0": (lambda w: w.view.most_probable("forget", 0), "num_states is 0"),
    "most 99": (lambda w: w.view.most_probable("forget", 99), r"num_states is 99, expected from 1"),
    "most 1.5": (lambda w: w.view.most_probable("forget", 1.5), "num_states is 1.5"),
    "probs 1.5": (lambda w: bf.product_belief(torch.tensor([1.5])), "from 1.5 to 1.5, expected"),
    "probs -0.5": (lambda w: bf.product_belief(torch.tensor([-0.5])), "write probs.sigmoid"),
    "probs nan": (lambda w: bf.product_belief(torch.tensor([NAN])), "from nan to nan"),
    "probs list": (lambda w: bf.product_belief([0.1]), "probs is a list"),
    "probs number": (
        lambda w: bf.product_belief(torch.tensor(0.1)),
        r"shape \(\), expected \(\.\.\.",
    ),
    "most probs": (lambda w: bf.most_probable_states(torch.tensor([2.0]), 1), "from 2 to 2"),
    "bits -1": (lambda w: bf.joint_states(-1), "num_units is -1"),
    "bits 60": (lambda w: bf.joint_states(60), "num_units is 60, expected at most 24"),
    "bits 1.5": (lambda w: bf.joint_states(1.5), "num_units is 1.5"),
    "evidence": (
        lambda w: w.pomdp.kernel(zeros(3)),
        r"action has shape \(3,\), expected \(\.\.\., 2",
    ),
    "belief": (lambda w: w.pomdp.update(zeros(3), zeros(2)), r"belief has shape \(3,\)"),
    "belief 2": (lambda w: w.pomdp.update(zeros(2) + 2, zeros(2)), "from 2 to 2, expected probab"),
    "rollout V": (lambda w: w.pomdp.rollout(w.s + 9), "symbols holds numbers from 9 to 11"),
    "rollout -1": (lambda w: w.pomdp.rollout(w.s - 1), "symbols holds numbers from -1"),
    "rollout float": (lambda w: w.pomdp.rollout(w.s * 1.0), "symbols is torch.float64"),
    "rollout empty": (lambda w: w.pomdp.rollout(w.s[:0]), "with T at least 1"),
    "joint": (lambda w: w.pomdp.exact_update(zeros(3), zeros(2)), r"joint has shape \(3,\)"),
    "joint sum": (lambda w: w.pomdp.exact_update(zeros(4) + 1, zeros(2)), "rows that add up to 4"),
    "pomdp gate": (lambda w: bf.to_pomdp(w.lstm, "no"), 'found no gate "no"'),
    "hmm lengths": (lambda w: w.hmm.filter(w.s, w.n[:1]), r"lengths has shape \(1,\), expected"),
    "hmm lengths 9": (lambda w: w.hmm.filter(w.s, w.n + 9), "lengths holds numbers from 11 to 14"),
    "hmm float": (lambda w: w.hmm.filter(w.s * 1.0), "found torch.float64"),
    "hmm list": (lambda w: w.hmm.filter(w.s.tolist()), "words is a list"),
    "hmm V": (lambda w: w.hmm.log_prob(w.s + 1), "found symbols from 1 to 3"),
    "hmm nothing": (lambda w: w.hmm.perplexity(w.s, w.n * 0), "found no symbol"),
    "hmm T -1": (lambda w: w.hmm.distribution(-1), "num_steps is -1"),
    "hmm epochs": (lambda w: w.hmm.refine(w.s, num_epochs=1.5), "num_epochs is 1.5"),
    "hmm rows": (lambda w: bf.ExtractedHMM(w.M[0], w.M * 2, w.O), "matrix is no distribution"),
    "hmm list of rows": (lambda w: bf.FilterRNN(w.M.tolist(), w.O, None), "matrix is a list"),
    "hmm dtypes": (lambda w: bf.from_hmm(w.M, w.O.float()), "emission is torch.float32"),
    "hmm half": (lambda w: bf.from_hmm(w.M.half(), w.O.half()), "matrix is torch.float16"),
    "to_hmm K=0": (hmm_of(num_states=0), "num_clusters is 0"),
    "to_hmm K=99": (hmm_of(num_states=99), "found 10 points for num_clusters=99"),
    "to_hmm K=1.5": (hmm_of(num_states=1.5), "num_clusters is 1.5"),
    "to_hmm V=2": (hmm_of(num_symbols=2), "found symbols from 0 to 2, expected 0 to V - 1 = 1"),
    "to_hmm V=0": (hmm_of(num_symbols=0), "num_symbols is 0"),
    "to_hmm count": (hmm_of(pseudo_count=-9.0), "is no distribution"),
    "to_hmm weight": (hmm_of(symbol_weight=NAN), "numbers of points are not finite"),
    "to_hmm seed": (hmm_of(seed="a"), "seed is a, expected a whole number"),
    "to_hmm empty": (hmm_of(lambda w: w.s[:0]), "with a step at least"),
    "to_hmm list": (hmm_of(lambda w: w.s.tolist()), "words is a list"),
    "to_hmm nothing": (hmm_of(lengths=lambda w: w.n * 0), "found no symbol"),
    "to_hmm evidence": (lambda w: bf.to_hmm(w.gate, evidence=zeros(5)), r"action has shape \(5,\)"),
    "to_hmm emission": (lambda w: bf.to_hmm(w.chain, emission=torch.eye(3)), "with one row for"),
    "stationary": (lambda w: bf.stationary_distribution(w.O), r"matrix has shape \(2, 3\)"),
    "stationary rows": (lambda w: bf.stationary_distribution(2 * w.M), "add up to 2 to 2"),
    "kmeans nan": (kmeans(lambda w: w.points * NAN), "10 numbers of points are not finite"),
    "kmeans (N,)": (kmeans(lambda w: w.points[:, 0]), r"write points\[:, None\]"),
    "kmeans int": (kmeans(lambda w: w.s), "points is torch.int64"),
    "kmeans steps": (kmeans(num_iterations=-1), "num_iterations is -1"),
    "gap K": (lambda w: bf.linear_gap(torch.eye(3), torch.eye(3)), "found 3 states, expected 2"),
    "gap points": (lambda w: bf.linear_gap(w.M, w.O, num_points=0), "num_points is 0"),
    "gap y": (lambda w: bf.linear_gap(w.M, w.O, y=w.s + 9), "found symbols from 9"),
    "visited": (lambda w: bf.visited_states(w.lstm, w.x), "expected int64 symbols"),
    "visited V": (lambda w: bf.visited_states(w.lstm, w.s + 9), "found symbols from 9"),
    "visited GRU": (lambda w: bf.visited_states(nn.Linear, w.s), "expected a LanguageModel"),
    "threshold": (lambda w: bf.dependency_graph(w.lstm, threshold=NAN), "threshold is nan"),
    "memory K": (memory(lambda w: w.s.T + 1), "z holds numbers from 1 to 3"),
    "memory float": (memory(lambda w: w.s.T * 1.0), "z is torch.float64"),
    "memory short": (memory(lambda w: w.s.T[:, :2]), "expected at least one of 3 steps"),
    "memory lag": (memory(max_lag=0), "max_lag is 0"),
    "memory lengths": (memory(lengths=torch.tensor([9, 9])), "lengths holds numbers from 9"),
    "memory places": (memory(num_positions=1.5), "num_positions is 1.5"),
    "memory changes": (memory(num_changes=3), "num_changes is 3, expected from 1 to K - 1 = 2"),
    "variation D": (
        lambda w: bf.gaussian_total_variation(w.normal, tr.Moments(zeros(3), zeros(3) + 1)),
        r"q.mean has shape \(3,\), expected \(2,\)",
    ),
    "variation scale": (
        lambda w: bf.gaussian_total_variation(w.normal, tr.Moments(zeros(2), zeros(2) - 1)),
        "q.scale holds numbers that are not positive",
    ),
}


@pytest.mark.parametrize("call, told", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_and_changes_nothing(call, told):
    w = World()
    for _ in range(2):
        with nothing_changes(modules=[w.lstm, w.gate, w.states, w.chain]):
            with pytest.raises((ValueError, TypeError), match=told) as caught:
                call(w)
    assert re.search("expected|write", str(caught.value))


@pytest.mark.parametrize("call", [view(), hmm_of(), kmeans(), memory()])
def test_without_a_fault_it_works(call):
    call(World())


def test_symbols_past_the_lengths_are_no_symbols():
    """V is one more than the largest that is one."""
    w = World()
    words = w.s.clone()
    words[2:, 1] = 10**6
    assert bf.to_hmm(w.lstm, words, w.n, num_states=2).num_symbols == 3
