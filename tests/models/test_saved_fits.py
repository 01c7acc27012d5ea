"""Fits that are stopped at any epoch and go on elsewhere: to the last bit the same.

Nothing here is a matter of chance: two fits from one seed are the same, or they are not.
"""

import warnings
from dataclasses import asdict

import pyro
import pytest
import torch
from pyro.infer import SVI

from pyro_ssl import IMVLSTM, GaussianSSL, LanguageModel, StochasticEM, TopicalSSL
from pyro_ssl.errors import CheckpointError
from tests.faults.digest import (
    digest_of_folder,
    digest_of_generators,
    digest_of_tensors,
    nothing_changes,
)
from tests.faults.disk import damage, full_disk, newest_save

pytestmark = pytest.mark.stage("system")

T, B, V = 6, 8, 5
EPOCHS = 3


def words(seed=7):
    return torch.randint(V, (T, B), generator=torch.Generator().manual_seed(seed))


def series(seed=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(T, 2, 2, generator=generator).cumsum(0)


def counts(seed=7):
    return series(seed).abs().round()


def flags(seed=7):
    return (series(seed) > 0.0).double()


def windows(seed=7):
    return torch.randn(20, 4, 2, generator=torch.Generator().manual_seed(seed))


def topical():
    return TopicalSSL(3, V, hidden_size=4)


def language():
    return LanguageModel(V, embedding_size=2, hidden_size=3)


def plateau():
    args = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "patience": 0}
    return pyro.optim.ReduceLROnPlateau(args)


HMM = {"markov_steps": 2, "markov_starts": 2, "transition_steps": 2, "num_valid_particles": 4}
scored = {"valid": (words(8), None)}
pairs = {"y": windows()[:, 0, 0]}

#: model, data, arguments of a fit
FITS = {
    "topical": (topical, words, {**HMM, **scored}),
    "topical, no start": (topical, words, {"markov_steps": 0}),
    "topical, minibatches": (topical, words, {**HMM, "batch_size": 3, "num_gradient_steps": 2}),
    "topical, SMC": (topical, words, {**HMM, "inference": "smc", "num_particles": 1}),
    "topical, mean field": (topical, words, {**HMM, "inference": "mean_field", **scored}),
    "topical, mean field, no start": (
        *(topical, words),
        {"markov_steps": 0, "inference": "mean_field", "num_particles": 2},
    ),
    "Gaussian": (lambda: GaussianSSL(2, hidden_size=4), series, {"num_paths": 2}),
    "Gaussian, scored": (
        *(lambda: GaussianSSL(2, hidden_size=4, cell="mlstm"), series),
        {"num_paths": 2, "learn_loading": True, "valid": (series(8),), "num_valid_particles": 5},
    ),
    "Gaussian, linear": (
        *(lambda: GaussianSSL(2, hidden_size=4, linear=True, noise="diagonal"), series),
        {"num_paths": 2, "linear_steps": 2, "batch_size": 1, "valid": (series(8),)},
    ),
    "Gaussian, flags": (
        *(lambda: GaussianSSL(2, hidden_size=4, emission="bernoulli"), flags),
        {"num_paths": 2, "batch_size": 1, "valid": (flags(8),), "num_valid_particles": 5},
    ),
    "Gaussian, counts": (
        *(lambda: GaussianSSL(1, hidden_size=4, linear=True, emission="poisson"), counts),
        {"num_paths": 2, "linear_steps": 2},
    ),
    "Gaussian, outliers": (
        *(lambda: GaussianSSL(2, hidden_size=4, emission="student_t"), series),
        {"num_paths": 2, "learn_loading": True},
    ),
    "language": (language, words, {"batch_size": 3, **scored}),
    "IMV": (lambda: IMVLSTM(2, 3, dropout=0.3), windows, {"batch_size": 7, **pairs}),
    "IMV, plateau": (
        *(lambda: IMVLSTM(2, 3), windows),
        {"optim": plateau, "valid": (windows(8), windows(8)[:, 1, 1]), **pairs},
    ),
}


def fit(name, folder=None, stop=None, seed=0, **options):
    """A fit in a process of its own, as far as one test can have it, perhaps stopped."""
    make, data, given = FITS[name]
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    model, given = make(), {**given, "num_epochs": EPOCHS, "disable_progbar": True, **options}
    if callable(given.get("optim")):
        given["optim"] = given["optim"]()

    def callback(record):
        if record.epoch == stop:
            raise KeyboardInterrupt

    where = {} if folder is None else {"checkpoint": folder}
    model.fit(data(), **{"callback": callback, **where, **given})
    return model


def all_of(model):
    """All that a fit leaves, but for the clock."""
    history = [{**asdict(record), "seconds": 0.0} for record in model.history]
    markov = getattr(model, "markov", None)
    start = None if markov is None else digest_of_tensors({"A": markov.matrix, **markov.values})
    tensors = digest_of_tensors(model.state_dict())
    return tensors, repr(history), start, model.training, digest_of_generators()


@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_is_stopped_goes_on_as_if_it_never_was(tmp_path, name):
    expected = all_of(fit(name))
    fit(name, tmp_path / "run", 2)
    assert all_of(fit(name, tmp_path / "run", seed=2, resume=True)) == expected
    assert all_of(fit(name, tmp_path / "run", seed=9, resume=True))[:3] == expected[:3]


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("name", FITS)
def test_saves_change_nothing(tmp_path, name):
    assert all_of(fit(name, tmp_path)) == all_of(fit(name))


def interrupted(owner, after):
    """Its method ``step``, which Ctrl-C ends after so many calls."""
    calls, step = [], owner.step

    def wrong(self, *args, **kwargs):
        calls.append(self)
        if len(calls) > after:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    return wrong


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.stage("nightly")), 2])
@pytest.mark.parametrize(
    "name, owner",
    [
        ("topical, minibatches", StochasticEM),
        ("topical, mean field", SVI),
        ("Gaussian", StochasticEM),
        ("language", torch.optim.AdamW),
        ("IMV", SVI),
    ],
)
def test_a_fit_is_stopped_amid_an_epoch(tmp_path, monkeypatch, name, owner, after):
    """The last save stands, and there is one before the first epoch."""
    expected = all_of(fit(name))
    with monkeypatch.context() as patch:
        patch.setattr(owner, "step", interrupted(owner, after))
        fit(name, tmp_path)
    assert all_of(fit(name, tmp_path, seed=5, resume=True))[:3] == expected[:3]


def test_a_finished_fit_goes_on_to_more_epochs(tmp_path):
    expected = all_of(fit("language", num_epochs=6))
    fit("language", tmp_path)
    before = digest_of_folder(tmp_path)
    assert len(fit("language", tmp_path, seed=3, resume=True).history) == EPOCHS
    assert digest_of_folder(tmp_path) == before
    assert all_of(fit("language", tmp_path, seed=3, resume=True, num_epochs=6)) == expected


def test_patience_that_has_run_out_stays_so(tmp_path):
    how = {"num_epochs": 40, "patience": 1, "learning_rate": 0.5}
    expected = all_of(fit("language", tmp_path, **how))
    assert expected[1].count("'epoch'") < 40
    assert all_of(fit("language", tmp_path, seed=3, resume=True, **how))[:3] == expected[:3]


def test_a_start_is_not_lost(tmp_path):
    """Who is stopped in the first epoch needs no HMM again."""
    expected = all_of(fit("topical"))
    fit("topical", tmp_path, num_epochs=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_ssl.models.topical.search_markov", None)
        assert all_of(fit("topical", tmp_path, seed=3, resume=True)) == expected


def test_fewer_saves(tmp_path):
    expected = all_of(fit("language"))
    fit("language", tmp_path, every=2, num_epochs=2)
    assert all_of(fit("language", tmp_path, seed=2, every=3, resume=True)) == expected


OTHER = {
    "settings": ({"learning_rate": 0.5}, r"settings: learning_rate is 0\.01 there and 0\.5 here"),
    "data": ({"data": words(9)}, r"data: words is int64 \(6, 8\) \w+ there and int64 \(6, 8\)"),
    "valid": ({"valid": (words(9), None)}, "data: valid is .* there and"),
    "model": ({"model": lambda: TopicalSSL(2, V, hidden_size=4)}, "num_topics is 3 there and 2"),
    "dtype": ({"model": lambda: topical().float()}, "dtype is torch.float64 there and torch.float"),
    "kind": ({"model": language}, "expected a"),
}


@pytest.mark.parametrize("what", OTHER)
def test_another_fit_is_refused(tmp_path, what):
    fit("topical", tmp_path, 2)
    change, told = OTHER[what]
    model = change.get("model", topical)()
    given = {} if what == "kind" else {**FITS["topical"][2], "disable_progbar": True}
    given |= {name: value for name, value in change.items() if name not in ("model", "data")}
    with nothing_changes(tmp_path, modules=[model]):
        with pytest.raises(CheckpointError, match=told):
            model.fit(change.get("data", words()), checkpoint=tmp_path, resume=True, **given)
    with nothing_changes(tmp_path, modules=[model]):
        with pytest.raises(CheckpointError, match="write resume=True to go on from it"):
            model.fit(words(), checkpoint=tmp_path, disable_progbar=True)


def test_a_damaged_newest_save_is_passed_over(tmp_path):
    expected = all_of(fit("topical"))
    fit("topical", tmp_path, 2)
    damage(newest_save(tmp_path), "cut")
    with pytest.warns(RuntimeWarning, match="one of its two checkpoints is damaged"):
        assert all_of(fit("topical", tmp_path, seed=3, resume=True)) == expected


def test_a_full_disk_is_told_and_the_fit_goes_on(tmp_path):
    expected = all_of(fit("language"))
    fit("language", tmp_path, 2)
    before = digest_of_folder(tmp_path)
    told = pytest.warns(RuntimeWarning, match=r"epoch \d could not be saved .*No space left")
    with full_disk(), told:
        assert all_of(fit("language", tmp_path, seed=3, resume=True)) == expected
    assert digest_of_folder(tmp_path) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all_of(fit("language", tmp_path, seed=3, resume=True)) == expected


@pytest.mark.parametrize("name", ["topical", "Gaussian, scored", "language", "IMV"])
def test_a_fit_in_progress_is_read(tmp_path, name):
    """The best epoch so far, or the last."""
    seen = []

    def callback(record):
        if record.epoch > 1:
            seen.append(type(model).load(tmp_path))

    pyro.set_rng_seed(0)
    make, data, given = FITS[name]
    model = make()
    given = {**given, "checkpoint": tmp_path, "callback": callback, "disable_progbar": True}
    model.fit(data(), num_epochs=3, **given)
    found = type(model).load(tmp_path)
    assert [len(one.history) for one in (*seen, found)] == [1, 2, 3]
    assert digest_of_tensors(found.state_dict()) == digest_of_tensors(model.state_dict())
    assert not found.training and found.config == model.config


def test_a_fit_of_another_kind_is_not_read(tmp_path):
    fit("language", tmp_path)
    with nothing_changes(tmp_path), pytest.raises(CheckpointError, match="holds a"):
        TopicalSSL.load(tmp_path)
