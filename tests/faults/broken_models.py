"""Bodies and models that are spoilt in one place, and what has to be said of them."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_ssl import LSTMTransition, ssl_transition
from tests.faults.broken_data import (
    ALL,
    MODEL,
    NAN,
    PERPLEXITIES,
    SHAPE,
    Fault,
    fault,
    integers,
    ones,
    with_nan,
    zeros,
)
from tests.faults.world import CALLS, B, K, T, V, sequences, symbols, topics

#: these take no latent site but the path
KNOWN = frozenset(n for n in CALLS if n.startswith("ParticleFilter")) | {"ParticleGibbs.sweep"}
BEFORE = r"The model, before its loop over time \(expected to run up to that\).* raised "


def emission(make):
    """A body that observes the symbols under another distribution."""
    return lambda t, z, w: pyro.sample("x", make(z, w), obs=w.x[t])


def handled(handler, **how):
    """The right body under a handler."""
    return lambda t, z, w: handler(symbols, **how)(t, z, w)


def raising(error):
    def body(t, z, w):
        raise error

    return body


def both(t, z, w):
    symbols(t, z, w)
    symbols(t, z, w)


def with_noise_site(t, z, w):
    pyro.sample("u", dist.Normal(0.0, 1.0))
    symbols(t, z, w)


def in_a_plate(t, z, w):
    with pyro.plate("inner", 1, dim=-5):
        symbols(t, z, w)


class Carries:
    """A body that remembers the last step's value."""

    def __call__(self, t, z, w):
        before = getattr(self, "before", torch.zeros_like(w.x[t]))
        self.before = w.x[t]
        pyro.sample("x", dist.Categorical(w.phi[z]), obs=(w.x[t] + before) % V)


NOT_LOCAL = 'Site "x": log p'
LATENT = "latent, inside the loop"

BODIES = {
    "a random site": fault('Site "u": ' + LATENT, body=with_noise_site),
    "a random site of z": fault(
        'Site "u": ' + LATENT,
        body=lambda t, z, w: pyro.sample("u", dist.Categorical(w.phi[z])),
    ),
    "a site to be enumerated": fault(
        'Site "x": ' + LATENT,
        body=lambda t, z, w: pyro.sample(
            "x", dist.Categorical(w.phi[z]), infer={"enumerate": "parallel"}
        ),
    ),
    "noise": fault(
        NOT_LOCAL,
        late=False,
        body=emission(lambda z, w: dist.Categorical(w.phi[z] * (1.0 + torch.rand(V)))),
    ),
    "a value carried": fault(NOT_LOCAL, late=False, body=Carries()),
    "steps coupled": fault(
        NOT_LOCAL, late=False, body=emission(lambda z, w: dist.Categorical(w.phi[z.roll(1, -2)]))
    ),
    "states coupled": fault(
        NOT_LOCAL, late=False, body=emission(lambda z, w: dist.Categorical(w.phi[z.flip(0)]))
    ),
    "sequences coupled": fault(
        NOT_LOCAL, late=False, body=emission(lambda z, w: dist.Categorical(w.phi[z.roll(1, -1)]))
    ),
    "states added up": fault(
        NOT_LOCAL, late=False, body=emission(lambda z, w: dist.Poisson(z.cumsum(0) + 1.0))
    ),
    "no state": fault(
        'Site "x": .*does not vary over the K=2 states',
        body=emission(lambda z, w: dist.Categorical(w.phi[0])),
    ),
    "a state beyond K": fault(
        MODEL + "IndexError", body=emission(lambda z, w: dist.Categorical(w.phi[z + 1]))
    ),
    "a site twice": fault(MODEL + ".*named 'x'", body=both),
    "a site named as the loop": fault(
        MODEL + ".*named 'z'",
        body=lambda t, z, w: pyro.sample("z", dist.Categorical(w.phi[z]), obs=w.x[t]),
    ),
    "a plate": fault('Site "x": inside plate "inner"', body=in_a_plate),
    "a mask of another shape": fault(
        SHAPE,
        body=emission(lambda z, w: dist.Categorical(w.phi[z]).mask(ones(T, B + 1).bool())),
    ),
    "a handler's mask of another shape": fault(
        SHAPE, body=handled(poutine.mask, mask=ones(T + 1, B).bool())
    ),
    "a mask of floats": fault(MODEL, body=handled(poutine.mask, mask=ones(T, B))),
    "a scale of another shape": fault(SHAPE, body=handled(poutine.scale, scale=ones(T, B + 1))),
    "a scale below 0": fault(MODEL, body=handled(poutine.scale, scale=-1.0)),
    "a scale NaN": fault(MODEL, body=handled(poutine.scale, scale=NAN)),
    "a scale 0": fault(MODEL, body=handled(poutine.scale, scale=0.0)),
    "scales below 0": fault(MODEL, body=handled(poutine.scale, scale=-ones(T, B))),
    "a branch on z": fault(
        MODEL + "RuntimeError", body=lambda t, z, w: symbols(t, z, w) if z > 0 else None
    ),
    "a number of z": fault(MODEL, body=lambda t, z, w: symbols(t, torch.tensor(int(z)), w)),
    "no event": fault(
        SHAPE,
        body=lambda t, z, w: pyro.sample("x", dist.Normal(w.phi[z], 1.0), obs=zeros(T, B, V)[t]),
    ),
    "an error of its own": fault("^made up$", own=True, body=raising(ValueError("made up"))),
    "a slip": fault("made up", own=True, body=lambda t, z, w: {}["made up"]),
    "Ctrl-C": fault("^made up$", own=True, body=raising(KeyboardInterrupt("made up"))),
}

# -------------------------------------------------------------------------------------- models


def two_loops(w):
    for name in ("z", "again"):
        with pyro.plate(f"sequences of {name}", w.size):
            for t, z in ssl_transition(name, w.transition, w.T):
                pyro.sample(f"x of {name}", dist.Categorical(w.phi[z]), obs=w.x[t])


def nested(w):
    with pyro.plate("sequences", w.size):
        for t, z in ssl_transition("z", w.transition, w.T):
            for _ in ssl_transition("y", w.transition, w.T):
                symbols(t, z, w)


def left_at_once(w):
    with pyro.plate("sequences", w.size):
        for _ in ssl_transition("z", w.transition, w.T):
            break


def left_at_the_end(w):
    with pyro.plate("sequences", w.size):
        for t, z in ssl_transition("z", w.transition, w.T):
            symbols(t, z, w)
            break


def unplated(w):
    for t, z in ssl_transition("z", w.transition, w.T):
        symbols(t, z, w)


def shifted(fn):
    def run(w):
        shift = pyro.sample("shift", fn())
        with pyro.plate("sequences", w.size):
            for t, z in ssl_transition("z", w.transition, w.T):
                pyro.sample("x", dist.Normal(w.loc[z] + shift, 1.0), obs=w.x[t] * 1.0)

    return run


def topics_within(w):
    with pyro.plate("sequences", w.size):
        phi = pyro.sample("phi", dist.Dirichlet(ones(V)))
        for t, z in ssl_transition("z", w.transition, w.T):
            pyro.sample("x", dist.Categorical(phi[z]), obs=w.x[t])


def around(handler, **how):
    return lambda w: handler(sequences, **how)(w)


def dirichlet(match, *concentration, **how):
    return fault(match, run=topics, prior=lambda: dist.Dirichlet(*concentration).to_event(1), **how)


def given(match, phi, **how):
    return fault(match, run=lambda w: poutine.condition(topics, data={"phi": phi})(w), **how)


NO_LOOP = "no ssl_transition whose path is still to be drawn; expected"
SHIFT = '"shift": latent'

MODELS = {
    "two loops": fault(
        '"again": a second ssl_transition',
        run=two_loops,
        taken={"ParticleGibbs.run", "StochasticEM.step"},
    ),
    "nested loops": fault('Site "y": its loop stands in the body of', run=nested),
    "no loop": fault(NO_LOOP, run=lambda w: symbols(slice(None), integers(T, B), w)),
    "nothing": fault(NO_LOOP, run=lambda w: None),
    "the loop given": fault(NO_LOOP, run=around(poutine.condition, data={"z": integers(B, T)})),
    "the loop given another shape": fault(
        'Site "z": a path of shape', run=around(poutine.condition, data={"z": integers(B, T + 1)})
    ),
    "the loop blocked": fault(NO_LOOP, run=around(poutine.block)),
    "the path blocked": fault(NO_LOOP, run=around(poutine.block, hide=["z"])),
    "left before it observes": fault('Site "z": its loop observed nothing', run=left_at_once),
    "left when it observed": fault(
        'Site "z": the body left its loop', late=False, run=left_at_the_end
    ),
    "no plate": fault(SHAPE, run=unplated),
    "two plates of one name": fault(
        BEFORE, run=lambda w: pyro.plate("sequences", 2, dim=-2)(sequences)(w)
    ),
    "the loop twice": fault(
        MODEL + ".*named 'sequences'", run=lambda w: [sequences(w) for _ in range(2)]
    ),
    "a number latent": fault(
        SHIFT, taken={"invariance_test"}, run=shifted(lambda: dist.Normal(0.0, 1.0))
    ),
    "a state latent": fault(
        SHIFT, taken={"invariance_test"}, run=shifted(lambda: dist.Bernoulli(0.5))
    ),
    "an improper latent": fault(
        BEFORE + "NotImplementedError",
        run=shifted(lambda: dist.ImproperUniform(dist.constraints.real, (), ())),
    ),
    "a scale around, below 0": fault(BEFORE, run=around(poutine.scale, scale=-1.0)),
    "a scale around, NaN": fault(BEFORE, run=around(poutine.scale, scale=NAN)),
    "a scale around, 0": fault(BEFORE, run=around(poutine.scale, scale=0.0)),
    "all masked": fault(
        "no step from start=0 on was observed",
        taken=ALL - PERPLEXITIES,
        run=around(poutine.mask, mask=False),
    ),
    "a mask around, of another shape": fault(
        SHAPE, run=around(poutine.mask, mask=ones(B + 1).bool())
    ),
    "Dirichlet under the plate": fault(
        MODEL + "IndexError", run=topics_within, transition=lambda w: LSTMTransition(K + 1, 3)
    ),
    "Dirichlet in a batch": fault(
        '"phi": latent',
        taken=ALL - KNOWN,
        run=topics,
        prior=lambda: dist.Dirichlet(ones(K, V)),
    ),
    "Dirichlet NaN": dirichlet(BEFORE, with_nan(ones(K, V))),
    "Dirichlet 0": dirichlet(BEFORE, zeros(K, V)),
    "Dirichlet of a symbol less": dirichlet(
        'Site "x": .*from 0 to 1|"phi": latent', ones(K, V - 1)
    ),
    "Dirichlet of a state less": dirichlet(MODEL + "IndexError", ones(K - 1, V)),
    "Dirichlet that is no probability": dirichlet(
        '"phi": Dirichlet, but it does not enter|"phi": latent',
        ones(K, V),
        taken={"invariance_test", "StochasticEM.step"},
        use=lambda phi, z: phi[z] ** 2 + 0.1,
    ),
    "Dirichlet given a vector": given(SHAPE, ones(V) / V),
    "Dirichlet given a state less": given(MODEL + "IndexError", ones(1, V) / V),
    "Dirichlet given NaN": given(MODEL + "ValueError", ones(K, V) * NAN),
    "Dirichlet given off the simplex": given(
        'Site "phi": its log-density cannot be taken', ones(K, V)
    ),
    "an error of its own": fault("made up", own=True, run=lambda w: {}["made up"]),
}


# ------------------------------------------------------------- models that break in a later run


def later(run, num_runs, error=None):
    """A model that raises, or loses its numbers, after some runs of one call."""

    def broken(w):
        if w.num_runs <= num_runs:
            return run(w)
        if error is not None:
            raise error
        with torch.no_grad():
            w.transition.head.bias.fill_(NAN)
        return run(w)

    # Which call runs the model so often is its own affair: others give their result.
    spoil = lambda w: setattr(w, "run", broken)  # noqa: E731
    return Fault('^made up$|"phi": latent', spoil, ALL, late=False, own=True)


LATER = {
    f"{type(error).__name__} after {n} runs{what}": later(run, n, error)
    for n, run, what in (
        *((n, sequences, "") for n in (1, 2, 4)),
        *((n, topics, " with a Dirichlet") for n in (1, 4, 8, 12)),
    )
    for error in (ZeroDivisionError("made up"), KeyboardInterrupt("made up"))
}

BROKEN_MODELS = {
    f"{of}: {name}": one
    for of, faults in (("body", BODIES), ("model", MODELS), ("later", LATER))
    for name, one in faults.items()
}
