"""The ready-made models: each fault has its documented result or its error, and changes nothing.

A row of the tables is a call on a fitted model, and either the words that its error must have or
``None``, where the call must work. After an error, tensors, history, mode, generators and parameter
store are what they were. Nothing here is a matter of chance: there are no false alarms.
"""

import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch

from pyro_ssl import IMVLSTM, GaussianSSL, LanguageModel, TopicalSSL
from pyro_ssl.datasets import Vocabulary
from pyro_ssl.errors import CheckpointError
from pyro_ssl.models import GaussianForecast
from pyro_ssl.models.checkpoint import load_checkpoint, save_checkpoint
from tests.faults.digest import nothing_changes

T, B, V = 6, 4, 5
NAN = float("nan")
QUICK = {"num_epochs": 1, "disable_progbar": True}
HMM = {"markov_steps": 2, "markov_starts": 1, "transition_steps": 1}
SETTINGS = {TopicalSSL: {**QUICK, **HMM}, GaussianSSL: {**QUICK, "num_paths": 1}}


def data():
    """All that the calls take, from a generator with a fixed seed."""
    g = torch.Generator().manual_seed(3)
    words = torch.randint(V, (T, B), generator=g)
    return SimpleNamespace(
        w=words,
        n=torch.tensor([T, 3, 1, 0]),
        s=torch.randn(T, B, 2, generator=g).cumsum(0),
        x=torch.randn(9, T, 2, generator=g),
        y=torch.randn(9, generator=g),
    )


D = data()
FORECAST = GaussianForecast(torch.zeros(3, 1, 1, 2), torch.zeros(1, 1, 2), torch.eye(2))
MAKE = {
    TopicalSSL: lambda: TopicalSSL(2, V, hidden_size=2),
    GaussianSSL: lambda: GaussianSSL(2, hidden_size=2),
    LanguageModel: lambda: LanguageModel(V, embedding_size=2, hidden_size=2),
    IMVLSTM: lambda: IMVLSTM(2, 2),
}
DATA = {TopicalSSL: (D.w,), GaussianSSL: (D.s,), LanguageModel: (D.w,), IMVLSTM: (D.x, D.y)}


@pytest.fixture(scope="module")
def fitted():
    """One fitted model of each kind; no test may change it."""
    models = {}
    for kind, make in MAKE.items():
        pyro.set_rng_seed(0)
        models[kind] = make()
        refit(models[kind])
    return models


def refit(model, *given, **options):
    kind = type(model)
    return model.fit(*(given or DATA[kind]), **{**SETTINGS.get(kind, QUICK), **options})


def fit(*given, **options):
    """A second fit, for a table."""
    return lambda model: refit(model, *given, **options)


# ------------------------------------------------------------------------------------ tables

EVERY = {  # settings of every model's fit
    "num_epochs -1": (fit(num_epochs=-1), "num_epochs is -1, expected a whole number of 0 or more"),
    "num_epochs 1.5": (fit(num_epochs=1.5), "num_epochs is 1.5, expected a whole number"),
    "num_epochs None": (fit(num_epochs=None), "num_epochs is None"),
    "learning_rate nan": (fit(learning_rate=NAN), "learning_rate is nan"),
    "learning_rate -1": (fit(learning_rate=-1.0), "learning_rate is -1.0"),
    "weight_decay -1": (fit(weight_decay=-1.0), "weight_decay is -1.0"),
    "patience 0": (fit(patience=0), "patience is 0, expected a whole number of 1 or more"),
    "callback 3": (fit(callback=3), "callback is 3, expected a function"),
    "valid 3": (fit(valid=3), "valid is a int, expected"),
    "valid empty": (fit(valid=()), "valid is a tuple, expected"),
    "no data": (fit(None), "is a NoneType, expected a tensor, an array or a list"),
    "text": (fit("words"), "is a str, expected a tensor, an array or a list"),
    "ragged": (fit([[1, 2], [3]]), "whose rows are of one length"),
    "complex": (fit(torch.zeros(2, 2, 2, dtype=torch.cfloat)), "expected real numbers"),
    "sparse": (fit(torch.eye(3).to_sparse()), "write x.to_dense"),
    "meta": (fit(torch.zeros(2, 2, 2, device="meta")), "found on meta, the model is on cpu"),
}

OF_WORDS = {
    "float": (fit(D.w.double()), None),
    "uint8": (fit(D.w.byte()), None),
    "list": (fit(D.w.tolist(), D.n.tolist()), None),
    "numpy": (fit(D.w.numpy(), D.n.numpy()), None),
    "fraction": (fit(D.w + 0.7), "words holds .*7.*, expected whole numbers"),
    "nan": (fit(D.w * NAN), "words holds nan, expected whole numbers"),
    "-1 padding": (fit(torch.where(D.w >= 0, -1, 0), torch.zeros(B)), "found no word"),
    "nan padding": (fit(torch.cat([D.w[:1].double(), D.w[1:] * NAN]), [1] * B), None),
    "out of range": (fit(D.w + 1), "found words from . to 5, expected 0 to V - 1 = 4"),
    "negative": (fit(D.w - 1), "found words from -1 to"),
    "one dim": (fit(D.w[0]), r"write words = words\[:, None\]"),
    "three dims": (fit(D.w[..., None]), "expected integers"),
    "lengths short": (fit(D.w, D.n[:2]), r"lengths are torch.int64 \(2,\)"),
    "lengths long": (fit(D.w, D.n + 1), "lengths run from 1 to 7, expected 0 to T=6"),
    "lengths -1": (fit(D.w, D.n - 1), "lengths run from -1"),
    "lengths 0": (fit(D.w, D.n * 0), "found no word in words"),
    "lengths 1.5": (fit(D.w, D.n + 0.5), "lengths holds .*5, expected whole numbers"),
    "lengths bool": (fit(D.w, D.n > 2), "lengths are torch.bool"),
    "lengths number": (fit(D.w, 3), r"lengths are torch.int64 \(\)"),
    "empty B": (fit(D.w[:, :0]), "found no word"),
    "empty T": (fit(D.w[:0]), "found no word"),
    "T=1": (fit(D.w[:1]), None),
    "B=1": (fit(D.w[:, :1], batch_size=1), None),
    "batch_size 0": (fit(batch_size=0), "batch_size is 0, expected a whole number of 1 or more"),
    "valid start": (fit(valid=(D.w, None, T)), "found no word to score from start=6"),
    "valid start -1": (fit(valid=(D.w, None, -1)), "found no word to score from start=-1"),
    "valid words": (fit(valid=(D.w + 1, None)), r"fit\(valid=\): found words from"),
    "valid four": (fit(valid=(D.w, None, 0, 0)), "valid is a tuple"),
    "score fraction": (lambda m: m.log_likelihood(D.w + 0.5), "expected whole numbers"),
    "score -1 padded": (lambda m: m.log_likelihood(D.w.clamp(max=-1), D.n * 0), None),
    "score empty": (lambda m: m.log_likelihood(D.w[:, :0]), None),
    "score T=1": (lambda m: m.log_likelihood(D.w[:1]), None),
    "perplexity nothing": (lambda m: m.perplexity(D.w, D.n * 0), "found no word to score"),
    "perplexity start 6": (lambda m: m.perplexity(D.w, start=T), "found no word to score"),
    "perplexity start -1": (lambda m: m.perplexity(D.w, start=-1), "start is -1"),
    "perplexity start 1.5": (lambda m: m.perplexity(D.w, start=1.5), "start is 1.5"),
}

OF = {
    TopicalSSL: {
        "inference": (fit(inference="svi"), 'inference is "svi", expected one of'),
        "num_particles 0": (fit(num_particles=0), "num_particles is 0"),
        "num_sweeps 0": (fit(num_sweeps=0), "num_sweeps is 0"),
        "num_gradient_steps 0": (fit(num_gradient_steps=0), "num_gradient_steps is 0"),
        "averaging 1": (fit(averaging=1.0), "averaging is 1.0, expected a number from 0 to below"),
        "markov_starts 0": (fit(markov_starts=0), "markov_starts is 0"),
        "markov_steps -1": (fit(markov_steps=-1), "markov_steps is -1"),
        "markov word": (fit(markov="hmm"), "markov has topics of shape str"),
        "ancestor_sampling -1": (fit(ancestor_sampling=-1), "ancestor_sampling is -1"),
        "score P=0": (lambda m: m.log_likelihood(D.w, num_particles=0), "num_particles is 0"),
        "score P=1": (lambda m: m.log_likelihood(D.w, num_particles=1), None),
        "topics 0": (lambda m: m.topics(0), "num_words is 0"),
        "topics 99": (lambda m: m.topics(99), None),
        "transform S=0": (lambda m: m.transform(D.w, num_samples=0), "num_samples is 0"),
        "transform -1": (lambda m: m.transform(D.w, warmup_steps=-1), "warmup_steps is -1"),
        "transform empty": (lambda m: m.transform(D.w[:, :0]), None),
        "transform fraction": (lambda m: m.transform(D.w + 0.5), "expected whole numbers"),
        "one particle": (fit(num_particles=1), None),
        "Vocabulary": (lambda m: TopicalSSL(2, Vocabulary(["<unk>", "a"])), None),
        "np.int64": (lambda m: TopicalSSL(np.int64(2), np.int64(3)), None),
        "K=1, V=1": (lambda m: refit(TopicalSSL(1, 1, hidden_size=1), D.w * 0), None),
        "no words": (lambda m: TopicalSSL(2, []), "vocabulary is .*list"),
        "V=0": (lambda m: TopicalSSL(2, 0), "vocabulary is 0"),
        "V=2.5": (lambda m: TopicalSSL(2, 2.5), "vocabulary is 2.5"),
        "dict": (lambda m: TopicalSSL(2, {"a": 0}), r"write sorted\(ids, key=ids.get\)"),
        "K=0": (lambda m: TopicalSSL(0, 3), "num_topics is 0"),
        "hidden_size 0": (lambda m: TopicalSSL(2, 3, hidden_size=0), "hidden_size is 0"),
        "dropout 1": (lambda m: TopicalSSL(2, 3, dropout=1.0), "dropout is 1.0"),
        "concentration 0": (lambda m: TopicalSSL(2, 3, concentration=0.0), "concentration is 0.0"),
        "cell": (lambda m: TopicalSSL(2, 3, cell="gru"), 'cell is "gru"'),
    },
    LanguageModel: {
        "clip 0": (fit(clip=0.0), "clip is 0.0, expected a positive number, or math.inf"),
        "batch_size None": (fit(batch_size=None), "batch_size is None"),
        "V=0": (lambda m: LanguageModel(0), "vocab_size is 0"),
        "V a list": (lambda m: LanguageModel(["a"]), r"vocab_size is a list, .*vocab_size=len"),
        "embedding": (lambda m: LanguageModel(3, embedding_size=0), "embedding_size is 0"),
        "all 1": (
            lambda m: refit(LanguageModel(1, embedding_size=1, hidden_size=1), D.w * 0),
            None,
        ),
        "forward": (lambda m: m(D.w + 5), "found words from 5 to"),
        "forward fraction": (lambda m: m(D.w + 0.5), "expected whole numbers"),
    },
    GaussianSSL: {
        "inference": (fit(inference="svi"), 'inference is "svi", expected one of'),
        "num_particles 0": (fit(num_particles=0), "num_particles is 0"),
        "num_paths 0": (fit(num_paths=0), "num_paths is 0"),
        "num_paths True": (fit(num_paths=True), "num_paths is True"),
        "averaging -1": (fit(averaging=-1.0), "averaging is -1.0"),
        "num_valid_particles 0": (fit(num_valid_particles=0), "num_valid_particles is 0"),
        "(T, E)": (fit(D.s[:, 0]), r"write x\[:, None\] for one series of E sensors, or x\[..., "),
        "(T,)": (fit(D.s[:, 0, 0]), r"write x\[:, None, None\]"),
        "empty B": (fit(D.s[:, :0]), "one of each at least"),
        "empty T": (fit(D.s[:0]), "one of each at least"),
        "one point": (fit(D.s[:1, :1]), "1 steps observed, expected .* 2 at least"),
        "T=1": (fit(D.s[:1]), None),
        "one sensor": (fit(D.s[..., :1]), "and E >= D = 2"),
        "all nan": (fit(D.s * NAN), "0 steps observed"),
        "one nan sensor": (
            fit(torch.cat([D.s, D.s[..., :1] * NAN], -1)),
            r"1 of them never was: write x\[..., \[0, 1\]\]",
        ),
        "lengths 0": (fit(D.s, [0] * B), "0 steps observed"),
        "lengths short": (fit(D.s, [1]), r"lengths are torch.int64 \(1,\)"),
        "lengths long": (fit(D.s, [9] * B), "lengths run from 9 to 9"),
        "nan padding": (fit(torch.cat([D.s[:3], D.s[3:] * NAN]), [3] * B), None),
        "float64": (fit(D.s.double()), None),
        "integers": (fit((9 * D.s).long()), None),
        "numpy": (fit(D.s.numpy(), mask=np.ones((T, B))), None),
        "list": (fit(D.s.tolist()), None),
        "too coarse": (fit(D.s.double() + 1e9), r"too coarse for it.*write model.double"),
        "mask of 2": (fit(D.s, mask=torch.full((T, B), 2)), "mask holds other numbers than 0"),
        "mask shape": (fit(D.s, mask=torch.ones(T, B, 2)), "mask has shape"),
        "loading shape": (fit(loading=torch.eye(3)), r"loading has shape \(3, 3\), expected"),
        "loading nan": (fit(loading=NAN * torch.eye(2)), "loading has shape .* finite"),
        "loading 0": (fit(loading=torch.zeros(2, 2)), "no latent moves x, as loading is 0"),
        "loading list": (fit(loading=[[1, 0], [0, 1]], offset=[0.0, 1]), None),
        "offset shape": (fit(offset=torch.zeros(3)), r"offset has shape \(3,\)"),
        "valid (T, E)": (fit(valid=(D.s[:, 0], None)), r"fit\(valid=\): x has shape"),
        "valid nan": (fit(valid=(D.s * NAN, None)), "no step was observed"),
        "valid sensors": (fit(valid=(D.s[..., :1], None)), "the sensors of the fit"),
        "filter (T, E)": (lambda m: m.filter(D.s[:, 0]), r"write x\[:, None\]"),
        "filter sensors": (lambda m: m.filter(D.s[..., :1]), r"expected \(T, B, 2\), the sensors"),
        "filter P=0": (lambda m: m.filter(D.s, num_particles=0), "num_particles is 0"),
        "filter P=1": (lambda m: m.filter(D.s, num_particles=1), None),
        "filter T=1": (lambda m: m.filter(D.s[:1]), None),
        "filter all nan": (lambda m: m.filter(D.s * NAN), None),
        "filter empty": (lambda m: m.filter(D.s[:0]), "one of each at least"),
        "score T=1": (lambda m: m.log_likelihood(D.s[:1].numpy()), None),
        "score lengths 0": (lambda m: m.log_likelihood(D.s, [0] * B), None),
        "smooth S=0": (lambda m: m.smooth(D.s, num_samples=0), "num_samples is 0"),
        "smooth chains": (lambda m: m.smooth(D.s, num_chains=0), "num_chains is 0"),
        "smooth (T, E)": (lambda m: m.smooth(D.s[:, 0]), r"write x\[:, None\]"),
        "forecast 0": (lambda m: m.forecast(D.s, 0), "horizon is 0"),
        "forecast 1.5": (lambda m: m.forecast(D.s, 1.5), "horizon is 1.5"),
        "forecast mask": (lambda m: m.forecast(D.s, 2, mask=[1]), "mask has shape"),
        "forecast level": (lambda m: FORECAST.interval(1.5), "found level=1.5"),
        "start (T, E)": (lambda m: m.start(D.s[:, 0]), r"write x\[:, None\]"),
        "dim 0": (lambda m: GaussianSSL(0), "dim is 0"),
        "reads": (lambda m: GaussianSSL(2, reads="steps"), 'reads="steps"'),
        "all 1": (
            lambda m: refit(GaussianSSL(1, hidden_size=1), D.s[..., :1], num_particles=1),
            None,
        ),
    },
    IMVLSTM: {
        "batch_size 0": (fit(batch_size=0), "batch_size is 0"),
        "decay 0": (fit(decay=0.0), "decay is 0.0"),
        "squared_error": (fit(squared_error=-1.0), "squared_error is -1.0"),
        "monitor": (fit(monitor="mae"), 'monitor is "mae"'),
        "no y": (fit(D.x), "found no y"),
        "y short": (fit(D.x, D.y[:3]), r"y has shape \(3, 1\), expected \(9, 1\)"),
        "y nan": (fit(D.x, D.y * NAN), "target that is not finite"),
        "two dims": (fit(D.x[0], D.y), r"x has shape \(6, 2\)"),
        "variables": (fit(D.x[..., :1], D.y), r"expected \(M, T, 2\)"),
        "no step": (fit(D.x[:, :0], D.y), r"x has shape \(9, 0, 2\)"),
        "no window": (fit(D.x[:0], D.y[:0]), "found 0 windows"),
        "one window": (fit(D.x[:1], D.y[:1]), None),
        "T=1": (fit(D.x[:, :1], D.y), None),
        "float64": (fit(D.x.double(), D.y.double()), None),
        "numpy and list": (fit(D.x.numpy(), D.y.tolist(), mask=np.ones((9, T, 2))), None),
        "mask of 2": (fit(D.x, D.y, mask=2 * torch.ones(9, T, 2)), "other numbers than 0 and 1"),
        "mask shape": (fit(D.x, D.y, mask=torch.ones(9, T)), r"mask has shape \(9, 6\)"),
        "valid windows": (fit(valid=(D.x[:0], D.y[:0])), "valid has 0 windows"),
        "valid no y": (fit(valid=(D.x,)), "found no y"),
        "optim class": (fit(optim=torch.optim.SGD), None),
        "optim instance": (fit(optim=torch.optim.AdamW([torch.zeros(1)], lr=0.1)), None),
        "optim word": (fit(optim="adam"), "optim is a str, expected an optimiser"),
        "optim LBFGS": (fit(optim=torch.optim.LBFGS), "optim is a LBFGS"),
        "predict empty": (lambda m: m.predict(D.x[:0]), None),
        "predict dims": (lambda m: m.predict(D.x[0]), r"x has shape \(6, 2\)"),
        "score no y": (lambda m: m.log_likelihood(D.x), "found no y"),
        "score empty": (lambda m: m.log_likelihood(D.x[:0], D.y[:0]), None),
        "importance": (lambda m: m.importance(D.x[:0], D.y[:0]), "found 0 windows"),
        "temporal": (lambda m: m.temporal_importance(D.x[:0]), "found 0 windows"),
        "posterior one": (lambda m: m.posterior(D.x[:1].tolist(), [0.5]), None),
        "quantile": (lambda m: m.predict(D.x).quantile(1.0), "strictly between 0 and 1"),
        "one of all": (lambda m: refit(IMVLSTM(1, 1), D.x[..., :1], D.y), None),
        "importance of one": (lambda m: IMVLSTM(1, 1).importance(D.x[..., :1], D.y), None),
        "units 0": (lambda m: IMVLSTM(2, 0), "units is 0"),
        "num_targets 0": (lambda m: IMVLSTM(2, 2, num_targets=0), "num_targets is 0"),
        "min_scale 0": (lambda m: IMVLSTM(2, 2, min_scale=0.0), "min_scale is 0.0"),
        "cell": (lambda m: IMVLSTM(2, 2, cell="gru"), 'cell is "gru"'),
    },
}

TABLE = [
    pytest.param(kind, call, told, id=f"{kind.__name__}-{name}")
    for kind in MAKE
    for rows in (EVERY, OF_WORDS if DATA[kind][0] is D.w else {}, OF[kind])
    for name, (call, told) in rows.items()
]


@pytest.mark.parametrize("kind, call, told", TABLE)
def test_a_fault_has_its_error_and_changes_nothing(kind, call, told, fitted):
    model = fitted[kind]
    if told is None:
        copy = MAKE[kind]()
        copy.load_state_dict(model.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_finite(call(copy))
        return
    history, records = model.history, list(model.history)
    with nothing_changes(modules=[model]), pytest.raises(ValueError, match=told) as caught:
        call(model)
    assert model.history is history and history == records and not model.training
    assert "write" in str(caught.value) or "expected" in str(caught.value)


def test_there_are_enough():
    assert len(TABLE) >= 90


def assert_finite(found):
    if isinstance(found, torch.Tensor):
        assert found.isfinite().all()
    elif isinstance(found, tuple):
        for part in found:
            assert_finite(part)


# ----------------------------------------------------------------------- what is no argument


@pytest.mark.parametrize("kind", MAKE, ids=lambda kind: kind.__name__)
def test_autograd_modes(kind, fitted):
    model = fitted[kind]
    with torch.inference_mode(), nothing_changes(modules=[model]):
        with pytest.raises(RuntimeError, match=r"torch.inference_mode\(\) is on"):
            refit(model)
    with torch.inference_mode():
        assert model.log_likelihood(*DATA[kind]).isfinite().all()
        made = MAKE[kind]()
        given = [value.clone() for value in DATA[kind]]
    with pytest.raises(RuntimeError, match="made within torch.inference_mode"):
        refit(made)
    fresh = MAKE[kind]()
    before = [value.clone() for value in fresh.parameters()]
    with torch.no_grad():
        refit(fresh, *given)  # data that were made in inference mode
    assert not all(map(torch.equal, before, fresh.parameters()))


@pytest.mark.parametrize("kind", MAKE, ids=lambda kind: kind.__name__)
def test_a_first_epoch_that_fails_is_taken_back(kind, fitted, monkeypatch):
    """An error that no check foresees, after the weights have moved."""
    model = fitted[kind]

    def broken(*args, **kwargs):
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
        torch.rand(3)
        raise RuntimeError("of the machine")

    monkeypatch.setattr("pyro_ssl.models.epochs.FitState.add", broken)
    history = model.history
    with nothing_changes(modules=[model]), pytest.raises(RuntimeError) as caught:
        refit(model)
    assert model.history is history and not model.training
    assert caught.value.__notes__[-1].endswith("no epoch was over; the model is as it was before.")


def test_two_threads_take_turns(fitted):
    """Twenty scores by two threads: each the one number, and nothing left in the store."""
    model, errors, scores = fitted[TopicalSSL], [], []

    def work():
        try:
            scores.extend(model.perplexity(D.w, num_particles=5) for _ in range(10))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(scores) == 20 and len(pyro.get_param_store()) == 0
    assert all(1.0 < score < 50.0 for score in scores)


# ---------------------------------------------------------------------------- saved models


def grown(name, value):
    return lambda tensors, saved: saved["model"].update({name: value})


def spoilt(name, value):
    return lambda tensors, saved: tensors[name].view(-1)[:1].fill_(value)


def lost(name):
    return lambda tensors, saved: tensors.pop(name)


def cast(tensors, saved):
    tensors.update({name: value.long() for name, value in tensors.items()})


def history(**record):
    good = {"epoch": 1, "loss": 1.0, "change_rate": 1.0, "score": 1.0, "seconds": 1.0}
    return lambda tensors, saved: saved.update(history=[{**good, **record}])


LIES = [
    (TopicalSSL, grown("hidden_size", 10**12)),
    (TopicalSSL, grown("hidden_size", -1)),
    (TopicalSSL, grown("hidden_size", "2")),
    (TopicalSSL, grown("num_topics", 3)),
    (TopicalSSL, grown("vocabulary", ["a"])),
    (TopicalSSL, grown("unheard", 1)),
    (TopicalSSL, spoilt("phi", -1.0)),
    (TopicalSSL, spoilt("phi", 3.0)),
    (TopicalSSL, spoilt("occupancy", NAN)),
    (TopicalSSL, lost("phi")),
    (TopicalSSL, cast),
    (TopicalSSL, history(loss="low")),
    (TopicalSSL, history(epoch=1.5)),
    (TopicalSSL, history(extra=1)),
    (TopicalSSL, lambda tensors, saved: saved.pop("history")),
    (TopicalSSL, lambda tensors, saved: saved.update(model=[1])),
    (GaussianSSL, grown("dim", 10**9)),
    (GaussianSSL, spoilt("covariance", -1.0)),
    (GaussianSSL, lost("offset")),
    (GaussianSSL, spoilt("transition.min_scale", 0.0)),
    (GaussianSSL, grown("reads", "steps")),
    (LanguageModel, grown("vocab_size", 10**12)),
    (LanguageModel, grown("cell", "mlstm")),
    (LanguageModel, spoilt("head.bias", NAN)),
    (IMVLSTM, grown("num_variables", 10**6)),
    (IMVLSTM, grown("num_targets", 3)),
    (IMVLSTM, grown("min_scale", -1.0)),
    (IMVLSTM, spoilt("network.head_bias", float("inf"))),
]


@pytest.mark.parametrize("kind, lie", LIES)
def test_a_checkpoint_that_lies_is_told(kind, lie, fitted, tmp_path):
    fitted[kind].save(tmp_path)
    tensors, saved = load_checkpoint(tmp_path, kind.__name__)
    lie(tensors, saved)
    save_checkpoint(tmp_path, kind.__name__, tensors, saved)
    with nothing_changes(tmp_path), pytest.raises(CheckpointError, match="fit and save the model"):
        kind.load(tmp_path)


@pytest.mark.parametrize("kind", MAKE, ids=lambda kind: kind.__name__)
def test_a_load_draws_no_random_numbers(kind, fitted, tmp_path):
    fitted[kind].save(tmp_path)
    with nothing_changes(tmp_path, modules=[fitted[kind]]):
        loaded = kind.load(tmp_path)
    assert all(map(torch.equal, loaded.state_dict().values(), fitted[kind].state_dict().values()))
    refit(loaded)
