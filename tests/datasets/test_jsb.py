import gzip
import json
import lzma
import os
from pathlib import Path

import pytest
import torch

from pyro_ssl.datasets import jsb_chorales

# The lowest and the highest key of a piano, a step in which nothing sounds, one note twice.
CHORALES = {
    "train": [[[21, 108], [], [60, 60]], [[60]]],
    "valid": [[[], []]],
    "test": [[[22], [23]], [[24]], [[25], [26], [27], [28]]],
}
OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def write(folder, content=CHORALES, suffix="", name="jsb-chorales-quarter.json"):
    folder.mkdir(exist_ok=True)
    with OPENERS[suffix](folder / f"{name}{suffix}", "wt") as file:
        file.write(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize("suffix", OPENERS)
def test_packagings(tmp_path, suffix):
    folder = write(tmp_path / "jsb", suffix=suffix)
    file = folder / f"jsb-chorales-quarter.json{suffix}"
    for path in (tmp_path, folder, str(folder), file):
        read = jsb_chorales(path)
        for part, chorales in CHORALES.items():
            rolls = getattr(read, part)
            assert rolls.lengths.tolist() == [len(chorale) for chorale in chorales]
            sounding = [[int(t), int(b), int(k) + 21] for t, b, k in rolls.x.nonzero()]
            assert sorted(sounding) == sorted(
                [t, b, note]
                for b, chorale in enumerate(chorales)
                for t, notes in enumerate(chorale)
                for note in set(notes)
            )
            assert bool(((rolls.x == 0) | (rolls.x == 1)).all())


def test_shapes_dtypes_and_mask(tmp_path):
    train = jsb_chorales(write(tmp_path)).train
    assert train.x.shape == (3, 2, 88) and train.x.dtype == torch.get_default_dtype()
    assert train.lengths.dtype == torch.int64 and train.num_steps == 4
    assert train.mask.tolist() == [[True, True], [True, False], [True, False]]
    assert train.to("meta").x.device.type == "meta"


def test_other_resolutions_are_read_if_they_are_named(tmp_path):
    folder = write(tmp_path, name="jsb-chorales-8th.json")
    assert jsb_chorales(folder / "jsb-chorales-8th.json").test.num_steps == 7
    with pytest.raises(FileNotFoundError):
        jsb_chorales(folder)


class TestErrorsTeach:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"found no such file.*jsb_chorales\('path/to"):
            jsb_chorales(tmp_path)

    @pytest.mark.parametrize("content", ['{"train": [', "", "[" * 100_000])
    def test_no_json(self, tmp_path, content):
        with pytest.raises(ValueError, match="found no JSON"):
            jsb_chorales(write(tmp_path, content))

    @pytest.mark.parametrize("content", [[1], {"train": [[[60]]]}, {**CHORALES, "valid": 3}])
    def test_another_file(self, tmp_path, content):
        with pytest.raises(ValueError, match="expected an object of the lists train, valid and"):
            jsb_chorales(write(tmp_path, content))

    def test_nothing_in_a_part(self, tmp_path):
        with pytest.raises(ValueError, match="found no chorale in 'test'"):
            jsb_chorales(write(tmp_path, {**CHORALES, "test": []}))

    @pytest.mark.parametrize("chorale", [[], 60, None])
    def test_no_steps(self, tmp_path, chorale):
        with pytest.raises(ValueError, match="as chorale 1 of 'valid' of .*one at least"):
            jsb_chorales(write(tmp_path, {**CHORALES, "valid": [[[60]], chorale]}))

    @pytest.mark.parametrize("notes", [60, [20], [109], [60.0], [True], ["60"], [None]])
    def test_no_notes(self, tmp_path, notes):
        content = {**CHORALES, "train": [[[60]], [[60], [], notes]]}
        message = "as step 2 of chorale 1 of 'train' of .*MIDI numbers from 21 to 108"
        with pytest.raises(ValueError, match=message):
            jsb_chorales(write(tmp_path, content))


@pytest.fixture(scope="module")
def chorales():
    folder = Path(os.environ.get("PYRO_SSL_DATA", "."), "jsb")
    if not folder.exists():
        pytest.skip("PYRO_SSL_DATA names no folder that holds jsb")
    return jsb_chorales(folder)


@pytest.mark.parametrize(
    ("part", "pieces", "steps", "notes", "silent"),
    [("train", 229, 13_807, 53_824, 18), ("valid", 76, 4_602, 17_811, 29)]
    + [("test", 77, 4_725, 18_367, 17)],
)
def test_published_counts(chorales, part, pieces, steps, notes, silent):
    rolls = getattr(chorales, part)
    assert rolls.x.shape[1:] == (pieces, 88) and rolls.num_steps == steps
    assert int(rolls.x.sum()) == notes
    assert int((rolls.x.sum(-1) == 0)[rolls.mask].sum()) == silent
    keys = rolls.x.flatten(0, 1).sum(0).nonzero() + 21
    assert 43 <= int(keys.min()) and int(keys.max()) == 96
