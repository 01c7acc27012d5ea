"""All ready-made models: each fault has its documented result or its error, and changes nothing.

``test_word_models.py`` and ``test_series_models.py`` have the faults of each model's own arguments.
"""

import copy
import functools
import threading

import pyro
import pytest
import torch

from pyro_ssl import IMVLSTM, GaussianSSL, LanguageModel, TopicalSSL
from pyro_ssl.errors import CheckpointError
from tests.faults.digest import nothing_changes
from tests.faults.models import (
    DATA,
    INF,
    MAKE,
    NAN,
    D,
    every_model,
    fit,
    fitted,
    goes_on,
    refit,
    rows,
    score,
    told_or_right,
)


def half(dtype):
    return lambda model: copy.deepcopy(model).to(dtype)


def of_class(*args, **options):
    return lambda model: type(model)(*args, **options)


EVERY = {  # of every model's constructor and fit
    "num_epochs -1": (fit(num_epochs=-1), "num_epochs is -1, expected a whole number of 0 or more"),
    "num_epochs 1.5": (fit(num_epochs=1.5), "num_epochs is 1.5, expected a whole number"),
    "num_epochs None": (fit(num_epochs=None), "num_epochs is None"),
    "num_epochs True": (fit(num_epochs=True), "num_epochs is True"),
    "num_epochs 0": (fit(num_epochs=0), None),
    "learning_rate nan": (fit(learning_rate=NAN), "learning_rate is nan"),
    "learning_rate inf": (fit(learning_rate=INF), "learning_rate is inf"),
    "learning_rate -1": (fit(learning_rate=-1.0), "learning_rate is -1.0"),
    "learning_rate True": (fit(learning_rate=True), "learning_rate is True"),
    "learning_rate word": (fit(learning_rate="fast"), "learning_rate is fast, expected a number"),
    "weight_decay -1": (fit(weight_decay=-1.0), "weight_decay is -1.0"),
    "patience 0": (fit(patience=0), "patience is 0, expected a whole number of 1 or more"),
    "patience -1": (fit(patience=-1), "patience is -1"),
    "patience True": (fit(patience=True), "patience is True"),
    "patience None": (fit(patience=None), None),
    "callback 3": (fit(callback=3), "callback is 3, expected a function"),
    "disable_progbar no": (fit(disable_progbar="no"), "disable_progbar is no, expected True or F"),
    "unknown option": (fit(speed=1), "unexpected keyword argument 'speed'; expected some of"),
    "too much": (fit(*range(9)), "too many positional arguments; expected some of"),
    "nothing": (lambda m: m.fit(), "missing a required argument.*; expected some of"),
    "valid 3": (fit(valid=3), "valid is a int, expected"),
    "valid empty": (fit(valid=()), "valid is a tuple, expected"),
    "valid dict": (fit(valid={}), "valid is a dict, expected"),
    "valid None": (fit(valid=(None, None)), r"fit\(valid=\): .* is a NoneType"),
    "valid without a tuple": (lambda m: refit(m, valid=DATA[type(m)][0]), "valid is a Tensor"),
    "valid a list": (lambda m: refit(m, valid=list(DATA[type(m)])), None),
    "float16": (lambda m: refit(half(torch.half)(m)), "the model is torch.float16, expected torch"),
    "bfloat16": (lambda m: refit(half(torch.bfloat16)(m)), "torch.bfloat16.*write model.float"),
    "score float16": (
        lambda m: half(torch.half)(m).log_likelihood(*DATA[type(m)]),
        "log_likelihood: the model is torch.float16",
    ),
    "float16 data": (lambda m: m.log_likelihood(*[v.half() for v in DATA[type(m)]]), None),
    "gradients": (
        lambda m: refit(m, *[(v * 1.0).requires_grad_() for v in DATA[type(m)]]),
        None,
    ),
    "strided": (lambda m: refit(m, *[v.repeat_interleave(2, 0)[::2] for v in DATA[type(m)]]), None),
    "big endian": (
        lambda m: refit(m, *[v.double().numpy().astype(">f8") for v in DATA[type(m)]]),
        None,
    ),
    "constructor option": (
        lambda m: type(m)(**m.config, speed=1),
        "unexpected keyword argument 'speed'; expected some of",
    ),
    "constructor": (of_class(), "missing a required argument"),
    "save ''": (lambda m: m.save(""), "save: path is '', expected a folder"),
    "save 3": (lambda m: m.save(3), "save: path is a int, expected a folder"),
    "save None": (lambda m: m.save(None), "save: path is a NoneType"),
    "save NUL": (lambda m: m.save("a\0b"), r"save: path is 'a\\x00b'"),
    "load ''": (lambda m: type(m).load(""), "path is '', expected a folder"),
    "load 3": (lambda m: type(m).load(3), "path is a int"),
    "load nothing": (lambda m: type(m).load("no/such/folder"), "no checkpoint here"),
}

SIZES = {
    TopicalSSL: ["num_topics", "hidden_size"],
    GaussianSSL: ["dim", "hidden_size"],
    LanguageModel: ["vocab_size", "embedding_size", "hidden_size"],
    IMVLSTM: ["num_variables", "units", "num_targets", "num_steps"],
}


def made_with(model, **changes):
    return type(model)(**{**model.config, **changes})


def constructors(kind):
    """A row for each option and value that it cannot have."""
    bad = [(name, value) for name in SIZES[kind] for value in (0, -1, 1.5, True, "2", [2])]
    bad += [("dropout", value) for value in (-0.1, 1.0, NAN, True, "half", None)]
    bad += [("cell", value) for value in ("gru", None, 3)]
    return {
        f"{name} {value}": (
            functools.partial(made_with, **{name: value}),
            f"{name} is .*, expected",
        )
        for name, value in bad
    }


METHODS = {
    TopicalSSL: ["log_likelihood", "perplexity", "transform"],
    GaussianSSL: ["log_likelihood", "filter", "smooth", "forecast", "start"],
    LanguageModel: ["log_likelihood", "perplexity"],
    IMVLSTM: [
        *("predict", "log_likelihood", "posterior", "importance", "attention"),
        "temporal_importance",
    ],
}
NO_DATA = {
    "None": (None, "is a NoneType, expected a tensor, an array or a list"),
    "text": ("words", "is a str, expected a tensor, an array or a list"),
    "dict": ({}, "is a dict, expected a tensor"),
    "strings": ([["a", "b"]], "is a list, expected a tensor, an array or a list of numbers"),
    "None in it": ([[None, 1]], "is a list, expected a tensor"),
    "ragged": ([[1, 2], [3]], "whose rows are of one length"),
    "complex": (torch.zeros(2, 2, 2, dtype=torch.cfloat), "expected real numbers"),
    "sparse": (torch.eye(3).to_sparse(), "write x.to_dense"),
    "meta": (torch.zeros(2, 2, 2, device="meta"), "found on meta, the model is on cpu"),
    "four dims": (torch.zeros(2, 2, 2, 2), "shape|ha[sv]e? .*expected"),
    "no dim": (3, "has? shape|have shape"),
}


def called(method, given):
    """A method on what is no data; the second argument that some have is right."""

    def call(model):
        more = {"forecast": (2,), "posterior": (D.y,), "importance": (D.y,)}.get(method, ())
        if type(model) is IMVLSTM and method in ("log_likelihood", "fit"):
            more = (D.y,)
        return getattr(model, method)(given, *more)

    return call


def no_data(kind):
    """A row for each method and thing that is no data."""
    return {
        f"{method}, {name}": (called(method, given), told)
        for method in ["fit", *METHODS[kind]]
        for name, (given, told) in NO_DATA.items()
    }


TABLES = {kind.__name__: EVERY | constructors(kind) | no_data(kind) for kind in MAKE}


@pytest.mark.stage("system")
@pytest.mark.parametrize("kind, call, told", rows(**TABLES))
def test_a_fault_has_its_error_and_changes_nothing(kind, call, told):
    told_or_right(kind, call, told)


@every_model
def test_after_all_errors_the_model_scores_as_before(kind):
    goes_on(kind)


@every_model
@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_a_place_that_is_a_file(kind, place, tmp_path):
    """The operating system's error, and the file as it was."""
    file = tmp_path / "file"
    file.write_text("mine")
    path, model = file if place == "a file" else file / "model", fitted(kind)[0]
    for _ in range(2):
        with nothing_changes(tmp_path, modules=[model]), pytest.raises(OSError, match="as it was"):
            model.save(path)
        with nothing_changes(tmp_path), pytest.raises(CheckpointError):
            kind.load(path)


@pytest.mark.parametrize(
    "kind, method", [(k, m) for k in (TopicalSSL, GaussianSSL) for m in METHODS[k] if m != "start"]
)
def test_before_the_fit(kind, method):
    model = MAKE[kind]()
    more = (2,) if method == "forecast" else ()
    for _ in range(2):
        with nothing_changes(modules=[model]):
            with pytest.raises(RuntimeError, match=r"is not fitted yet; write ssl.fit\(\w\w?"):
                getattr(model, method)(DATA[kind][0], *more)
    refit(model)
    few = {"num_samples": 2, "warmup_steps": 1, "num_particles": 2}
    options = few if method in ("smooth", "transform") else {}
    getattr(model, method)(DATA[kind][0], *more, **options)


@every_model
@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_a_callback_that_raises(kind, error):
    """Ctrl-C is an end like any other; an error goes on, after a whole epoch that is kept."""
    model = MAKE[kind]()

    def callback(record):
        raise error

    if isinstance(error, KeyboardInterrupt):
        assert len(refit(model, num_epochs=3, callback=callback)) == 1
    else:
        with pytest.raises(type(error)) as caught:
            refit(model, num_epochs=3, callback=callback)
        assert caught.value is error
        assert type(error) is SystemExit or "after 1 whole epochs" in error.__notes__[-1]
    assert len(model.history) == 1 and not model.training and not len(pyro.get_param_store())
    assert score(model).isfinite().all()
    refit(model)


# ----------------------------------------------------------------------- what is no argument


@every_model
def test_autograd_modes(kind):
    model = fitted(kind)[0]
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


@every_model
def test_a_first_epoch_that_fails_is_taken_back(kind, monkeypatch):
    """An error that no check foresees, after the weights have moved."""
    model = fitted(kind)[0]

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


@pytest.mark.stage("system")
def test_two_threads_take_turns():
    """Twenty scores by two threads: each the one number, and nothing left in the store."""
    model, errors, scores = fitted(TopicalSSL)[0], [], []

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
