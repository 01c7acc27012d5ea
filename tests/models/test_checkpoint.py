"""A checkpoint returns all that was saved, or raises an error."""

import json

import pytest
import torch

from pyro_ssl.checkpoint import load_checkpoint, save_checkpoint
from pyro_ssl.errors import CheckpointError


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(tmp_path, "Thing", {"a": torch.randn(40)}, {"size": 0.1})
    return tmp_path


def damage_payload(folder):
    file = next(folder.glob("tensors-*.safetensors"))
    payload = bytearray(file.read_bytes())
    payload[-3] ^= 1
    file.write_bytes(bytes(payload))


def cut_payload(folder):
    file = next(folder.glob("tensors-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-40])


def damage_manifest(folder):
    file = folder / "manifest.json"
    sealed = json.loads(file.read_text())
    sealed["body"] = sealed["body"].replace("0.1", "0.2")
    file.write_text(json.dumps(sealed))


def break_seal(folder):
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "seal": "0"}))


def cut_manifest(folder):
    file = folder / "manifest.json"
    file.write_bytes(file.read_bytes()[:100])


def lose_payload(folder):
    next(folder.glob("tensors-*.safetensors")).unlink()


def test_what_is_saved_is_loaded(folder):
    tensors, config = load_checkpoint(folder, "Thing")
    assert tensors["a"].shape == (40,) and config == {"size": 0.1}


@pytest.mark.parametrize(
    "harm",
    [damage_payload, cut_payload, damage_manifest, break_seal, cut_manifest, lose_payload],
)
def test_a_harmed_checkpoint_is_refused(folder, harm):
    harm(folder)
    with pytest.raises(CheckpointError, match=str(folder)):
        load_checkpoint(folder, "Thing")


def test_no_checkpoint_and_another_kind_are_told(folder, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_checkpoint(tmp_path / "nothing", "Thing")
    with pytest.raises(CheckpointError, match='holds a "Thing", expected a "Thought"'):
        load_checkpoint(folder, "Thought")
