"""Saved files: whatever happens to them is told, and a save leaves the old one or the new one.

Nothing here is a matter of chance: one file in which damage went unseen is a failure, and each
place of damage is drawn from a generator with a fixed seed. So there are no false alarms.
"""

import errno
import hashlib
import json
import os
import random
import re
import resource
import signal
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pyro
import pytest
import torch

from pyro_ssl import IMVLSTM, GaussianSSL, LanguageModel, TopicalSSL
from pyro_ssl.checkpoint import load_checkpoint, save_checkpoint
from pyro_ssl.datasets import UNKNOWN, Vocabulary
from pyro_ssl.errors import CheckpointError
from pyro_ssl.storage import reading
from tests.faults.digest import digest_of_folder, digest_of_generators, nothing_changes
from tests.faults.nursery import nursery_of

# ---------------------------------------------------------------------------- what can be saved


class Plain:
    """A checkpoint without a model."""

    tensors = {"a": torch.arange(12.0).view(3, 4), "b": torch.tensor([1, 2]), "c": torch.zeros(0)}

    def save(self, path):
        save_checkpoint(path, "Plain", self.tensors, {"size": 3, "history": [1.5, float("nan")]})

    @classmethod
    def load(cls, path):
        found = cls()
        found.tensors, found.config = load_checkpoint(path, "Plain")
        return found


class Words:
    """A vocabulary, in a folder of its own as the others are."""

    vocabulary = Vocabulary([UNKNOWN, "été", 'a"b', "\ud800", "dog\n"])

    def save(self, path):
        self.vocabulary.save(path / "words.json")

    @classmethod
    def load(cls, path):
        found = cls()
        found.vocabulary = Vocabulary.load(path / "words.json")
        return found


def fitted(kind):
    if kind in ("Plain", "Words"):
        return {"Plain": Plain, "Words": Words}[kind]()
    few = {"num_epochs": 1, "disable_progbar": True}
    words = torch.randint(5, (4, 6))
    if kind == "TopicalSSL":
        model = TopicalSSL(2, ["a", "b", "c", "d", "e"], hidden_size=2)
        model.fit(words, markov_starts=1, **few)
    elif kind == "GaussianSSL":
        model = GaussianSSL(2, hidden_size=2)
        model.fit(torch.randn(6, 3, 2).cumsum(0), **few)
    elif kind == "IMVLSTM":
        model = IMVLSTM(2, 2)
        model.fit(torch.randn(20, 4, 2), torch.randn(20), **few)
    else:
        model = LanguageModel(5, embedding_size=2, hidden_size=2)
        model.fit(words, **few)
    return model


KINDS = ["Plain", "Words", "TopicalSSL", "GaussianSSL", "IMVLSTM", "LanguageModel"]


def contents(folder):
    """The bytes of each file in a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What each kind saves: its class, the folder, and the bytes of the files in it."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            with torch.random.fork_rng():
                pyro.set_rng_seed(0)
                model = fitted(kind)
            model.save(folder)
            made[kind] = type(model), folder, contents(folder)
        return made[kind]

    return of


# ------------------------------------------------------------------------------------- damage


def damaged(content, draw):
    """Cut a file short, or flip a few of its bits."""
    if draw.random() < 0.3:
        return content[: draw.randrange(len(content))]
    bits = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        bits[draw.randrange(len(bits))] ^= 1 << draw.randrange(8)
    return bytes(bits)


def check_damage(saved, kind, num_damages, tmp_path):
    """Each damage is told with the place, or what is loaded is what was saved."""
    cls, folder, files = saved(kind)
    draw = random.Random(f"{kind}, {num_damages}")
    harmless = 0
    for i in range(num_damages):
        name = draw.choice(sorted(files))
        (folder / name).write_bytes(damaged(files[name], draw))
        before = digest_of_generators(), digest_of_folder(folder)
        try:
            loaded = cls.load(folder)
        except CheckpointError as error:
            assert str(folder) in str(error)
            assert (digest_of_generators(), digest_of_folder(folder)) == before
        else:
            harmless += 1
            loaded.save(tmp_path / str(i))
            assert contents(tmp_path / str(i)) == files
        finally:
            (folder / name).write_bytes(files[name])
    assert harmless <= 2 + 0.05 * num_damages


@pytest.mark.stage("system")
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told(saved, kind, tmp_path):
    check_damage(saved, kind, 17, tmp_path)


@pytest.mark.stage("system")
@pytest.mark.parametrize("kind", KINDS)
def test_much_damage_is_told(saved, kind, tmp_path):
    check_damage(saved, kind, 500, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_two_saves_in_a_row_are_one(saved, kind):
    cls, folder, files = saved(kind)
    model = cls.load(folder)
    for _ in range(2):
        model.save(folder)
        assert contents(folder) == files


# ------------------------------------------------------------------------ manifests that lie


def reseal(folder, payload=None, outer=(), **changes):
    """Write a manifest whose seal is right, for a payload whose hash is; ... takes a key away."""
    manifest = json.loads((folder / "manifest.json").read_text())
    body = json.loads(manifest["body"])
    if payload is not None:
        digest = hashlib.sha256(payload).hexdigest()
        name = f"tensors-{digest[:16]}.safetensors"
        (folder / name).write_bytes(payload)
        body |= {"tensors": name, "bytes": len(payload), "sha256": digest}
    text = json.dumps({k: v for k, v in (body | changes).items() if v is not ...})
    sealed = {**manifest, "seal": hashlib.sha256(text.encode()).hexdigest(), "body": text}
    sealed = {k: v for k, v in (sealed | dict(outer)).items() if v is not ...}
    (folder / "manifest.json").write_text(json.dumps(sealed))


def packed(head, data=b"", size=None):
    """A safetensors file with this head, which may lie about its size."""
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(head) if size is None else size) + head + data


def one(shape, end=4, dtype="F32", start=0):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def manifest_of(folder):
    return folder / "manifest.json"


def tensors_of(folder):
    return next(folder.glob("tensors-*"))


def moved_out(file):
    """Move a file beside its folder, and tell where to."""
    return file.rename(file.parent.parent / "secret")


def linked(file):
    file.symlink_to(moved_out(file))


def pipe(file):
    file.unlink()
    os.mkfifo(file)


def device(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def hollow(file):
    """Terabytes of zeros that take no room on the disk."""
    with open(file, "wb") as content:
        content.truncate(2**42)


def longer(file):
    file.write_bytes(file.read_bytes() + b"0")


def made_folder(file):
    file.unlink()
    file.mkdir()


def sealed_text(text):
    seal = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"format": 1, "seal": seal, "body": text})


FOUR = b"\0" * 4
DEEP = "[" * 200_000

# What is done to a good checkpoint, and what the error tells beside the folder's name.
HOSTILE = {
    # files elsewhere, files that are none, files without end
    "upwards": (lambda f: reseal(f, tensors=f"../{moved_out(tensors_of(f)).name}"), "the name"),
    "absolute": (lambda f: reseal(f, tensors=str(moved_out(tensors_of(f)))), "the name"),
    "in the hash": (
        lambda f: reseal(
            f, sha256="/../../" + "a" * 57, tensors="tensors-/../../aaaaaaaaa.safetensors"
        ),
        "the name",
    ),
    "tensors, link": (lambda f: linked(tensors_of(f)), "a link in place of the file tensors-"),
    "manifest, link": (lambda f: linked(manifest_of(f)), "a link in place of the file manifest"),
    "tensors, pipe": (lambda f: pipe(tensors_of(f)), "a folder, pipe or device in place"),
    "manifest, pipe": (lambda f: pipe(manifest_of(f)), "a folder, pipe or device in place"),
    "tensors, device": (lambda f: device(tensors_of(f)), "a link in place"),
    "manifest, device": (lambda f: device(manifest_of(f)), "a link in place"),
    "tensors, folder": (lambda f: made_folder(tensors_of(f)), "a folder, pipe or device in place"),
    "manifest, folder": (lambda f: made_folder(manifest_of(f)), "a folder, pipe or device"),
    "tensors, hollow": (lambda f: hollow(tensors_of(f)), "4,398,046,511,104 bytes in tensors-"),
    "manifest, hollow": (lambda f: hollow(manifest_of(f)), "4,398,046,511,104 bytes in manifest"),
    "tensors, more": (lambda f: longer(tensors_of(f)), "where .* may be"),
    "tensors, none": (lambda f: tensors_of(f).unlink(), "tensors-.* is missing"),
    "manifest, none": (lambda f: manifest_of(f).unlink(), "no checkpoint here"),
    # manifests
    "empty": (lambda f: manifest_of(f).write_bytes(b""), "JSONDecodeError"),
    "latin-1": (lambda f: manifest_of(f).write_bytes(b'{"\xe9": 1}'), "UnicodeDecodeError"),
    "deep": (lambda f: manifest_of(f).write_text(DEEP), "RecursionError"),
    "deep inside": (lambda f: manifest_of(f).write_text(sealed_text(DEEP)), "RecursionError"),
    "long number": (lambda f: manifest_of(f).write_text('{"format": ' + "9" * 5000), "digits"),
    "a list": (lambda f: manifest_of(f).write_text("[]"), "<class 'list'> in manifest"),
    "a number": (lambda f: manifest_of(f).write_text("1"), "<class 'int'> in manifest"),
    "newer": (lambda f: reseal(f, outer={"format": 2}), "format 2, .* pip install --upgrade"),
    "older": (lambda f: reseal(f, outer={"format": 0}), "altered"),
    "no format": (lambda f: reseal(f, outer={"format": ...}), "in manifest.json, where"),
    "format as text": (lambda f: reseal(f, outer={"format": "1"}), "in manifest.json, where"),
    "format inside": (lambda f: reseal(f, format=2), "in manifest.json, where"),
    "no seal": (lambda f: reseal(f, outer={"seal": ...}), "in manifest.json, where"),
    "another seal": (lambda f: reseal(f, outer={"seal": "0" * 64}), "altered"),
    "no body": (lambda f: reseal(f, outer={"body": ...}), "in manifest.json, where"),
    "body as it is": (lambda f: reseal(f, outer={"body": {}}), "in manifest.json, where"),
    "body of a list": (lambda f: manifest_of(f).write_text(sealed_text("[]")), "<class 'list'>"),
    "one key more": (lambda f: reseal(f, more=1), "in manifest.json, where"),
    "no kind": (lambda f: reseal(f, kind=...), "in manifest.json, where"),
    "kind, none": (lambda f: reseal(f, kind=None), "in manifest.json, where"),
    "another kind": (lambda f: reseal(f, kind="Other"), 'holds a "Other", expected a "Plain"'),
    "no config": (lambda f: reseal(f, config=...), "in manifest.json, where"),
    "config, list": (lambda f: reseal(f, config=[1]), "in manifest.json, where"),
    "no hash": (lambda f: reseal(f, sha256=...), "in manifest.json, where"),
    "short hash": (lambda f: reseal(f, sha256="ab"), "the name"),
    "another hash": (lambda f: reseal(f, sha256="0" * 64), "the name"),
    "bytes, text": (lambda f: reseal(f, bytes="12"), "in manifest.json, where"),
    "bytes, float": (lambda f: reseal(f, bytes=1e99), "in manifest.json, where"),
    "bytes, less": (lambda f: reseal(f, bytes=-1), "where -1 may be"),
    "bytes, more": (lambda f: reseal(f, bytes=2**60), "a damaged tensors-"),
    # tensors that lie about themselves, under a hash that is right
    "no head": (lambda f: reseal(f, b""), "SafetensorError"),
    "head too long": (lambda f: reseal(f, packed({}, size=2**63)), "SafetensorError"),
    "head of gigabytes": (lambda f: reseal(f, packed({}, size=2**33)), "SafetensorError"),
    "head, deep": (lambda f: reseal(f, packed(DEEP.encode())), "SafetensorError"),
    "head, not JSON": (lambda f: reseal(f, packed(b"{'a'}")), "SafetensorError"),
    "shape, larger": (lambda f: reseal(f, packed(one([2**40]), FOUR)), "SafetensorError"),
    "shape, overflow": (lambda f: reseal(f, packed(one([2**62, 8]), FOUR)), "SafetensorError"),
    "shape, negative": (lambda f: reseal(f, packed(one([-1]), FOUR)), "SafetensorError"),
    "strides": (lambda f: reseal(f, packed(one([0, 2**62, 9], 0))), "RuntimeError"),
    "dtype": (lambda f: reseal(f, packed(one([1], dtype="F99"), FOUR)), "SafetensorError"),
    "dtype, unknown to torch": (lambda f: reseal(f, packed(one([2], 1, "F4"), b"0")), "KeyError"),
    "offsets, outside": (lambda f: reseal(f, packed(one([1], 8, start=4), FOUR)), "Safetensor"),
    "offsets, reversed": (lambda f: reseal(f, packed(one([1], 0, start=4), FOUR)), "Safetensor"),
    "bytes of none": (lambda f: reseal(f, packed({}, FOUR)), "SafetensorError"),
}


@contextmanager
def bounded_memory(most=2**28):
    """The block may ask for so many bytes more than there are now."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("lie", HOSTILE)
def test_a_manifest_that_lies_is_told(tmp_path, lie):
    spoil, told = HOSTILE[lie]
    folder = tmp_path / "model"
    Plain().save(folder)
    spoil(folder)
    with nothing_changes(tmp_path), bounded_memory():
        with pytest.raises(CheckpointError, match=told) as caught:
            Plain.load(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert len(str(caught.value)) < 1000
    if all(file.is_file() or file.is_symlink() for file in folder.iterdir()):
        Plain().save(folder)
        assert Plain.load(folder).config["size"] == 3
        assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("load", [Plain.load, Vocabulary.load, TopicalSSL.load])
@pytest.mark.parametrize("place", ["nothing", "nothing/deeper", "x" * 300, "a\0b"])
def test_nothing_there_is_told(tmp_path, load, place):
    with nothing_changes(tmp_path), pytest.raises(CheckpointError) as caught:
        load(tmp_path / place)
    assert str(tmp_path) in str(caught.value)


VOCABULARIES = {
    "": "JSONDecodeError",
    "[1]": "no list of words",
    "{}": "no list of words",
    '{"words": 3}': "no list of words",
    '{"words": [1]}': "found 1 at id 0, expected a string",
    '{"words": []}': r"found \(\) at id 0",
    '{"words": ["cat"]}': r"found \('cat',\) at id 0",
    '{"words": ["<unk>", "a", "a"]}': "found 'a' 2 times",
    '{"words": ["<unk>"], "more": 1}': "altered",
    '{"format": 2, "sha256": "", "words": ["<unk>"]}': "format 2.* pip install --upgrade",
    '{"format": 1, "sha256": "", "words": ["<unk>"]}': "altered",
    DEEP: "RecursionError",
    "\ud800": "Decode",
}


@pytest.mark.parametrize("content", VOCABULARIES, ids=range(len(VOCABULARIES)))
def test_a_file_that_is_no_vocabulary_is_told(tmp_path, content):
    file = tmp_path / "words.json"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with nothing_changes(tmp_path), pytest.raises(CheckpointError) as caught:
        Vocabulary.load(file)
    assert re.search(VOCABULARIES[content], str(caught.value))
    assert str(caught.value).startswith(f"{file}: ")
    assert "Write it with vocabulary.save(path)" in str(caught.value)


@pytest.mark.parametrize("spoil", [pipe, device, hollow, made_folder])
def test_a_vocabulary_is_a_file_of_a_bounded_size(tmp_path, spoil):
    Words().save(tmp_path)
    spoil(tmp_path / "words.json")
    with nothing_changes(tmp_path), bounded_memory(), pytest.raises(CheckpointError):
        Vocabulary.load(tmp_path / "words.json")


def test_a_vocabulary_written_by_hand_is_read(tmp_path):
    (tmp_path / "words.json").write_text('{"words": ["<unk>", "cat"]}')
    assert Vocabulary.load(tmp_path / "words.json").words == (UNKNOWN, "cat")


def test_a_link_goes_on_pointing_to_the_vocabulary(tmp_path):
    (tmp_path / "link.json").symlink_to("words.json")
    for _ in range(2):
        Words.vocabulary.save(tmp_path / "link.json")
        assert (tmp_path / "link.json").is_symlink()
        assert Vocabulary.load(tmp_path / "words.json") == Words.vocabulary


def test_what_a_model_makes_of_a_file_is_told_with_its_place():
    for error in (TypeError("x"), RuntimeError("x"), MemoryError(), KeyError("x"), OSError(5, "x")):
        with pytest.raises(CheckpointError, match=r"^runs/1: found \w+Error.*, expected what save"):
            with reading("runs/1"):
                raise error
    with pytest.raises(KeyboardInterrupt), reading("runs/1"):
        raise KeyboardInterrupt


# ---------------------------------------------------------------------------- saves that fail

SAVERS = {"Plain": Plain, "Words": Words}


def other(kind):
    """What is saved after the first, with other bytes in every file."""
    made = SAVERS[kind]()
    if kind == "Plain":
        made.tensors = {"a": torch.ones(30_000)}
    else:
        made.vocabulary = Vocabulary([UNKNOWN, *map(str, range(30_000))])
    return made


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("which", range(5))
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, kind, call, which):
    folder, calls, real = tmp_path / "here", [], getattr(os, call)
    folder.mkdir()
    SAVERS[kind]().save(folder)
    (tmp_path / "there").mkdir()
    other(kind).save(tmp_path / "there")
    old, new = contents(folder), contents(tmp_path / "there")

    def fail(*args, **more):
        calls.append(args)
        if len(calls) == which + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **more)

    told = "it was saved"
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        try:
            other(kind).save(folder)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            told = str(error)
    if "what was saved there before is as it was" in told:
        assert contents(folder) == old
    else:
        assert {name: contents(folder)[name] for name in new} == new
        assert ("may not outlast a power cut" in told) == (len(calls) > which)
    SAVERS[kind].load(folder)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("kind", SAVERS)
def test_a_full_disk_leaves_what_was_there(tmp_path, kind):
    SAVERS[kind]().save(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with nothing_changes(tmp_path), pytest.raises(OSError, match="what was saved there before"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            other(kind).save(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    SAVERS[kind].load(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/deeper", "new"])
def test_a_save_that_cannot_be_leaves_nothing(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("a file")
    if place == "new":
        monkeypatch.setattr(os, "fsync", lambda handle: 1 / 0)
    with nothing_changes(tmp_path), pytest.raises((OSError, ZeroDivisionError)):
        save_checkpoint(tmp_path / place / "a" / "b", "Plain", Plain.tensors, {})


@pytest.mark.parametrize("config", [{"a": torch.ones(1)}, {"a": {1, 2}}, {"a": "x" * 2**25}])
def test_a_config_that_cannot_be_saved_is_refused_first(tmp_path, config):
    Plain().save(tmp_path)
    with nothing_changes(tmp_path), pytest.raises((TypeError, ValueError)):
        save_checkpoint(tmp_path, "Plain", Plain.tensors, config)


@pytest.mark.parametrize("spoil", [pipe, made_folder])
def test_only_a_file_is_replaced(tmp_path, spoil):
    Words().save(tmp_path)
    spoil(tmp_path / "words.json")
    with nothing_changes(tmp_path), pytest.raises(OSError, match="folder, pipe or device"):
        Words().save(tmp_path)


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    for name in (
        *(".manifest.json.0123abcd.tmp", ".tensors-0123.safetensors.0123abcd.tmp"),
        *("tensors-0123456789abcdef.safetensors", ".words.json.0123abcd.tmp"),
    ):
        (tmp_path / name).write_text("unfinished")
    kept = tmp_path / ".other.json.0123abcd.tmp"
    kept.write_text("of another program")
    Words().save(tmp_path)
    assert not list(tmp_path.glob(".words*"))
    Plain().save(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(
        [kept, tmp_path / "words.json", manifest_of(tmp_path), tensors_of(tmp_path)]
    )


@pytest.mark.stage("system")
def test_savers_and_readers_of_one_folder_do_not_meet(tmp_path):
    """Three threads save, this one reads: always something whole that one of them saved."""

    def save(number):
        for i in range(15):
            tensors = {"a": torch.full((2000,), float(100 * number + i))}
            save_checkpoint(tmp_path, "Plain", tensors, {"n": 100 * number + i})

    save(0)
    threads = [threading.Thread(target=save, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tensors, config = load_checkpoint(tmp_path, "Plain")
        assert bool((tensors["a"] == config["n"]).all())
    assert len(list(tmp_path.iterdir())) == 2


# ---------------------------------------------------------------------------------- kill -9

# One process imports once and forks the savers, which then are ready in milliseconds.
NURSERY = """
import os, sys
import torch
from pyro_ssl.datasets import UNKNOWN, Vocabulary
from pyro_ssl.checkpoint import save_checkpoint

torch.set_num_threads(1)
for line in sys.stdin:
    kind, folder, n = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        n = int(n)
        while True:
            n += 1
            if kind == "Plain":
                tensors = {"a": torch.full((50_000,), float(n)), "b": torch.full((3,), float(n))}
                save_checkpoint(folder, "Plain", tensors, {"n": n, "padding": "x" * 50_000})
            else:
                words = [UNKNOWN, *(f"{n}-{i}" for i in range(20_000))]
                Vocabulary(words).save(os.path.join(folder, "words.json"))
            os.write(1, b"%d\\n" % n)
    os.write(1, b"pid %d\\n" % pid)
    os.waitpid(pid, 0)
    os.write(1, b"dead\\n")
"""


@pytest.fixture(scope="module")
def nursery():
    with nursery_of(NURSERY) as process:
        yield process


def saved_number(kind, folder):
    """The number of the save that is there, of which every part must be."""
    if kind == "Plain":
        tensors, config = load_checkpoint(folder, "Plain")
        assert all(bool((t == config["n"]).all()) for t in tensors.values())
        return config["n"]
    numbers = {word.split("-")[0] for word in Vocabulary.load(folder / "words.json").words[1:]}
    (number,) = numbers
    return int(number)


def kill_savers(nursery, folder, num_kills):
    draw = random.Random(num_kills)
    last = {"Plain": 0, "Words": 0}
    for _ in range(num_kills):
        kind = draw.choice(["Plain", "Plain", "Words"])
        nursery.stdin.write(f"{kind}\t{folder}\t{last[kind]}\n")
        lines = [nursery.stdout.readline(), nursery.stdout.readline()]
        (pid,) = (int(line.split()[1]) for line in lines if line.startswith("pid"))
        done = max(int(line) for line in lines if not line.startswith("pid"))
        time.sleep(draw.uniform(0.0, 0.04))
        os.kill(pid, signal.SIGKILL)
        while (line := nursery.stdout.readline()) != "dead\n":
            done = int(line)
        last[kind] = saved_number(kind, folder)
        assert done <= last[kind] <= done + 1
    Plain().save(folder)
    Words().save(folder)
    assert len(list(folder.iterdir())) == 3


@pytest.mark.stage("system")
def test_kill_during_saves(nursery, tmp_path):
    kill_savers(nursery, tmp_path, 10)


@pytest.mark.stage("system")
def test_many_kills_during_saves(nursery, tmp_path):
    kill_savers(nursery, tmp_path, 100)
