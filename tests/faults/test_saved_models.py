"""Saved models that say what is not so: all are told, and nothing is left by a load."""

import pytest
import torch

from pyro_ssl import IMVLSTM, GaussianSSL, LanguageModel, TopicalSSL
from pyro_ssl.checkpoint import load_checkpoint, save_checkpoint
from pyro_ssl.errors import CheckpointError
from tests.faults.digest import nothing_changes
from tests.faults.models import NAN, every_model, fitted, refit


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
def test_a_checkpoint_that_lies_is_told(kind, lie, tmp_path):
    fitted(kind)[0].save(tmp_path)
    tensors, saved = load_checkpoint(tmp_path, kind.__name__)
    lie(tensors, saved)
    save_checkpoint(tmp_path, kind.__name__, tensors, saved)
    with nothing_changes(tmp_path), pytest.raises(CheckpointError, match="fit and save the model"):
        kind.load(tmp_path)


@every_model
def test_a_load_draws_no_random_numbers(kind, tmp_path):
    fitted(kind)[0].save(tmp_path)
    with nothing_changes(tmp_path, modules=[fitted(kind)[0]]):
        loaded = kind.load(tmp_path)
    assert all(
        map(torch.equal, loaded.state_dict().values(), fitted(kind)[0].state_dict().values())
    )
    refit(loaded)
