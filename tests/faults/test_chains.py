"""Several chains and labels, spoilt in one place: a named error, and nothing changed.

Each call is made twice with the fault, between which and after which generators, Pyro's state, the
store and all objects are as they were; then without it. Nothing is a matter of chance.
"""

import copy
import re
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.optim import Adam

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import SSLError
from pyro_ssl.testing import invariance_test
from tests.faults.digest import digest, same
from tests.faults.world import attempt

T, B, P = 3, 2, 2


def right():
    """All parts of a model, that is right."""
    return SimpleNamespace(
        chains={"a": LSTMTransition(2, 3, input_size=1), "b": MarkovTransition(3)},
        T=T,
        x=torch.randn(T, B),
        loop={
            "inputs": torch.randn(T, B, 1),
            "lengths": torch.tensor([3, 2]),
            "obs": {"b": torch.tensor([[0, -1], [2, 1], [-1, 1]])},
            "obs_mask": {"b": torch.tensor([[1, 0], [1, 1], [0, 1]]).bool()},
        },
        statement=lambda w: ssl_transition(w.chains, w.T, **w.loop),
        body=lambda w, t, z: pyro.sample("x", dist.Normal(z[0] - z[1] * 1.0, 1.0), obs=w.x[t]),
        handler=None,
    )


def model_of(w):
    def model():
        for name, transition in w.chains.items():
            if isinstance(transition, torch.nn.Module):
                pyro.module(name, transition)
        with pyro.plate("sequences", B), w.handler or poutine.scale(scale=1.0):
            for t, z in w.statement(w):
                w.body(w, t, z)

    return model


def with_loop(**changed):
    """Other arguments of the loop."""

    def spoil(w):
        w.loop = {**w.loop, **changed}

    return spoil


def parts(**changed):
    return lambda w: vars(w).update(changed)


def other_chain(name, transition):
    def spoil(w):
        w.chains = {**w.chains, name: transition}

    return spoil


def labels(change, which="obs"):
    """Labels of b after a change."""

    def spoil(w):
        w.loop = {**w.loop, which: {"b": change(w.loop[which]["b"].clone())}}

    return spoil


def put(value, t=0, b=0):
    def change(tensor):
        tensor[t, b] = value
        return tensor

    return change


def nested(w, t, z):
    for _, u in ssl_transition("inner", w.chains["b"], T):
        pyro.sample("x", dist.Normal(1.0 * u, 1.0), obs=w.x[t])


class OnOneSite(poutine.messenger.Messenger):
    """A handler that treats the chains differently."""

    def __init__(self, what, value):
        super().__init__()
        self.what, self.value = what, value

    def _pyro_sample(self, msg):
        if msg["name"] == "b":
            msg[self.what] = self.value


SHAPE = r"obs has shape \(2, 3\), expected \(3, 2\), time first.*obs=obs.T"
FAULTS = {
    "no chain": ("ssl_transition: its chains", parts(chains={})),
    "no transition": ('Site "b": transition is a NoneType', other_chain("b", None)),
    "vectors": (
        'Site "c": .*GaussianLSTMTransition, one of several.*expected a DiscreteTransition',
        other_chain("c", GaussianLSTMTransition(2, 3)),
    ),
    "no steps": ('Site "a": num_steps is 0', parts(T=0)),
    "steps given twice": (
        "ssl_transition: .*after them comes a int",
        parts(statement=lambda w: ssl_transition(w.chains, w.T, w.T, **w.loop)),
    ),
    "inputs of nobody": (
        r'Site "c": named in inputs, but the chains of the loop are \[\'a\', \'b\'\]',
        with_loop(inputs={"c": torch.randn(T, B, 1)}),
    ),
    "inputs of who reads none": (
        'Site "b": the transition reads input_size=0',
        with_loop(inputs=dict.fromkeys("ab", torch.randn(T, B, 1).double())),
    ),
    "inputs left out": ('Site "a": the transition reads input_size=1', with_loop(inputs=None)),
    "labels of nobody": (
        'Site "c": named in obs, .*expected one of these; write obs=',
        with_loop(obs={"c": torch.zeros(T, B).long()}),
    ),
    "labels for all": (
        'Site "a": obs is a Tensor, expected a dict',
        with_loop(obs=torch.zeros(T, B).long()),
    ),
    "a mask without labels": ('Site "b": obs_mask was given and obs was not', with_loop(obs=None)),
    "labels sequences first": ('Site "b": ' + SHAPE, labels(lambda v: v.T)),
    "a mask of another shape": ('Site "b": obs_mask has shape', labels(lambda v: v[0], "obs_mask")),
    "labels that are no integers": (
        'Site "b": obs has dtype torch.float64, expected integers',
        labels(torch.Tensor.double),
    ),
    "labels that are no tensor": ('Site "b": obs are a list', labels(torch.Tensor.tolist)),
    "a mask of numbers": (
        'Site "b": obs_mask has dtype torch.int64, expected bool',
        labels(torch.Tensor.long, "obs_mask"),
    ),
    "a label beyond K": (
        r'Site "b": obs is 3 at step 0 of sequence \(0,\), expected a state from 0 to 2',
        labels(put(3)),
    ),
    "a label of -1": (r'Site "b": obs is -1 at step 1', labels(put(-1, 1, 1))),
    "a loop in the body": (
        'Site "inner": its loop stands in the body of the loop of "a, b"',
        parts(body=nested),
    ),
    "a scale on one": (
        'Site "b": poutine.scale stands on it in another way than on "a"',
        parts(handler=OnOneSite("scale", 0.5)),
    ),
    "a mask on one": (
        'Site "b": poutine.mask stands on it in another way than on "a"',
        parts(handler=OnOneSite("mask", torch.tensor([True, False]))),
    ),
    "a body of one state": (
        'Site "a, b": the model, .*each of a, b has shape .6, 1, 1., all 6 tuples of states',
        parts(body=lambda w, t, z: pyro.sample("x", dist.Normal(z + 1.0, 1.0), obs=w.x[t])),
    ),
    "chains coupled over steps": (
        'Site "x": log p.*without roll',
        parts(
            body=lambda w, t, z: pyro.sample(
                "x", dist.Normal(1.0 * z[0].roll(1, -2) - z[1], 1.0), obs=w.x[t]
            )
        ),
    ),
}
#: the user's own errors, which pass as they are
OWN = {"a body of one state"}

CALLS = {
    "ParticleGibbs.run": lambda model: (
        p := ParticleGibbs(model, P),
        lambda: p.run(num_samples=2, disable_progbar=True),
    ),
    "ParticleGibbs.sweep": lambda model: (
        p := ParticleGibbs(model, P),
        lambda: p.sweep(None),
    ),
    "StochasticEM.step": lambda model: (
        em := StochasticEM(model, Adam({"lr": 0.01}), P),
        em.step,
    ),
    "ParticleFilter.forecast": lambda model: (
        score := ParticleFilter(model, P),
        lambda: score.forecast(start=1),
    ),
    "MarkovEM.step": lambda model: (
        hmm := MarkovEM(model),
        hmm.step,
    ),
    "invariance_test": lambda model: (
        None,
        lambda: invariance_test(model, num_replicates=20),
    ),
}


@pytest.mark.stage("system")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_is_told_and_changes_nothing(fault, call):
    match, spoil = FAULTS[fault]
    good = right()
    world = copy.copy(good)
    modules = list(good.chains.values())
    found, do = CALLS[call](model_of(world))
    objects = [] if found is None else [found]
    spoil(world)
    texts = []
    for _ in range(2):
        before = digest(modules=modules, objects=objects)
        _, error = attempt(do)
        same(before, digest(modules=modules, objects=objects))
        if fault not in OWN or isinstance(error, SSLError):
            assert re.search(match, str(error), re.DOTALL), repr(error)
            assert isinstance(error, SSLError | ValueError | TypeError)
            assert re.search("expected|[Ww]rite", str(error))
        texts.append(str(error))
    assert texts[0] == texts[1]
    vars(world).update(vars(good))
    _, error = attempt(do)
    assert error is None, error


# ------------------------------------------------------------------------- one loop, with labels


@pytest.mark.parametrize(
    "transition, loop, told",
    [
        (GaussianLSTMTransition(2, 3), {"obs": torch.zeros(T, B).long()}, "of vectors nothing"),
        (MarkovTransition(2), {"obs_mask": torch.ones(T, B).bool()}, "obs was not"),
        (MarkovTransition(2), {"obs": {"z": torch.zeros(T, B).long()}}, "obs are a dict"),
        (MarkovTransition(2), {"obs": torch.full((T, B), 2)}, "expected a state from 0 to 1"),
    ],
)
def test_labels_of_one_chain(transition, loop, told):
    def model():
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T, **loop):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=torch.zeros(T, B)[t])

    before = digest(modules=[transition])
    _, error = attempt(lambda: ParticleFilter(model, P).log_evidence())
    assert re.search(f'Site "z": .*{told}', str(error), re.DOTALL), error
    same(before, digest(modules=[transition]))


# ------------------------------------------------------------------------------ starts, and paths


def start(**changed):
    paths = {"a": torch.zeros(B, T).long(), "b": torch.tensor([[0, 2, 0], [0, 1, 0]])}
    return {name: z for name, z in {**paths, **changed}.items() if z is not None}


STARTS = {
    "one is missing": (start(b=None), r"Site \"(a, )?b\": "),
    "another shape": (start(a=torch.zeros(T, B).long()), 'Site "a": .*shape'),
    "numbers": (start(a=torch.zeros(B, T)), 'Site "a": the reference has .*torch.float'),
    "beyond K": (start(b=torch.full((B, T), 3)), 'Site "b": the reference holds states from 3'),
    "against its label": (
        start(b=torch.zeros(B, T).long()),
        r'Site "b": the reference is 0 at step 1 of sequence \(0,\), expected 2, which obs says',
    ),
}


@pytest.mark.parametrize("which", STARTS)
@pytest.mark.parametrize("how", ["run", "sweep"])
def test_a_start_is_checked(which, how):
    given, told = STARTS[which]
    sampler = ParticleGibbs(model_of(right()), P)
    more = {"num_samples": 1, "disable_progbar": True}
    do = {
        "run": lambda paths: sampler.run(**more, initial_params=paths),
        "sweep": sampler.sweep,
    }[how]
    before = digest(objects=[sampler])
    _, error = attempt(lambda: do(given))
    assert re.search(told, str(error)), error
    same(before, digest(objects=[sampler]))
    do(start())


def test_a_dict_is_asked_for():
    _, error = attempt(lambda: ParticleGibbs(model_of(right()), P).sweep(torch.zeros(B, T).long()))
    assert re.search('Site "a, b": the reference is Tensor, expected a dict', str(error)), error


def test_future_inputs_are_checked():
    w = right()
    w.loop |= {"lengths": None}
    score = ParticleFilter(model_of(w), P)
    for future, told in (
        (torch.randn(2, B, 2), r'Site "a": future_inputs are \(2, 2, 2\)'),
        ({"b": torch.randn(2, B, 1)}, 'Site "b": future_inputs are'),
        ({"c": torch.randn(2, B, 1)}, 'Site "c": named in future_inputs'),
        (None, 'Site "a, b": future_inputs are None'),
    ):
        before = digest(objects=[score])
        _, error = attempt(lambda future=future: score.forecast(horizon=2, future_inputs=future))
        assert re.search(told, str(error)), error
        same(before, digest(objects=[score]))
    assert score.forecast(horizon=2, future_inputs=torch.randn(2, B, 1)).paths["a"].shape[-1] == 2
