"""Data, sizes, inputs and parameters that are spoilt in one place, and what has to be said of them.

``broken_models.py`` has the models.
"""

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_ssl import LSTMTransition, MarkovTransition
from pyro_ssl.transitions import LinearGaussianTransition
from tests.faults.world import CALLS, B, K, T, V, numbers

NAN, INF = float("nan"), float("inf")

#: calls that give a result where the others give an error
ALL = frozenset(CALLS)
PERPLEXITIES = frozenset(name for name in CALLS if name.endswith("perplexity"))
#: calls that take no minibatch
ALL_AT_ONCE = frozenset({"ParticleGibbs.run", "MCMC", "StochasticEM.warm_start"})
#: these never ask the transition for a probability: a Markov chain or q stands in its place
WITHOUT_TRANSITION = frozenset({"MarkovEM.step", "MarkovEM.perplexity", "MeanFieldGuide"})


class Fault(NamedTuple):
    """A fault of a world.

    ``match`` is what the error says, ``taken`` names the calls that give their documented result
    instead, ``without`` those that are left out. ``late`` is False where only an object's first run
    is checked, as documented; ``own`` is True where the error is the user's own, which passes.
    """

    match: str
    spoil: Any
    taken: frozenset = frozenset()
    late: bool = True
    own: bool = False
    without: frozenset = frozenset()


def fault(match, *, taken=(), late=True, own=False, without=frozenset(), **parts):
    """A fault that is parts of the world, put in place of the right ones."""
    spoil = lambda w: vars(w).update(_made(parts, w))  # noqa: E731
    return Fault(match, spoil, frozenset(taken), late, own, without)


def _made(parts, w):
    """Parts that are functions of the world are made of it; a body, a model, a prior are not."""
    kept = ("body", "run", "prior", "use")
    return {n: p(w) if callable(p) and n not in kept else p for n, p in parts.items()}


def observed(match, place, value, body=None):
    """A fault in one number of the data."""

    def spoil(w):
        w.body, w.x = body or w.body, w.x * 1.0 if body else w.x
        yield
        w.x = w.x * 1.0 if isinstance(value, float) else w.x.clone()
        w.x[place] = value

    return Fault(match, spoil)


def emits(make, **parts):
    """A body that observes a number of each step under a distribution."""

    def body(t, z, w):
        fn, value = make(z, w)
        pyro.sample("x", fn, obs=value[t])

    return fault('^Site "x": its log-density cannot be taken, expected', body=body, **parts)


def driven(match, **parts):
    """A fault of a transition with inputs."""

    def spoil(w):
        w.transition = LSTMTransition(K, 3, input_size=1)
        w.inputs = torch.linspace(-1, 1, T * B).reshape(T, B, 1)
        yield
        vars(w).update(_made(parts, w))

    return Fault(match, spoil)


def gaussian(sd):
    """A standard deviation that is none."""

    def spoil(w):
        w.body, w.x = numbers, w.x * 1.0
        yield
        w.sd = torch.tensor(sd)

    return Fault("expected to run.*Normal.*raised ValueError: Expected parameter scale", spoil)


def minibatch_with_repeats(w):
    w.size, w.subsample = 4, torch.tensor([1, 3])
    yield
    w.subsample = torch.tensor([1, 1])


def with_nan(tensor, value=NAN):
    tensor = tensor.double().clone()
    tensor.view(-1)[0] = value
    return tensor


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64)


def integers(*shape):
    return torch.zeros(shape, dtype=torch.long)


# ---------------------------------------------------------------------------------------- data

SYMBOL = 'Site "x": the value at step . of sequence . is .*expected an integer from 0 to 2'
SHAPE = 'Site "x": its distribution has batch shape .* which do not broadcast to'
MODEL = 'Site "z": the model, expected to run with all steps and states at once.* raised '

DATA = {
    "NaN": observed('Site "x": its log-density cannot', (1, 0), NAN, numbers),
    "inf": observed('Site "x": .*probability 0 under each', (1, 0), INF, numbers),
    "-inf": observed('Site "x": .*probability 0 under each', (1, 0), -INF, numbers),
    "symbol V": observed(SYMBOL, (1, 0), V),
    "symbol -1": observed(SYMBOL, (0, 1), -1),
    "symbol of a fraction": observed(SYMBOL, (0, 1), 1.5),
    "symbol NaN": observed(SYMBOL, (2, 1), NAN),
    "symbol inf": observed(SYMBOL, (2, 1), INF),
    "count -1": emits(lambda z, w: (dist.Poisson(w.loc[z].exp()), w.x - 1.0)),
    "count of a fraction": emits(lambda z, w: (dist.Poisson(w.loc[z].exp()), w.x + 0.5)),
    "count NaN": emits(lambda z, w: (dist.Poisson(w.loc[z].exp()), with_nan(w.x))),
    "Bernoulli of 2": emits(lambda z, w: (dist.Bernoulli(w.phi[z][..., 0]), w.x * 1.0)),
    "Beta of 2": emits(lambda z, w: (dist.Beta(w.loc[z].exp(), 1.0), w.x * 1.0)),
    "Gamma of -1": emits(lambda z, w: (dist.Gamma(w.loc[z].exp(), 1.0), w.x - 1.0)),
    "off the simplex": emits(lambda z, w: (dist.Dirichlet(1 + w.phi[z]), ones(T, B, V))),
    "vector NaN": emits(
        lambda z, w: (dist.Normal(w.phi[z], 1.0).to_event(1), with_nan(ones(T, B, V)))
    ),
    "batch first": fault(MODEL + "IndexError", x=integers(B, T)),
    "a sequence more": fault(SHAPE, x=integers(T, B + 1)),
    "a step less": fault(MODEL + "IndexError", x=integers(T - 1, B)),
    "a dimension more": fault(SHAPE, x=integers(T, B, 1)),
    "a dimension less": fault(SHAPE, x=integers(T)),
    "a list": fault(MODEL + "TypeError", x=lambda w: w.x.tolist()),
    "None": fault(MODEL + "TypeError", x=None),
    "nothing observed": fault(
        'Site "x": latent, inside the loop',
        body=lambda t, z, w: pyro.sample("x", dist.Categorical(w.phi[z]), obs=None),
    ),
    "no site": fault('Site "z": its loop observed nothing', body=lambda t, z, w: None),
}

# --------------------------------------------------------------------------------------- sizes

STEPS = 'Site "z": num_steps is .*, expected at least 1'
INDICES = 'Plate "sequences": its subsample .*expected '

SIZES = {
    "no steps": fault(STEPS, T=0),
    "steps below 0": fault(STEPS, T=-1),
    "steps of a fraction": fault(STEPS, T=2.5),
    "steps as text": fault(STEPS, T="three"),
    "steps None": fault(STEPS, T=None),
    "no sequences": fault("size cannot be zero.*expected one sequence", size=0, x=integers(T, 0)),
    "sequences below 0": fault("expected to run.*pyro.plate", size=-1),
    "a plate too large": fault(SHAPE, size=B + 1),
    "a plate of 1": fault(SHAPE, size=1),
    "lengths of 0": fault(
        "no step from start=0 on was observed", taken=ALL - PERPLEXITIES, lengths=integers(B)
    ),
    "one length 0": fault("", taken=ALL, lengths=torch.tensor([0, T])),
    "a length too long": fault("lengths run from 1 to 4", lengths=torch.tensor([1, T + 1])),
    "a length below 0": fault("lengths run from -1 to 3", lengths=torch.tensor([-1, T])),
    "lengths of 3 sequences": fault("lengths have shape", lengths=integers(B + 1)),
    "lengths of a column": fault("lengths have shape", lengths=integers(B, 1)),
    "lengths as floats": fault("lengths have dtype", lengths=ones(B)),
    "lengths as booleans": fault("lengths have dtype", lengths=ones(B).bool()),
    "lengths as a list": fault("lengths are a list", lengths=[1, T]),
    "lengths as a number": fault("lengths are a int", lengths=2),
    "indices of another plate": fault(SHAPE, size=4, subsample=torch.tensor([1, 2, 3])),
    "a minibatch": fault(
        "expected subsample_size=None|expected each sequence once",
        without=ALL - ALL_AT_ONCE,
        size=4,
        subsample=torch.tensor([1, 3]),
    ),
    "indices twice": Fault("", minibatch_with_repeats, taken=ALL, without=ALL_AT_ONCE),
    "an index too large": fault(INDICES, size=4, subsample=torch.tensor([0, 4])),
    "an index below 0": fault(INDICES, size=4, subsample=torch.tensor([-1, 0])),
    "indices of a fraction": fault(INDICES, size=4, subsample=torch.tensor([0.5, 1.0])),
    "indices as a mask": fault(INDICES, size=2, subsample=torch.tensor([True, False])),
}

# -------------------------------------------------------------------------------------- inputs

INPUTS = {
    "missing": driven("inputs were not given", inputs=None),
    "unexpected": fault("inputs were given", inputs=zeros(T, B, 1)),
    "too wide": driven("inputs have shape", inputs=zeros(T, B, 2)),
    "batch first": driven("inputs have shape", inputs=zeros(B, T, 1)),
    "of a step less": driven("inputs have shape", inputs=zeros(T - 1, B, 1)),
    "integers": driven("inputs are torch.int64", inputs=zeros(T, B, 1).long()),
    "float32": driven("inputs are torch.float32", inputs=zeros(T, B, 1).float()),
    "half": driven("inputs are torch.float16", inputs=zeros(T, B, 1).half()),
    "a list": driven("inputs are a list", inputs=lambda w: w.inputs.tolist()),
    "NaN": driven("input 0 at step 0 .* is nan, expected", inputs=lambda w: with_nan(w.inputs)),
    "inf": driven("input 0 at step 0 .* is inf", inputs=lambda w: with_nan(w.inputs, INF)),
}

# ---------------------------------------------------------------------------------- parameters

NOT_FINITE = r"log p\(z.* NaN|log p\(z\) is nan|the ELBO is nan"


def stuck():
    """A chain that never leaves state 0."""
    return MarkovTransition(K, initial=torch.tensor([1.0, 0.0]), matrix=torch.eye(K))


PARAMETERS = {
    "transition NaN": fault(NOT_FINITE, taken=WITHOUT_TRANSITION, bias=NAN),
    "transition inf": fault(NOT_FINITE, taken=WITHOUT_TRANSITION, bias=INF),
    "transition that shuts out the data": fault(
        "all 2 particles|the ELBO is|no path has",
        late=False,  # a path that is known is kept, and refused by the gradient step
        taken=WITHOUT_TRANSITION | {"StochasticEM.warm_start"},
        transition=lambda w: stuck(),
        phi=torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.4, 0.4]]).double(),
    ),
    "transition in half": fault("torch.float16", transition=lambda w: LSTMTransition(K, 3).half()),
    "transition in float32": fault(
        "torch.float32", transition=lambda w: LSTMTransition(K, 3).float()
    ),
    "transition of torch": fault("transition is a LSTM", transition=lambda w: nn.LSTM(2, 3)),
    "transition None": fault("transition is a NoneType", transition=None),
    "transition a class": fault("transition is a type", transition=lambda w: LSTMTransition),
    "transition over vectors": fault(
        MODEL.partition(" all")[0], transition=lambda w: LinearGaussianTransition(2)
    ),
    "emission NaN": fault(MODEL + "ValueError", phi=lambda w: with_nan(w.phi)),
    "emission below 0": fault(MODEL + "ValueError", phi=lambda w: with_nan(w.phi, -1.0)),
    "emission impossible": fault(
        "probability 0 under each", phi=torch.tensor([[0.5, 0.5, 0.0]] * K).double()
    ),
    "emission of a state less": fault(MODEL + "IndexError", phi=ones(1, V) / V),
    "emission of a state more": fault("", taken=ALL, phi=ones(K + 1, V) / V),
    "emission in half": fault("torch.float16, expected", phi=lambda w: w.phi.half()),
    "emission in bfloat16": fault("torch.bfloat16, expected", phi=lambda w: w.phi.bfloat16()),
    "emission in float32": fault("torch.float32, but", phi=lambda w: w.phi.float()),
    "emission None": fault(MODEL + "TypeError", phi=None),
    "deviation 0": gaussian(0.0),
    "deviation below 0": gaussian(-1.0),
    "deviation NaN": gaussian(NAN),
}

BROKEN_DATA = {
    f"{of}: {name}": one
    for of, faults in (
        ("data", DATA),
        ("sizes", SIZES),
        ("inputs", INPUTS),
        ("parameters", PARAMETERS),
    )
    for name, one in faults.items()
}
