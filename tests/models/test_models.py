"""What is the same in all ready-made models: fitting, its history, and what is saved."""

import json
import math
from dataclasses import asdict

import pyro
import pytest
import torch

from pyro_ssl import GaussianSSL, TopicalSSL
from pyro_ssl.checkpoint import load_checkpoint, save_checkpoint
from pyro_ssl.errors import CheckpointError
from pyro_ssl.models import EpochRecord, Model
from tests.models.worlds import LENGTHS, WORLDS, B, T, fit, log_likelihood, make

every_model = pytest.mark.parametrize("kind", WORLDS, ids=lambda kind: kind.__name__)


def tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def numbers(history):
    """Records as text, in which NaN equals NaN."""
    return json.dumps([asdict(record) for record in history], sort_keys=True)


def fail_at(monkeypatch, world, call, error):
    """Let the model's step raise an error at that call."""
    owner, name = world.step
    step, calls = getattr(owner, name), []

    def broken(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise error
        return step(*args, **kwargs)

    monkeypatch.setattr(owner, name, broken)


# ------------------------------------------------------------------------------------- fitting


@every_model
def test_history_and_callback(kind):
    model, world = make(kind)
    data, seen = world.data(), []

    def callback(record):
        assert not model.training and model.history[-1] is record
        seen.append(record)

    history = fit(model, world, data, valid=world.data(), callback=callback)
    assert history is model.history and history == seen
    assert [record.epoch for record in history] == [1, 2, 3]
    for record in history:
        assert math.isfinite(record.loss) and record.seconds > 0.0
        assert record.score == record.metrics[world.monitor]
        assert math.isfinite(record.score)
    assert not model.training
    fit(model, world, data, num_epochs=1)
    assert len(model.history) == 1  # of the last fit alone


@every_model
def test_without_valid_the_last_epoch_is_kept(kind):
    model, world = make(kind)
    after = []
    options = {"patience": 1, "callback": lambda record: after.append(tensors(model))}
    history = fit(model, world, world.data(), **options)
    assert len(history) == 3 and same(after[-1], tensors(model))
    assert all(math.isnan(record.score) and not record.metrics for record in history)


@every_model
def test_the_best_epoch_is_kept(kind):
    model, world = make(kind)
    after = []
    options = {"num_epochs": 8, "learning_rate": 0.3, "patience": None}
    options["callback"] = lambda record: after.append(tensors(model))
    history = fit(model, world, world.data(), valid=world.data(), **options)
    best = min(range(8), key=lambda i: history[i].score)
    assert len(after) == 8 and same(after[best], tensors(model))
    assert best == 7 or not same(after[7], tensors(model))


@every_model
def test_patience(kind):
    model, world = make(kind)
    options = {"num_epochs": 40, "learning_rate": 0.3, "patience": 2}
    history = fit(model, world, world.data(), valid=world.data(), **options)
    best = min(history, key=lambda record: record.score).epoch
    assert len(history) == best + 2 < 40


@every_model
def test_ctrl_c_in_a_callback_keeps_what_was_reached(kind):
    model, world = make(kind)
    after = []

    def callback(record):
        after.append(tensors(model))
        if record.epoch == 2:
            raise KeyboardInterrupt

    history = fit(model, world, world.data(), valid=world.data(), callback=callback)
    best = min(history, key=lambda record: record.score).epoch
    assert len(history) == 2 and history is model.history and not model.training
    assert same(after[best - 1], tensors(model))


@every_model
@pytest.mark.parametrize("with_valid", [True, False])
def test_ctrl_c_in_an_epoch_keeps_what_was_reached(kind, with_valid, monkeypatch):
    model, world = make(kind)
    data, after = world.data(), []
    fail_at(monkeypatch, world, 3, KeyboardInterrupt())
    options = {"valid": world.data()} if with_valid else {}
    options["callback"] = lambda record: after.append(tensors(model))
    history = fit(model, world, data, **options)
    best = min(history, key=lambda record: record.score).epoch if with_valid else 2
    assert [record.epoch for record in history] == [1, 2] and not model.training
    assert same(after[best - 1], tensors(model))
    assert log_likelihood(model, world, data).isfinite().all()


@every_model
def test_an_error_in_an_epoch_goes_on_with_a_note(kind, monkeypatch):
    model, world = make(kind)
    after = []
    fail_at(monkeypatch, world, 3, RuntimeError("of the machine"))
    with pytest.raises(RuntimeError, match="of the machine") as caught:
        options = {"callback": lambda record: after.append(tensors(model))}
        fit(model, world, world.data(), valid=world.data(), **options)
    best = min(model.history, key=lambda record: record.score).epoch
    assert len(model.history) == 2 and not model.training
    assert same(after[best - 1], tensors(model))
    (note,) = caught.value.__notes__
    assert f"{kind.__name__}: this ended the fit after 2 whole epochs" in note
    assert f"the model is at epoch {best}, the best" in note


@every_model
def test_param_store_is_left_as_it_was(kind):
    pyro.param("mine", torch.zeros(2))
    model, world = make(kind)
    data = world.data()
    fit(model, world, data, valid=data)
    log_likelihood(model, world, data)
    assert list(pyro.get_param_store().keys()) == ["mine"]


@every_model
def test_same_seed_same_model(kind):
    data, found = WORLDS[kind].data(), []
    for _ in range(2):
        pyro.set_rng_seed(3)
        model, world = make(kind)
        fit(model, world, data)
        found.append(tensors(model))
    assert same(*found)


# ------------------------------------------------------------------------------------- scoring


@every_model
def test_log_likelihood(kind):
    """It has every step, and is 0 past the lengths; the IMV-LSTM's has every window."""
    model, world = make(kind)
    data = world.data()
    fit(model, world, data)
    log_p = log_likelihood(model, world, data)
    if world.data()[1] is LENGTHS:
        assert log_p.shape == (T, B) and log_p.dtype == torch.float64
        assert ((log_p != 0) == (torch.arange(T)[:, None] < LENGTHS)).all()
    else:
        assert log_p.shape == (9,)


@every_model
def test_score_is_that_of_the_log_likelihood(kind):
    model, world = make(kind)
    data = world.data()
    found = fit(model, world, data, valid=data, num_epochs=1)[0]
    many = {"num_particles": 2000} if world.score else {}
    log_p = model.log_likelihood(*data, **many)
    mean = float(log_p.sum() / (LENGTHS.sum() if log_p.dim() == 2 else len(log_p)))
    expected = math.exp(-mean) if world.monitor == "perplexity" else -mean
    assert found.score == pytest.approx(expected, rel=0.1 if many else 1e-9)


# -------------------------------------------------------------------------- tensors and files


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_dict_and_config_are_the_whole_model(kind, dtype):
    model, world = make(kind)
    model.to(dtype)
    data = [value.to(dtype) if value.is_floating_point() else value for value in world.data()]
    fit(model, world, data)
    copy = kind(**json.loads(json.dumps(model.config))).to(dtype).eval()
    copy.load_state_dict(model.state_dict())
    assert same(tensors(copy), tensors(model))
    assert all(value.dtype == dtype for value in tensors(copy).values())
    expected = log_likelihood(model, world, data)
    assert torch.equal(log_likelihood(copy, world, data), expected)


@every_model
def test_save_and_load(kind, tmp_path):
    model, world = make(kind)
    model.to(torch.float32)
    data = [value.float() if value.is_floating_point() else value for value in world.data()]
    fit(model, world, data, valid=data)
    model.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model")
    assert loaded.config == model.config and not loaded.training
    assert numbers(loaded.history) == numbers(model.history)
    assert all(isinstance(record, EpochRecord) for record in loaded.history)
    assert same(tensors(loaded), tensors(model))
    expected = log_likelihood(model, world, data)
    assert torch.equal(log_likelihood(loaded, world, data), expected)
    model.save(tmp_path / "model")  # over itself: one payload is left
    assert len(list((tmp_path / "model").iterdir())) == 2


@pytest.mark.stage("system")
@every_model
def test_a_checkpoint_that_does_not_fit_is_told(kind, tmp_path):
    model, world = make(kind)
    fit(model, world, world.data())
    model.save(tmp_path)
    saved, config = load_checkpoint(tmp_path, kind.__name__)
    for name in saved:
        rest = {other: value for other, value in saved.items() if other != name}
        save_checkpoint(tmp_path, kind.__name__, rest, config)
        match = f"found {name} of shape None, .* fits this version of {kind.__name__}; fit and save"
        with pytest.raises(CheckpointError, match=match):
            kind.load(tmp_path)
    other = next(kind for kind in WORLDS if kind is not type(model))
    with pytest.raises(CheckpointError, match=f'holds a "{kind.__name__}", expected a'):
        other.load(tmp_path)


@every_model
def test_is_a_module(kind):
    model, world = make(kind)
    assert isinstance(model, Model)
    assert model.num_parameters == sum(p.numel() for p in model.parameters()) > 0
    assert model.train().training and not model.eval().training


@pytest.mark.parametrize("kind", [TopicalSSL, GaussianSSL])
def test_an_unfitted_model_says_what_to_write(kind, tmp_path):
    model, world = make(kind)
    calls = [lambda: model.save(tmp_path), lambda: model.log_likelihood(*world.data())]
    if kind is TopicalSSL:
        calls += [model.topics, lambda: model.transform(*world.data())]
        calls += [lambda: model.perplexity(*world.data()), lambda: model.fitted_model]
    else:
        calls += [lambda: model.filter(*world.data()), lambda: model.forecast(world.data()[0], 2)]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"is not fitted yet; write ssl.fit\(\w+\) first"):
            call()


def test_what_is_fitted_is_loaded_in_any_shape():
    """Into a model that was fitted to data of another width."""
    models = []
    for E in (2, 3):
        model, world = make(GaussianSSL)
        fit(model, world, (torch.randn(T, B, E),), num_epochs=1)
        models.append(model)
    models[0].load_state_dict(models[1].state_dict())
    assert models[0].loading.shape == (3, 2)
    assert same(*map(tensors, models))
    with pytest.raises(RuntimeError, match="Missing key"):  # never unfitted in silence
        models[0].load_state_dict(make(GaussianSSL)[0].state_dict())
