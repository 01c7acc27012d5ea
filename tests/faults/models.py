"""What the fault matrices of the ready-made models share: small data, quick fits, the test itself.

A row of their tables is a call on a fitted model, and either the words that its error must have or
``None``, where the call must work. Nothing is a matter of chance: there are no false alarms.
"""

import functools
import warnings
from dataclasses import astuple
from types import SimpleNamespace

import pytest
import torch

from pyro_ssl import IMVLSTM, GaussianSSL, LanguageModel, TopicalSSL
from tests.faults.digest import nothing_changes

T, B, V = 6, 4, 5
NAN, INF = float("nan"), float("inf")
QUICK = {"num_epochs": 1, "disable_progbar": True}
HMM = {"markov_steps": 2, "markov_starts": 1, "transition_steps": 1}
SETTINGS = {TopicalSSL: {**QUICK, **HMM}, GaussianSSL: {**QUICK, "num_paths": 1}}


def data():
    """All that the calls take, float32, from a generator with a fixed seed."""
    g = torch.Generator().manual_seed(3)
    real = {"generator": g, "dtype": torch.float32}
    return SimpleNamespace(
        w=torch.randint(V, (T, B), generator=g),
        n=torch.tensor([T, 3, 1, 0]),
        s=torch.randn(T, B, 2, **real).cumsum(0),
        x=torch.randn(9, T, 2, **real),
        y=torch.randn(9, **real),
    )


D = data()
MAKE = {
    TopicalSSL: lambda: TopicalSSL(2, V, hidden_size=2).float(),
    GaussianSSL: lambda: GaussianSSL(2, hidden_size=2).float(),
    LanguageModel: lambda: LanguageModel(V, embedding_size=2, hidden_size=2).float(),
    IMVLSTM: lambda: IMVLSTM(2, 2).float(),
}
DATA = {TopicalSSL: (D.w,), GaussianSSL: (D.s,), LanguageModel: (D.w,), IMVLSTM: (D.x, D.y)}
every_model = pytest.mark.parametrize("kind", MAKE, ids=lambda kind: kind.__name__)


def refit(model, *given, **options):
    kind = type(model)
    return model.fit(*(given or DATA[kind]), **{**SETTINGS.get(kind, QUICK), **options})


def fit(*given, **options):
    """A second fit, for a table."""
    return lambda model: refit(model, *given, **options)


@functools.cache
def fitted(kind):
    """A fitted model, float32, which no test may change, and its score."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MAKE[kind]()
        refit(model)
    return model, score(model)


def score(model):
    """The same random numbers each time; the generators are left as they were."""
    options = {"num_particles": 5} if hasattr(model, "transition") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model.log_likelihood(*DATA[type(model)], **options)


def rows(**tables):
    """Parameters of a test, ``kind, call, told``, from tables by the model's name."""
    kinds = {kind.__name__: kind for kind in MAKE}
    return [
        pytest.param(kinds[name], call, told, id=f"{name}-{fault}")
        for name, table in tables.items()
        for fault, (call, told) in table.items()
    ]


def told_or_right(kind, call, told):
    """The call works; or its error comes on the second call as on the first, and changes nothing.

    After all of a file's errors comes :func:`goes_on`.
    """
    model, _ = fitted(kind)
    if told is None:
        copy = MAKE[kind]()
        copy.load_state_dict(model.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_finite(call(copy))
        return
    history, records = model.history, [*map(astuple, model.history)]
    texts = []
    for _ in range(2):
        with nothing_changes(modules=[model]):
            with pytest.raises((ValueError, TypeError), match=told) as caught:
                call(model)
        texts.append(str(caught.value))
        assert "write" in texts[-1] or "expected" in texts[-1]
    assert texts[0] == texts[1]
    assert model.history is history and not model.training
    assert repr([*map(astuple, history)]) == repr(records)


def goes_on(kind):
    """After all errors the model scores as before."""
    model, expected = fitted(kind)
    assert torch.equal(score(model), expected)


def assert_finite(found):
    """All tensors that a call returned."""
    if isinstance(found, torch.Tensor):
        assert found.isfinite().all()
    elif isinstance(found, tuple):
        for part in found:
            assert_finite(part)
